"""Processes killed at random while they write, and starts beside a process that is in the middle of writing."""

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
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from client_session import ClientSession
from client_session_persistence import CorruptSaveFileError, loads
from torture.fault import Fault, Outcome, Scale
from torture.forking import forked, in_fresh_interpreters, leftovers, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext

_LANES = 2
"""Save files that are written, and processes that live, at the same time."""

_THREADS = 3
_LONGEST_LIFE = 0.03
"""Seconds from a process's fork to its kill, at most."""


def _write_for_ever(path: Path, told: int) -> None:
    """Be the process that is killed: tell of each save only when it has been acknowledged."""
    session = ClientSession(path)
    os.write(told, f"start {len(leftovers(path))} {session.user_id}\n".encode())

    def acknowledge(context: SessionContext) -> None:
        os.write(told, f"{context.session_index} {context.event_index} {context.session_id}\n".encode())

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
    message = "a writing thread ended by itself"
    raise RuntimeError(message)


def _life(path: Path, seconds: float, *, started: bool) -> list[list[str]]:
    """Let a process live for some seconds, from its fork or from when it has started; kill it, return what it told."""
    read, write = os.pipe()
    process = forked(lambda: _write_for_ever(path, write))
    os.close(write)
    if started:  # however busy the machine is
        select.select([read], [], [], 10)
    time.sleep(seconds)  # it is the kill that is random
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with os.fdopen(read) as told:
        lines = [line.split() for line in told if line.endswith("\n")]
    if not os.WIFSIGNALED(status):
        lines.append(["failed"])
    return lines


@attrs.define
class _Lane:
    """One save file, and what must be true of it."""

    path: Path
    user_id: str | None = None
    newest: tuple[int, int] = (0, 0)
    """Index and event count of the newest acknowledged save."""
    session_of: dict[int, str] = attrs.field(factory=dict[int, str])
    acknowledged: int = 0
    left: int = 0
    """Kills that left a temporary file, so were in the middle of writing."""

    def lost(self, told: list[list[str]]) -> str | None:
        """Return what a killed process lost, if it lost anything."""
        for line in told:
            if line == ["failed"]:
                return "the process failed before it was killed"
            if line[0] == "start":
                _, count, user_id = line
                if count != "0":
                    return "a temporary file was still there after the next start"
                if user_id != (self.user_id or user_id):
                    return f"user {self.user_id} became {user_id}"
                self.user_id = user_id
                continue
            index, events = int(line[0]), int(line[1])
            if self.session_of.setdefault(index, line[2]) != line[2]:
                return f"two sessions have the index {index}"
            self.newest = max(self.newest, (index, events))
            self.acknowledged += 1
        return self._lost_from_disk()

    def _lost_from_disk(self) -> str | None:
        try:
            held = loads(self.path.read_bytes())
            backup = self.path.with_name(self.path.name + ".bak")
            if backup.exists():
                loads(backup.read_bytes())
        except FileNotFoundError:
            return "the file is gone" if self.user_id else None
        except CorruptSaveFileError as error:
            return f"unreadable: {error}"
        if (held.session_index, held.event_index or 0) < self.newest:
            return f"session and event {self.newest} were acknowledged; the file has {held}"
        if self.session_of.get(held.session_index, held.session_id) != held.session_id:
            return f"the file has another session {held.session_index} than was acknowledged"
        left = leftovers(self.path)
        self.left += bool(left)
        return f"more than one temporary file: {left}" if len(left) > 1 else None


def _kill_at_random(folder: Path, processes: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret
    lane = _Lane(folder / "session.xml")
    losses: list[str] = []
    for number in range(processes):
        told = _life(lane.path, chance.uniform(0, _LONGEST_LIFE), started=number % 2 == 1)
        if lost := lane.lost(told):
            losses.append(f"process {number} of lane {seed}: {lost}")
    report(processes, losses, acknowledged=lane.acknowledged, left=lane.left)


def killed_at_random(scale: Scale) -> Outcome:
    """Kill processes that write with three threads."""
    processes = 40 if scale is Scale.FAST else 2000
    lanes = [[str(processes // _LANES), str(lane)] for lane in range(_LANES)]
    reports = in_fresh_interpreters(__name__, lanes)
    acknowledged, left = (int(sum(each["counts"][key] for each in reports)) for key in ("acknowledged", "left"))
    return Outcome(
        sum(each["cases"] for each in reports),
        tuple(loss for each in reports for loss in each["losses"]),
        f"{acknowledged:,} acknowledged saves, {left} kills between a temporary file's making and its end",
    )


# Starts beside a process that is in the middle of writing

_STEPS = ("open", "link", "write", "fsync", "replace", "unlink", "close")


def _stop_before(step: int, path: Path) -> None:
    """Begin a new session, and stop before one of the system calls of its save, until told to go on."""
    session = ClientSession(path)
    steps = itertools.count(1)

    def stopping(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGSTOP)
            return real(*arguments, **options)

        return call

    for name in _STEPS:
        setattr(os, name, stopping(getattr(os, name)))
    session.get_session_context(uuid.uuid4())
    if session.save_error is not None:
        raise session.save_error


def _stopped(path: Path, step: int) -> int | None:
    """Return a process that stopped before that step of a save; ``None``: a save has fewer."""
    neighbour = forked(lambda: _stop_before(step, path))
    _, status = os.waitpid(neighbour, os.WUNTRACED)
    return neighbour if os.WIFSTOPPED(status) else None


def _lost_beside(neighbour: int, path: Path, before: SessionContext, *, goes_on: bool) -> str | None:
    """Start beside a stopped process, and again after it has gone on, or was killed; return what was lost."""
    being_written = leftovers(path)
    start = time.monotonic()
    started = ClientSession(path)
    seconds = time.monotonic() - start
    spared = leftovers(path) == being_written
    os.kill(neighbour, signal.SIGCONT if goes_on else signal.SIGKILL)
    _, status = os.waitpid(neighbour, 0)
    after = ClientSession(path)
    held = loads(path.read_bytes())
    if not spared:
        return f"the start removed {being_written}"
    if seconds > _A_START:
        return f"the start took {seconds:.2f} s"
    if {started.user_id, after.user_id, held.user_id} != {before.user_id}:
        return "the user changed"
    if goes_on and (status or held.session_index != before.session_index + 1):
        return f"the neighbour's save failed, the file has session {held.session_index}"
    return f"the next start left {leftovers(path)}" if leftovers(path) else None


_A_START = 0.5
"""Seconds within which a start is over that waits for nobody."""


def _start_beside_each_step(folder: Path) -> None:
    losses: list[str] = []
    cases = 0
    for goes_on in (True, False):
        for step in itertools.count(1):
            path = folder / f"{step} {goes_on}" / "session.xml"
            for _ in range(2):
                with ClientSession(path) as session:
                    before = session.get_session_context(uuid.uuid4())
            if (neighbour := _stopped(path, step)) is None:
                break
            cases += 1
            if lost := _lost_beside(neighbour, path, before, goes_on=goes_on):
                losses.append(f"neighbour stopped at step {step}, then {'went on' if goes_on else 'killed'}: {lost}")
    report(cases, losses)


def started_beside(_: Scale) -> Outcome:
    """Start beside a process that stopped before each of its system calls, and after that one has gone on or died."""
    (only,) = in_fresh_interpreters(__name__, [[]])
    return Outcome(only["cases"], tuple(only["losses"]))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "processes with three writing threads, killed (SIGKILL) at random",
        "an unreadable file; an acknowledged save or the user gone; two temporary files left, or one after the "
        "next start",
        killed_at_random,
    ),
    Fault(
        "start beside a process stopped at each system call of a save, which then goes on or is killed",
        "the start waits, or removes the temporary file of the living, or leaves that of the dead",
        started_beside,
    ),
)

if __name__ == "__main__":
    if sys.argv[2:]:
        _kill_at_random(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        _start_beside_each_step(Path(sys.argv[1]))
