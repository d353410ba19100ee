"""Interrupt the replacement of the user: with kills, failing system calls and power cuts."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import Snapshot, StoreError, XmlStore, dumps
from client_session_persistence.atomic_file import check_folder, sync_folder
from event_ids import event_id
from torture.background_saves import before_each_operation
from torture.disk import mounted_disk
from torture.failing_system_calls import ERRORS, UNAFFECTED_CALLS, Injection
from torture.fault import Fault, Outcome, Scale
from torture.forked_children import require_fork
from torture.power_cut import FILE_SYSTEMS, after_every_step, wait_for_locks
from torture.strace import run_traced
from torture.survivor import Log
from torture.worker_pool import fork_child, run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torture.strace import TracedRun

OLD = Snapshot(user_id=event_id(7), session_id=event_id(8), session_index=41, previous_session_id=event_id(9))
OLDER = attrs.evolve(OLD, session_index=40)
NEW = Snapshot(user_id=event_id(17))
_OLD_IDS = [event_id(number).encode() for number in (7, 8, 9)]

_CODES = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE)
_CALLS_THAT_REPLACING_NEEDS = {"write", "fsync", "unlink", "rename"}
_LAST_CALLS = {"open", "openat", "fsync", "flock"}
"""If one of these fails after the file has been replaced, `replace_user` raises although the user has changed: it opens
the folder, syncs it, and unlocks the lock file."""
_KILL_SAMPLING_INTERVAL = 12
_FAILURE_SAMPLING_INTERVAL = 97


@attrs.frozen
class Scenario:
    """The save file before the replacement."""

    name: str
    data: bytes

    def prepare(self, folder: Path) -> Path:
        """Create the save file, backup, corrupt copy and temporary file, durably, and return the save path."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contents = {"": self.data, ".bak": dumps(OLDER), ".corrupt": dumps(OLD)[:-1], ".tmp": dumps(OLD)[:-9]}
        for suffix, data in contents.items():
            with (folder / f"session.xml{suffix}").open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(os.fspath(folder))
        check_folder.cache_clear()  # a new folder may have the inode of one that this process has checked
        return folder / "session.xml"

    def has_old_contents(self, data: bytes) -> bool:
        """Return whether the save file has its old contents, or, if they were corrupt, those of its backup."""
        return data == self.data or (self.data != dumps(OLD) and data == dumps(OLDER))


SCENARIOS = (Scenario("good file", dumps(OLD)), Scenario("corrupt file", b"corrupt"))


def _remains(folder: Path) -> list[str]:
    """Return the files in a folder that contain one of the old user's ids."""
    remains: list[str] = []
    for file in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # without a journal, a power cut can damage the lock file
            if any(each in file.read_bytes() for each in _OLD_IDS):
                remains.append(file.name)
    return remains


def _damage(scenario: Scenario, path: Path) -> str:
    """Return what is wrong with the files, or an empty string."""
    data = path.read_bytes() if path.exists() else b"nothing"
    if data == dumps(NEW):
        remains = _remains(path.parent)
        return f"the file has the new user, but {', '.join(remains)} the old one" if remains else ""
    return "" if scenario.has_old_contents(data) else f"the file has {data!r}"


def _replace_again(path: Path) -> str:
    """Restart with a session, then replace the user; return what was lost."""
    was_new = path.read_bytes() == dumps(NEW)
    with ClientSession(path, logger=Log(), scheduler=ManualScheduler()) as session:
        session.get_session_context(event_id(1))
        if session.user_id != (NEW if was_new else OLD).user_id:
            return f"the next start has the user {session.user_id}"
        if session.save_error is not None:
            return f"the next start fails: {session.save_error}"
    if was_new and _remains(path.parent):
        return "the next start brings the old user back"
    if list(path.parent.glob("*.tmp")):
        return "a temporary file survives the next start"
    XmlStore(path).replace_user(NEW)
    return "a second replacement fails" if path.read_bytes() != dumps(NEW) or _remains(path.parent) else ""


# Kills and failures, at system calls


def _traced_function(path: Path) -> Callable[[AbstractContextManager[None]], list[str]]:
    """Return the function that a traced child runs: replace the user, and return the error, if any."""

    def work(traced: AbstractContextManager[None]) -> list[str]:
        errors: list[str] = []
        store = XmlStore(path)
        with traced:
            try:
                store.replace_user(NEW)
            except (OSError, StoreError) as error:
                errors.append(repr(error))
        return errors

    return work


def _kill(shard: int, shards: int, scale: Scale) -> Outcome:
    losses: list[str] = []
    cases = 0
    step = shards * (_KILL_SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        folder, trace = Path(root) / "session", Path(root) / "trace"
        for scenario in SCENARIOS:
            work = _traced_function(scenario.prepare(folder))
            XmlStore(folder / "session.xml").replace_user(NEW)  # untraced, so that traced children make the same calls
            scenario.prepare(folder)
            calls = run_traced(work, trace).calls
            for call in calls[shard::step]:
                path = scenario.prepare(folder)
                traced = run_traced(work, trace, f"inject={call.name}:signal=SIGKILL:when={call.number}")
                if traced.status != -signal.SIGKILL:
                    lost = f"ended with status {traced.status} instead of being killed"
                else:
                    lost = _damage(scenario, path) or _replace_again(path)
                losses += [f"{scenario.name}, killed at {call.name} {call.number}: {lost}"] if lost else []
                cases += 1
    return Outcome(cases, tuple(losses))


def _check_result(scenario: Scenario, path: Path, case: Injection, traced: TracedRun) -> str:
    """Return what was lost in a case, or an empty string."""
    if traced.status != 0:
        return f"the process ended with status {traced.status}"
    if not traced.injected:
        return "the error was not injected"
    must_fail = case.permanent and case.error != "EINTR" and case.call.name in _CALLS_THAT_REPLACING_NEEDS
    is_new = path.read_bytes() == dumps(NEW)
    if not traced.returned and (must_fail or not is_new):
        return "a failure was not reported"
    if traced.returned and is_new and case.call.name not in _LAST_CALLS:
        return f"the user was replaced although replace_user() raised {traced.returned}"
    return _damage(scenario, path) or _replace_again(path)


def _fail(shard: int, shards: int, scale: Scale) -> Outcome:
    losses: list[str] = []
    cases = 0
    names: set[str] = set()
    step = shards * (_FAILURE_SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        folder, trace = Path(root) / "session", Path(root) / "trace"
        for scenario in SCENARIOS:
            XmlStore(scenario.prepare(folder)).replace_user(NEW)
            calls = run_traced(_traced_function(scenario.prepare(folder)), trace).calls
            calls = tuple(call for call in calls if call.name not in UNAFFECTED_CALLS)
            names.update(call.name for call in calls)
            injections = itertools.starmap(Injection, itertools.product(calls, ERRORS[XmlStore], (False, True)))
            for case in itertools.islice(injections, shard, None, step):
                path = scenario.prepare(folder)
                lost = _check_result(scenario, path, case, run_traced(_traced_function(path), trace, case.expression))
                losses += [f"{scenario.name}, {case}: {lost}"] if lost else []
                cases += 1
    figures = f"{len(names)} system calls ({', '.join(sorted(names))}), {len(ERRORS[XmlStore])} errors"
    return Outcome(cases, tuple(losses), figures)


# Kills and failures, at file operations of both threads


def _positions(scenario: Scenario, folder: Path, shard: int, step: int) -> range:
    """Count the file operations of replacing the user in the background; return this shard's part of them."""
    path = scenario.prepare(folder)
    with before_each_operation(lambda _name, _number: None) as names:
        XmlStore(path, background=True).replace_user(NEW)
    return range(shard, len(names), step)


def _kill_in_background(shard: int, shards: int, scale: Scale) -> Outcome:
    losses: list[str] = []
    cases = 0
    step = shards * (_KILL_SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        for scenario in SCENARIOS:
            for position in _positions(scenario, Path(root) / "session", shard, step):
                path = scenario.prepare(Path(root) / "session")

                def work(path: Path = path, position: int = position) -> None:
                    def kill(_: str, number: int) -> None:
                        if number == position:
                            os.kill(os.getpid(), signal.SIGKILL)

                    with before_each_operation(kill):
                        XmlStore(path, background=True).replace_user(NEW)

                os.waitpid(fork_child(work), 0)
                lost = _damage(scenario, path) or _replace_again(path)
                losses += [f"{scenario.name}, killed at operation {position}: {lost}"] if lost else []
                cases += 1
    return Outcome(cases, tuple(losses))


def _fail_at(scenario: Scenario, path: Path, position: int, code: int, *, is_permanent: bool) -> str:
    """Make one operation fail, and with ``is_permanent`` all later ones with its name; return what was lost."""
    failing, raised = "", False

    def fail(name: str, number: int) -> None:
        nonlocal failing
        if number == position:
            failing = name
        if number == position or (is_permanent and name == failing):
            raise OSError(code, os.strerror(code))

    store = XmlStore(path, background=True)
    with before_each_operation(fail):
        try:
            store.replace_user(NEW)
        except OSError:
            raised = True
    is_new = path.read_bytes() == dumps(NEW)
    if (is_new and failing not in _LAST_CALLS) if raised else not is_new:
        return f"replace_user() {'raised' if raised else 'returned'}, and the file has {path.read_bytes()!r}"
    wait_for_locks()
    return _damage(scenario, path) or _replace_again(path)


def _fail_in_background(shard: int, shards: int, scale: Scale) -> Outcome:
    losses: list[str] = []
    cases = 0
    step = shards * (_KILL_SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        for scenario in SCENARIOS:
            for position in _positions(scenario, Path(root) / "session", shard, step):
                for code, is_permanent in itertools.product(_CODES, (False, True)):
                    path = scenario.prepare(Path(root) / "session")
                    lost = _fail_at(scenario, path, position, code, is_permanent=is_permanent)
                    duration = "permanently" if is_permanent else "once"
                    case = f"{scenario.name}, operation {position} fails with {errno.errorcode[code]} {duration}"
                    losses += [f"{case}: {lost}"] if lost else []
                    cases += 1
    return Outcome(cases, tuple(losses))


# Power cuts


def _cut(scenario: Scenario, folder: Path, cut: Callable[[], AbstractContextManager[Path]]) -> Iterator[str]:
    """Replace the user, directly and in the background; cut the power after each step, and yield the losses."""
    for is_background in (False, True):
        steps: list[str] = []
        lost: list[str] = []
        path = scenario.prepare(folder / "session")
        sync_folder(os.fspath(folder))

        def check(step: str, steps: list[str] = steps, lost: list[str] = lost) -> None:
            steps.append(step)
            with cut() as after:
                damage = _damage(scenario, after / "session" / "session.xml")
            lost += [f"{scenario.name}, after {', '.join(steps)}: {damage}"] if damage else []

        with after_every_step(check):
            XmlStore(path, background=is_background).replace_user(NEW)
        wait_for_locks()
        with cut() as after:
            if (after / "session" / "session.xml").read_bytes() != dumps(NEW):
                lost.append(f"{scenario.name}: the user has not been replaced for good")
        yield from lost


def cut_after_every_step(scale: Scale) -> Outcome:
    """Cut the power after every system call of replacing the user."""
    losses: list[str] = []
    cuts = 0
    for mkfs_arguments, options in FILE_SYSTEMS[1:2] if scale is Scale.SAMPLE else FILE_SYSTEMS:
        with mounted_disk(mkfs_arguments, options) as disk:
            for scenario in SCENARIOS:
                losses += [f"{options}: {loss}" for loss in _cut(scenario, disk.folder, disk.after_power_cut)]
            cuts += disk.cuts
    return Outcome(cuts, tuple(losses))


def _in_workers(run: Callable[[int, int, Scale], Outcome]) -> Callable[[Scale], Outcome]:
    def run_all(scale: Scale) -> Outcome:
        require_fork()
        return run_in_workers(run, scale)

    return run_all


_LOSS = "the file has neither the old user nor the new one, or has the new one while another file has the old one's ids"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "a process is killed at each system call of replacing the user, then restarted",
        f"{_LOSS}; the next start has another user; or a second replacement fails",
        _in_workers(_kill),
    ),
    Fault(
        "each system call of replacing the user fails with each error, both once and permanently",
        f"{_LOSS}; a failure is not reported; or a second replacement fails",
        _in_workers(_fail),
    ),
    Fault(
        "a process is killed at each file operation of replacing the user in the background, then restarted",
        f"{_LOSS}; the next start has another user; or a second replacement fails",
        _in_workers(_kill_in_background),
    ),
    Fault(
        "each file operation of replacing the user in the background fails, both once and permanently",
        f"{_LOSS}; a failure is not reported; or a second replacement fails",
        _in_workers(_fail_in_background),
    ),
    Fault(
        "power cut after every system call of replacing the user, directly and in the background",
        _LOSS,
        cut_after_every_step,
    ),
)
