"""Kill processes and cut the power at each system call of a database."""

from __future__ import annotations

import gc
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, SqliteStore, atomic_file, sqlite_connection
from client_session_persistence.atomic_file import check_folder
from event_ids import event_id
from torture.disk import mounted_disk
from torture.fault import Fault, Outcome, Scale
from torture.power_cut import FILE_SYSTEMS, PATHS
from torture.strace import Call, run_traced
from torture.worker_pool import run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torture.disk import Disk

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))
NEW = Snapshot(user_id=event_id(7), session_id=event_id(10), session_index=42, previous_session_id=event_id(8))
OTHER_USER = Snapshot(user_id=event_id(11))
NEIGHBOR = Snapshot(user_id=event_id(12), session_id=event_id(13), session_index=5)
"""Another session in the same database."""
SAMPLING_INTERVAL = 20
"""The interval at which the test suite samples system calls."""

_PAGE_IN_LOG = re.compile(r", 4096, (\d+)\) = 4096$")
_LOG_HEADER_BYTES, _FRAME_BYTES, _FRAME_HEADER_BYTES = 32, 24 + 4096, 24


@attrs.frozen
class Work:
    """What a process does until it is killed, and what the database may contain afterward."""

    name: str
    run: Callable[[Path], object]
    before: Snapshot | None
    find_loss: Callable[[Path, tuple[Call, ...]], str | None]
    """Takes the folder and the calls before the kill."""

    def prepare(self, folder: Path) -> None:
        """Empty the folder and create the database."""
        shutil.rmtree(folder.parent, ignore_errors=True)
        if self.before is not None:
            save(folder, attrs.evolve(self.before, session_index=1))
            save(folder, self.before)
            SqliteStore(folder / "sessions.db", "neighbor").save(NEIGHBOR)
        check_folder.cache_clear()  # a new folder may have the inode of one that this process has checked

    def traced(self, folder: Path) -> Callable[[AbstractContextManager[None]], list[str]]:
        """Return the function that a traced child runs."""

        def work(traced: AbstractContextManager[None]) -> list[str]:
            with traced:
                self.run(folder)
            return []

        return work


def save(folder: Path, snapshot: Snapshot) -> None:
    """Save a snapshot, and close the database."""
    SqliteStore(folder / "sessions.db").save(snapshot)


def load(folder: Path, name: str = "default") -> Snapshot | None:
    """Return the snapshot in the database, and close it."""
    return SqliteStore(folder / "sessions.db", name).load()


def use_session(folder: Path) -> None:
    """Start a session, track two events and close it; this saves three times, or twice if an old session exists."""
    with ClientSession(store=SqliteStore(folder / "sessions.db"), scheduler=ManualScheduler()) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))


def replace_user(folder: Path) -> None:
    """Replace the user."""
    SqliteStore(folder / "sessions.db").replace_user(OTHER_USER)


def count_saves(calls: tuple[Call, ...]) -> int:
    """Return how many times the calls created the database or appended a page to its log."""
    saves = 0
    for call in calls:
        page = _PAGE_IN_LOG.search(call.rest) if call.name == "pwrite64" else None
        in_log = page and int(page[1]) % _FRAME_BYTES == _LOG_HEADER_BYTES + _FRAME_HEADER_BYTES
        created = call.name.startswith("rename") and '/sessions.db"' in call.rest.partition(" = ")[0]
        saves += bool(in_log or created)
    return saves


def find_loss_of_session(folder: Path, calls: tuple[Call, ...]) -> str | None:
    """Check that all saves before the kill are in the database, and that the next session continues."""
    path, expected = folder / "sessions.db", count_saves(calls)
    found = load(folder)
    old = OLD if found is not None and load(folder, "neighbor") == NEIGHBOR else None
    user = [] if old else [None]
    states = [*user, old or (found and Snapshot(user_id=found.user_id, storage_mechanism="SQLITE"))]
    saves = states.index(found) if found in states else len(states) - 1 + ((found and found.event_index) or 0)
    if saves != expected:
        return f"expected {expected} saves, found {saves}: {found}"
    with ClientSession(store=SqliteStore(path), scheduler=ManualScheduler()) as session:
        if found is not None and session.user_id != found.user_id:
            return "the next start has a different user"
        index = session.get_session_context(event_id(3)).session_index
        if session.save_error is not None or index != (found.session_index if found else 0) + 1:
            return f"the next session has the index {index} and the error {session.save_error}"
    remaining = [file.name for file in folder.glob("*.tmp")]
    return f"{remaining} remain" if remaining else None


def find_loss_of_user(folder: Path, _: tuple[Call, ...]) -> str | None:
    """Check that the user was either not replaced, or without a trace of the old one; then replace them."""
    for _attempt in range(2):
        found = load(folder)
        gc.collect()
        if load(folder, "neighbor") != NEIGHBOR:
            return "another session changed"
        if found not in (OLD, OTHER_USER):
            return f"neither the old nor the new user: {found}"
        contents = b"".join(file.read_bytes() for file in folder.iterdir())
        if found == OTHER_USER and any(str(each).encode() in contents for each in attrs.astuple(OLD)[:3]):
            return "an id of the old user remains"
        replace_user(folder)
    return None


FIRST_RUN = Work("first run", use_session, None, find_loss_of_session)
LATER_RUN = Work("later run", use_session, OLD, find_loss_of_session)
REPLACEMENT = Work("replacement", replace_user, OLD, find_loss_of_user)


def kill_at_each(work: Work, shard: int, step: int) -> tuple[int, int, list[str]]:
    """Kill a child at every ``step``-th system call; return the numbers of calls and of cases, and the losses."""
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        folder, trace = Path(root) / "created" / "session", Path(root) / "trace"
        work.prepare(folder)
        work.run(folder)  # untraced, so that every traced child makes the same calls
        work.prepare(folder)
        calls = run_traced(work.traced(folder), trace).calls
        positions = range(shard, len(calls), step)
        for position in positions:
            call = calls[position]
            work.prepare(folder)
            expression = f"inject={call.name}:signal=SIGKILL:when={call.number}"
            status = run_traced(work.traced(folder), trace, expression).status
            if status != -signal.SIGKILL:
                loss: str | None = f"ended with status {status} instead of being killed"
            else:
                loss = work.find_loss(folder, calls[:position])
            if loss:
                losses.append(f"{work.name}, killed at call {position}, {call.name} {call.number}: {loss}")
    return len(calls), len(positions), losses


def _kill_during(*works: Work) -> Callable[[Scale], Outcome]:
    return _Kills(works)


@attrs.frozen
class _Kills:
    """Kills at each system call of each work. An object, because worker processes cannot receive a closure."""

    works: tuple[Work, ...]

    def __call__(self, scale: Scale) -> Outcome:
        return run_in_workers(self.run_shard, scale)

    def run_shard(self, shard: int, shards: int, scale: Scale) -> Outcome:
        step = shards * (SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
        results = [(work, *kill_at_each(work, shard, step)) for work in self.works]
        return Outcome(
            sum(cases for _, _, cases, _ in results),
            tuple(loss for *_, losses in results for loss in losses),
            ", ".join(f"{calls} system calls in a {work.name}" for work, calls, *_ in results),
        )


def _load_after_power_cut(
    disk: Disk, path: str, name: str = "default", *, checked: bool = False
) -> tuple[bool, Snapshot | None]:
    """Return whether the database exists on the disk after a power cut, and its snapshot, if it is readable."""
    with disk.after_power_cut(checked=checked) as after:
        exists = (after / path).exists()
        try:
            return exists, SqliteStore(after / path, name).load()
        except CorruptSaveFileError:
            return exists, None


def _cut_after_saves(disk: Disk, path: str, rounds: int) -> Iterator[str]:
    """Save consecutive snapshots, cut the power after each acknowledged save, and yield the losses."""
    store = SqliteStore(disk.folder / path)
    for number in range(1, rounds + 1):
        snapshot = attrs.evolve(OLD, session_index=number)
        store.save(snapshot)
        _, found = _load_after_power_cut(disk, path)
        if found != snapshot:
            yield f"{path}: after save {number}, the disk has {found}"


def cut_after_a_save(scale: Scale) -> Outcome:
    """Cut the power after first and later saves, after saves that create folders, and without fsync."""
    sample = scale is Scale.SAMPLE
    losses: list[str] = []
    cuts = 0
    for mkfs_arguments, options in FILE_SYSTEMS[1:2] if sample else FILE_SYSTEMS:
        with mounted_disk(mkfs_arguments, options) as disk:
            for path in PATHS:
                losses += [f"{options}: {loss}" for loss in _cut_after_saves(disk, path, 4 if sample else 24)]
            cuts += disk.cuts
        settings = tuple(s.replace("= FULL", "= OFF") for s in sqlite_connection._SETTINGS)  # noqa: SLF001
        with (
            mounted_disk(mkfs_arguments, options) as disk,
            mock.patch.object(atomic_file, "_sync"),
            mock.patch.object(sqlite_connection, "_SETTINGS", settings),
        ):
            if not list(_cut_after_saves(disk, "sessions.db", 2)):
                losses.append(f"{options}: saves survive even without fsync, so this test proves nothing")
    return Outcome(cuts, tuple(losses), "without fsync, every disk loses the session")


def _cut_after_calls(disk: Disk, old: Snapshot | None, replacement: Snapshot, step: int) -> Iterator[str]:
    """Cut the power after each system call of a save or of a replacement of the user, and yield the losses."""
    path = disk.folder / "sessions.db"

    def work(traced: AbstractContextManager[None]) -> list[str]:
        store = SqliteStore(path)
        store.load()  # opens the database
        with traced:
            if replacement is OTHER_USER:
                store.replace_user(replacement)
            else:
                store.save(replacement)
        return []

    def prepare() -> None:
        for file in disk.folder.glob("sessions*"):
            file.unlink()
        if old is not None:
            SqliteStore(path).save(old)
            SqliteStore(path, "neighbor").save(NEIGHBOR)

    trace = disk.root / "trace"
    prepare()
    SqliteStore(path).save(NEW)  # untraced, so that every traced child makes the same calls
    prepare()
    calls = run_traced(work, trace).calls
    for position in range(0, len(calls), step):
        call = calls[position]
        prepare()
        run_traced(work, trace, f"inject={call.name}:signal=SIGKILL:when={call.number}")
        # In the middle of a save, a new log's name may be on a disk without a journal, but not the log itself.
        exists, found = _load_after_power_cut(disk, "sessions.db", checked=True)
        neighbor = NEIGHBOR if old is None else _load_after_power_cut(disk, "sessions.db", "neighbor", checked=True)[1]
        if neighbor != NEIGHBOR or (found not in (old, replacement) and (exists or old is not None)):
            yield f"before {call.name} {call.number}: the disk has {found} and {neighbor}"


def cut_after_every_call(scale: Scale) -> Outcome:
    """Cut the power after every system call of a first save, of a later one, and of a replacement of the user."""
    return run_in_workers(_cut_after_every_call, scale, 1)


def _cut_after_every_call(_shard: int, _shards: int, scale: Scale) -> Outcome:
    sample = scale is Scale.SAMPLE
    losses: list[str] = []
    cuts = 0
    for mkfs_arguments, options in FILE_SYSTEMS[1:2] if sample else FILE_SYSTEMS:
        with mounted_disk(mkfs_arguments, options) as disk:
            for old, replacement in ((None, NEW), (OLD, NEW), (OLD, OTHER_USER)):
                lost = _cut_after_calls(disk, old, replacement, SAMPLING_INTERVAL if sample else 1)
                losses += [f"{options}: {loss}" for loss in lost]
            cuts += disk.cuts
    return Outcome(cuts, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a process is killed at each system call of its saves to a database, in a first run and a later one",
        "the database has neither the old nor the new contents, the user id or an index is lost, another session "
        "changes, or a temporary file survives the next start",
        _kill_during(FIRST_RUN, LATER_RUN),
    ),
    Fault(
        "a process is killed at each system call of replacing the user in a database",
        "after the next start, the database has neither the old nor the new user, an id of the old one remains next to "
        "the new one, or another session changes",
        _kill_during(REPLACEMENT),
    ),
    Fault(
        "power cut right after a save to a database returns, on ext4 (including with noauto_da_alloc, nodelalloc or no "
        "journal)",
        "the new session is not on the disk",
        cut_after_a_save,
    ),
    Fault(
        "power cut after every system call of a save to a database and of replacing its user",
        "the disk has neither the old session nor the new one, or another session changes",
        cut_after_every_call,
    ),
)
