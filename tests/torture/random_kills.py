"""Kill processes at random while they write, and start sessions while another process is stopped mid-write."""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import sys
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session_persistence import CorruptSaveFileError, SqliteStore, XmlStore, loads
from torture.fault import Fault, Outcome, Scale
from torture.worker_pool import fork_child, print_report, run_in_fresh_interpreters, temporary_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext
    from client_session_persistence import Snapshot

_FILES = 2
"""The number of save files tested concurrently, each by one process at a time."""

_STORES = {"xml": XmlStore, "sqlite": SqliteStore}
_THREADS = 3
_MAX_LIFETIME = 0.03
"""The maximum time in seconds before a process is killed."""


def _write_until_killed(store: XmlStore | SqliteStore, acknowledgments: int) -> None:
    """Save until killed, and report each completed save on the pipe ``acknowledgments``."""
    session, path = ClientSession(store=store), store.path
    os.write(acknowledgments, f"start {len(temporary_files(path))} {session.user_id}\n".encode())

    def acknowledge(context: SessionContext) -> None:
        os.write(acknowledgments, f"{context.session_index} {context.event_index} {context.session_id}\n".encode())

    def write() -> None:
        while True:
            context = session.get_session_context(uuid.uuid4())
            if context.event_index == 1 and session.save_error is None:
                acknowledge(context)
            session.save()
            acknowledge(context)
            session.start_new_session()

    threads = [threading.Thread(target=write) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    message = "a writer thread ended before the kill"
    raise RuntimeError(message)


def _run_and_kill(store: XmlStore | SqliteStore, seconds: float, *, wait_for_start: bool) -> list[list[str]]:
    """Fork a process and, optionally, wait for its session; kill the process after a delay, and return its output."""
    reader, writer = os.pipe()
    process = fork_child(lambda: _write_until_killed(store, writer))
    os.close(writer)
    if wait_for_start:  # wait until the session has started, even on a busy machine
        select.select([reader], [], [], 10)
    time.sleep(seconds)  # kill at a random time
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with os.fdopen(reader) as output:
        lines = [line.split() for line in output if line.endswith("\n")]
    if not os.WIFSIGNALED(status):
        lines.append(["failed"])
    return lines


@attrs.define
class _SaveFileUnderTest:
    """A save file, and the saves that the processes using it have acknowledged."""

    store: XmlStore | SqliteStore
    user_id: str | None = None
    newest: tuple[int, int] = (0, 0)
    """The session index and event count of the latest acknowledged save."""
    session_of: dict[int, str] = attrs.field(factory=dict[int, str])
    acknowledged: int = 0
    interrupted_writes: int = 0
    """The number of kills that interrupted a write and left a temporary file behind."""

    def check(self, lines: list[list[str]]) -> str | None:
        """Check a killed process's output and the file; return a loss, if any."""
        for line in lines:
            if line == ["failed"]:
                return "the process failed before it was killed"
            if line[0] == "start":
                _, count, user_id = line
                if count != "0":
                    return "a temporary file remained after the next start"
                if user_id != (self.user_id or user_id):
                    return f"user {self.user_id} changed to {user_id}"
                self.user_id = user_id
                continue
            index, events = int(line[0]), int(line[1])
            if self.session_of.setdefault(index, line[2]) != line[2]:
                return f"two sessions have the index {index}"
            self.newest = max(self.newest, (index, events))
            self.acknowledged += 1
        return self._check_disk()

    def _read(self) -> Snapshot | None:
        if isinstance(self.store, SqliteStore):
            return self.store.load()
        if self.store.backup_path.exists():
            loads(self.store.backup_path.read_bytes())
        return loads(self.store.path.read_bytes()) if self.store.path.exists() else None  # leave temporary files alone

    def _check_disk(self) -> str | None:
        try:
            saved = self._read()
        except CorruptSaveFileError as error:
            return f"unreadable: {error}"
        if saved is None:
            return "the file is missing" if self.user_id else None
        if (saved.session_index, saved.event_index or 0) < self.newest:
            return f"session and event {self.newest} were acknowledged, but the file has {saved}"
        if self.session_of.get(saved.session_index, saved.session_id) != saved.session_id:
            return f"session {saved.session_index} in the file is not the acknowledged one"
        remaining = temporary_files(self.store.path)
        self.interrupted_writes += bool(remaining)
        return f"more than one temporary file: {remaining}" if len(remaining) > 1 else None


def _kill_at_random(folder: Path, kind: str, processes: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # not a secret
    test_file = _SaveFileUnderTest(_STORES[kind](folder / "session"))
    losses: list[str] = []
    for number in range(processes):
        lines = _run_and_kill(test_file.store, chance.uniform(0, _MAX_LIFETIME), wait_for_start=number % 2 == 1)
        if loss := test_file.check(lines):
            losses.append(f"file {seed}, process {number}: {loss}")
    print_report(
        processes, losses, acknowledged=test_file.acknowledged, interrupted_writes=test_file.interrupted_writes
    )


def kill_at_random(scale: Scale, kind: str = "xml") -> Outcome:
    """Kill processes that write from three threads."""
    processes = 40 if scale is Scale.SAMPLE else 2000
    arguments = [[kind, str(processes // _FILES), str(number)] for number in range(_FILES)]
    reports = run_in_fresh_interpreters(__name__, arguments)
    acknowledged, interrupted_writes = (
        int(sum(each["counts"][key] for each in reports)) for key in ("acknowledged", "interrupted_writes")
    )
    return Outcome(
        sum(each["cases"] for each in reports),
        tuple(loss for each in reports for loss in each["losses"]),
        f"{acknowledged:,} acknowledged saves, {interrupted_writes} kills while a temporary file existed",
    )


# Starting while another process is stopped during a write

_STEPS = ("open", "link", "write", "fsync", "replace", "unlink", "close")


def _stop_before(step: int, path: Path) -> None:
    """Begin a new session, and stop before a step of its save until SIGCONT arrives."""
    session = ClientSession(path)
    steps = itertools.count(1)

    def wrap(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGSTOP)
            return real(*arguments, **options)

        return call

    for name in _STEPS:
        setattr(os, name, wrap(getattr(os, name)))
    session.get_session_context(uuid.uuid4())
    if session.save_error is not None:
        raise session.save_error


def _fork_stopped(path: Path, step: int) -> int | None:
    """Fork a process that stops before a step of its save; return its id, or ``None`` if the save has fewer steps."""
    neighbor = fork_child(lambda: _stop_before(step, path))
    _, status = os.waitpid(neighbor, os.WUNTRACED)
    return neighbor if os.WIFSTOPPED(status) else None


def _start_during_write_of(neighbor: int, path: Path, before: SessionContext, *, continues: bool) -> str | None:
    """Start a session while a process is stopped, and another after that process continues or is killed."""
    files_being_written = temporary_files(path)
    start = time.monotonic()
    started = ClientSession(path)
    seconds = time.monotonic() - start
    untouched = temporary_files(path) == files_being_written
    os.kill(neighbor, signal.SIGCONT if continues else signal.SIGKILL)
    _, status = os.waitpid(neighbor, 0)
    after = ClientSession(path)
    saved = loads(path.read_bytes())
    if not untouched:
        return f"the start removed {files_being_written}"
    if seconds > _MAX_START_SECONDS:
        return f"the start took {seconds:.2f} s"
    if {started.user_id, after.user_id, saved.user_id} != {before.user_id}:
        return "the user changed"
    if continues and (status or saved.session_index != before.session_index + 1):
        return f"the neighbor's save failed, and the file has session {saved.session_index}"
    return f"the next start left {temporary_files(path)} behind" if temporary_files(path) else None


_MAX_START_SECONDS = 0.5
"""The maximum time in seconds that a start may take; a longer start must have waited for another process."""


def _start_during_each_step(folder: Path) -> None:
    losses: list[str] = []
    cases = 0
    for continues in (True, False):
        for step in itertools.count(1):
            path = folder / f"{step} {continues}" / "session.xml"
            for _ in range(2):
                with ClientSession(path) as session:
                    before = session.get_session_context(uuid.uuid4())
            if (neighbor := _fork_stopped(path, step)) is None:
                break
            cases += 1
            if loss := _start_during_write_of(neighbor, path, before, continues=continues):
                fate = "continued" if continues else "killed"
                losses.append(f"neighbor stopped at step {step}, then {fate}: {loss}")
    print_report(cases, losses)


def start_while_process_is_stopped(_: Scale) -> Outcome:
    """Start sessions while another process is stopped at each step of a save, and after it continues or is killed."""
    (report,) = run_in_fresh_interpreters(__name__, [[]])
    return Outcome(report["cases"], tuple(report["losses"]))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "processes with three writer threads are killed at random (SIGKILL)",
        "a file is unreadable, an acknowledged save or the user is lost, two temporary files remain, or one survives "
        "the next start",
        kill_at_random,
    ),
    Fault(
        "processes with three writer threads that use a database are killed at random (SIGKILL)",
        "the database is unreadable, an acknowledged save or the user is lost, or a temporary file survives the next "
        "start",
        partial(kill_at_random, kind="sqlite"),
    ),
    Fault(
        "a session starts while a process is stopped at each system call of a save, and then continues or is killed",
        "the new session waits, removes a live process's temporary file, or leaves a dead process's file behind",
        start_while_process_is_stopped,
    ),
)

if __name__ == "__main__":
    if sys.argv[2:]:
        _kill_at_random(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _start_during_each_step(Path(sys.argv[1]))
