"""Kill a process at each system call of a save."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import Snapshot, XmlStore, dumps, loads
from client_session_persistence.atomic_file import check_folder
from event_ids import event_id
from torture.fault import Fault, Outcome, Scale
from torture.strace import Call, run_traced
from torture.worker_pool import run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))
SAMPLING_INTERVAL = 12
"""The interval at which the test suite samples system calls."""


def use_session(folder: Path) -> None:
    """Start a session, track two events and close it; this saves three times, or twice if an old file exists."""
    with ClientSession(folder / "session.xml", scheduler=ManualScheduler()) as session:
        session.get_session_context(event_id(1))
        session.get_session_context(event_id(2))


def traced_function(folder: Path) -> Callable[[AbstractContextManager[None]], list[str]]:
    """Return the function that a traced child runs."""

    def work(traced: AbstractContextManager[None]) -> list[str]:
        with traced:
            use_session(folder)
        return []

    return work


def count_renames(calls: tuple[Call, ...]) -> int:
    """Return how many times the calls replaced the save file."""
    return sum(call.name.startswith("rename") and '/session.xml"' in call.rest.partition(" = ")[0] for call in calls)


def count_saves_in_file(folder: Path, old: Snapshot | None) -> int | str:
    """Return how many saves after ``old`` are in the file, or a description of the damage."""
    path = folder / "session.xml"
    data = path.read_bytes() if path.exists() else None
    try:
        found = None if data is None else loads(data)
    except ValueError as error:
        return str(error)
    if found is not None and dumps(found) != data:
        return "the file's bytes differ from those that were written"
    starts = (old,) if old else (None, found and Snapshot(user_id=found.user_id))
    if found in starts:
        return starts.index(found)
    if found is None:
        return "the file is missing"
    expected = (old.user_id, old.session_index + 1, old.session_id) if old else (found.user_id, 1, None)
    if (found.user_id, found.session_index, found.previous_session_id) != expected or found.first_event_id != event_id(
        1
    ):
        return f"neither the old nor the new contents: {found}"
    return len(starts) - 1 + (found.event_index or 0)


def restart(folder: Path) -> list[str]:
    """Start a session after a kill, and return the losses."""
    path = folder / "session.xml"
    before = loads(path.read_bytes()) if path.exists() else None
    losses: list[str] = []
    session = ClientSession(path, scheduler=ManualScheduler())
    if session.save_error is not None:
        losses.append(f"the next start fails: {session.save_error}")
    if before is not None and session.user_id != before.user_id:
        losses.append("the next start has a different user")
    losses.extend(f"{file.name} remains" for file in sorted(folder.glob("*.tmp")))
    index = session.get_session_context(event_id(3)).session_index
    if index != (before.session_index if before else 0) + 1:
        losses.append(f"the next session has the index {index}")
    session.close()
    return losses


def prepare_folder(folder: Path, old: Snapshot | None) -> None:
    """Empty the folder; if ``old`` is given, create an old save file and its backup."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    if old is not None:
        XmlStore(folder / "session.xml").save(attrs.evolve(old, session_index=1))
        XmlStore(folder / "session.xml").save(old)
    check_folder.cache_clear()  # a new folder may have the inode of one that this process has checked


def kill_at_each(name: str, old: Snapshot | None, shard: int, step: int) -> tuple[int, list[str]]:
    """Kill a child at every ``step``-th system call, starting at ``shard``; return the call count and the losses."""
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        folder, trace = Path(root) / "created" / "session", Path(root) / "trace"
        prepare_folder(folder, old)
        use_session(folder)  # untraced, so that every traced child makes the same calls
        prepare_folder(folder, old)
        calls = run_traced(traced_function(folder), trace).calls
        for position in range(shard, len(calls), step):
            call = calls[position]
            prepare_folder(folder, old)
            traced = run_traced(traced_function(folder), trace, f"inject={call.name}:signal=SIGKILL:when={call.number}")
            found, expected = count_saves_in_file(folder, old), count_renames(calls[:position])
            if traced.status != -signal.SIGKILL:
                lost = [f"ended with status {traced.status} instead of being killed"]
            elif found != expected:
                lost = [f"expected {expected} saves, found {found}"]
            else:
                lost = restart(folder)
            losses.extend(f"{name}, killed at call {position}, {call.name} {call.number}: {loss}" for loss in lost)
    return len(calls), losses


def _run_shard(shard: int, shards: int, scale: Scale) -> Outcome:
    step = shards * (SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    first, first_losses = kill_at_each("first run", None, shard, step)
    later, later_losses = kill_at_each("later run", OLD, shard, step)
    return Outcome(
        len(range(shard, first, step)) + len(range(shard, later, step)),
        (*first_losses, *later_losses),
        f"{first} system calls in a first run, {later} in a later run",
    )


def _run_all(scale: Scale) -> Outcome:
    return run_in_workers(_run_shard, scale)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a process is killed at each system call of its saves, in a first run and a later one, then restarted",
        "the file has neither the old nor the new contents, the user id or an index is lost, or a temporary file "
        "survives the next start",
        _run_all,
    ),
)
