"""A process that holds the lock of a save file, and hangs there."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import attrs

from client_session import ClientSession, SessionClosedError
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import loads
from client_session_persistence.deadline import LOCK_SECONDS
from torture.fault import Fault, Outcome, Scale
from torture.forking import forked, in_fresh_interpreters, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext

BUSY_SECONDS = 0.5
"""What a busy machine may add to the second; far from a second one."""

_TICKS = 60
_SESSIONS = 20


class _Warnings:
    """A logger that counts what is out of order."""

    def __init__(self) -> None:
        self.count = 0

    def info(self, *_: object) -> None:
        """Log what went as it should."""

    def warning(self, *_: object) -> None:
        """Count it."""
        self.count += 1

    exception = warning


def _hang(path: Path) -> None:
    """Write under the lock, and hang in the middle of it until woken."""
    real = os.fsync
    hung = False

    def hang(descriptor: int) -> None:
        nonlocal hung
        if not hung and stat.S_ISREG(os.fstat(descriptor).st_mode):
            hung = True
            os.kill(os.getpid(), signal.SIGSTOP)
        real(descriptor)

    with mock.patch.object(os, "fsync", hang):
        ClientSession(path, scheduler=ManualScheduler()).get_session_context(uuid.uuid4())


@attrs.define
class _Case:
    """A program beside a hanging one, and the call that it makes."""

    call: str
    path: Path
    option: str
    """The one that is switched on, or none."""
    clock: ManualClock = attrs.field(factory=ManualClock)
    logger: _Warnings = attrs.field(factory=_Warnings)
    sessions: list[ClientSession] = attrs.field(factory=list[ClientSession])
    holder: int = 0
    seconds: float = 0.0
    """The longest that a call took."""

    def make(self) -> None:
        """Start another session."""
        self.sessions.append(
            ClientSession(
                self.path,
                logger=self.logger,
                clock=self.clock,
                scheduler=ManualScheduler(),
                continue_on_restart=self.option == "continue_on_restart",
                count_empty_sessions=self.option == "count_empty_sessions",
            )
        )

    @property
    def session(self) -> ClientSession:
        """The one that calls."""
        return self.sessions[0]

    def prepare(self) -> None:
        """Let the sessions time out unnoticed, so that calls have much to save; then let the holder hang."""
        if self.call != "first start":
            for _ in range(_SESSIONS if self.call == "ticks of 20 sessions" else 1):
                self.make()
                self.sessions[-1].get_session_context(uuid.uuid4())
            self.clock.advance(600)
        self.holder = forked(lambda: _hang(self.path))
        os.waitpid(self.holder, os.WUNTRACED)

    def run(self) -> None:
        """Make the call."""
        if self.call == "ticks of 20 sessions":
            with ThreadPoolExecutor(_SESSIONS) as pool:
                list(pool.map(_event, self.sessions))
        self.seconds = _seconds(lambda: CALLS[self.call](self))

    def lost(self) -> str | None:
        """Return what went wrong in the hang, or after the holder has gone on."""
        during, after = self._lost_during(), self._lost_after()
        return during or after

    def _lost_during(self) -> str | None:
        ticking = 0.0
        for _ in range(_TICKS):
            if self.call != "close" and ticking < BUSY_SECONDS:
                ticking += _seconds(self.session.tick)
        if self.seconds > LOCK_SECONDS + BUSY_SECONDS:
            return f"it took {self.seconds:.2f} s"
        if ticking > BUSY_SECONDS:
            return f"ticks during the hang took {ticking:.2f} s"
        if not isinstance(self.session.save_error, TimeoutError):
            return "it was not held up"
        if self.logger.count != len(self.sessions):
            return f"{self.logger.count} warnings by {len(self.sessions)} sessions"
        return None

    def _lost_after(self) -> str | None:
        on_disk = {self._on_disk()} if self.path.exists() else set()
        os.kill(self.holder, signal.SIGCONT)
        if os.waitpid(self.holder, 0)[1]:
            return "the holder failed"
        on_disk.add(self._on_disk())
        for session in self.sessions:
            with suppress(SessionClosedError):
                session.tick()
                on_disk.add(self._on_disk())
                _event(session)  # an empty session is not replaced
                session.start_new_session()
                context = _event(session)
                if session.save_error or self._on_disk() != (context.session_index, context.session_id):
                    return f"not saved afterwards: {session.save_error}"
                on_disk.add(self._on_disk())
        if len({index for index, _ in on_disk}) != len(on_disk):
            return f"two sessions with one index were in the file: {on_disk}"
        return None

    def _on_disk(self) -> tuple[int, str | None]:
        held = loads(self.path.read_bytes())
        return held.session_index, held.session_id


def _seconds(call: Callable[[], object]) -> float:
    start = time.monotonic()
    with suppress(TimeoutError):  # save() says so
        call()
    return time.monotonic() - start


def _event(session: ClientSession) -> SessionContext:
    return session.get_session_context(uuid.uuid4())


def _four_threads(case: _Case) -> None:
    """Make four calls that want the same session's lock; the longest counts."""
    calls = [lambda: _event(case.session), case.session.save, case.session.save, case.session.tick]
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(_seconds, calls))


def _tick_all(case: _Case) -> None:
    for session in case.sessions:
        session.tick()


CALLS: dict[str, Callable[[_Case], object]] = {
    "first start": _Case.make,
    "event": lambda case: _event(case.session),
    "toggle": lambda case: case.session.set_background(True),
    "save": lambda case: case.session.save(),
    "close": lambda case: case.session.close(),
    "four threads": _four_threads,
    "ticks of 20 sessions": _tick_all,
}
OPTIONS = ("", "continue_on_restart", "count_empty_sessions")


def _hang_beside(folder: Path, calls: list[str], options: list[str]) -> None:
    cases = [
        _Case(call, folder / f"{call} {option}" / "session.xml", option)
        for call in calls
        for option in options
        if call != "toggle" or option  # without one it has nothing to save
    ]
    for case in cases:
        case.prepare()
    with ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(_Case.run, cases))
    losses = [f"{case.call} {case.option}: {lost}" for case in cases if (lost := case.lost())]
    report(len(cases), losses, longest=max(case.seconds for case in cases))


def beside_a_hanging_one(scale: Scale) -> Outcome:
    """Make each kind of call while another process hangs in the middle of writing."""
    options = ",".join(OPTIONS[-1:] if scale is Scale.FAST else OPTIONS)
    (only,) = in_fresh_interpreters(__name__, [[",".join(CALLS), options]])
    return Outcome(only["cases"], tuple(only["losses"]), f"longest call {only['counts']['longest']:.2f} s")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "calls beside a process that hangs with the lock, also from four threads and with 20 sessions",
        "a call takes more than 1 s, a session fails, warns twice, is not saved afterwards, or an index stands twice",
        beside_a_hanging_one,
    ),
)

if __name__ == "__main__":
    _hang_beside(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
