"""A process that hangs while it holds the lock on a save file."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
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
from client_session_persistence import loads, lock_file
from client_session_persistence.deadline import MAX_LOCK_SECONDS, Wait
from torture.fault import Fault, Outcome, Scale
from torture.worker_pool import fork_child, print_report, run_in_fresh_interpreters

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext

_TICKS = 60
_SESSIONS = 20


class _WaitCount(threading.local):
    value = 0


_WAITS = _WaitCount()
"""How many of this thread's waits have ended without the lock. Each takes a second, as test_deadline.py shows."""


class _CountedWait(Wait):
    __slots__ = ("_is_waiting",)

    def __init__(self) -> None:
        super().__init__()
        self._is_waiting = False

    def seconds_left(self, changed_at: float, timed_out_at: float) -> float:
        seconds = super().seconds_left(changed_at, timed_out_at)
        _WAITS.value += self._is_waiting and not seconds
        self._is_waiting = seconds > 0
        return seconds


class _WarningCounter:
    """A logger that counts warnings."""

    def __init__(self) -> None:
        self.count = 0

    def info(self, *_: object) -> None:
        """Ignore the line."""

    def warning(self, *_: object) -> None:
        """Count the line."""
        self.count += 1

    exception = warning


def _hang_while_writing(path: Path) -> None:
    """Stop in the middle of a write, while holding the lock, until SIGCONT arrives."""
    real_fsync = os.fsync
    has_hung = False

    def stop_then_sync(descriptor: int) -> None:
        nonlocal has_hung
        if not has_hung and stat.S_ISREG(os.fstat(descriptor).st_mode):
            has_hung = True
            os.kill(os.getpid(), signal.SIGSTOP)
        real_fsync(descriptor)

    with mock.patch.object(os, "fsync", stop_then_sync):
        ClientSession(path, scheduler=ManualScheduler()).get_session_context(uuid.uuid4())


@attrs.define
class _Case:
    """A program that makes one kind of call while another process hangs."""

    call: str
    path: Path
    option: str
    """The name of the option that is enabled, or an empty string."""
    clock: ManualClock = attrs.field(factory=ManualClock)
    logger: _WarningCounter = attrs.field(factory=_WarningCounter)
    sessions: list[ClientSession] = attrs.field(factory=list[ClientSession])
    holder: int = 0
    seconds: float = 0.0
    """The duration of the longest call."""
    waits: int = 0
    """How often a call waited in vain for the lock."""

    def start(self) -> None:
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
        """The session whose method is called."""
        return self.sessions[0]

    def prepare(self) -> None:
        """Let the sessions time out without a tick, so that calls have a lot to save; then start the lock holder."""
        if self.call != "first start":
            for _ in range(_SESSIONS if self.call == "ticks of 20 sessions" else 1):
                self.start()
                self.sessions[-1].get_session_context(uuid.uuid4())
            self.clock.advance(600)
        self.holder = fork_child(lambda: _hang_while_writing(self.path))
        os.waitpid(self.holder, os.WUNTRACED)

    def run(self) -> None:
        """Make the call, measure its duration, and count its waits."""
        if self.call == "ticks of 20 sessions":
            with ThreadPoolExecutor(_SESSIONS) as pool:
                list(pool.map(_track_event, self.sessions))
        measured = _measure(lambda: CALLS[self.call](self))
        if not self.seconds:
            self.seconds, self.waits = measured

    def find_loss(self) -> str | None:
        """Return any loss that occurred during the hang or after the lock holder continued."""
        during, after = self._find_loss_during_hang(), self._find_loss_after_hang()
        return during or after

    def _find_loss_during_hang(self) -> str | None:
        if self.waits > 1 or self.seconds > MAX_LOCK_SECONDS:
            return f"the call waited {self.waits} times and took {self.seconds:.2f} s"
        if self.call != "close" and any(_measure(self.session.tick)[1] for _ in range(_TICKS)):
            return "a tick during the hang waited"
        if not isinstance(self.session.save_error, TimeoutError):
            return "the call did not wait for the lock"
        if self.logger.count != len(self.sessions):
            return f"{self.logger.count} warnings from {len(self.sessions)} sessions"
        return None

    def _find_loss_after_hang(self) -> str | None:
        on_disk = {self._load_from_disk()} if self.path.exists() else set()
        os.kill(self.holder, signal.SIGCONT)
        if os.waitpid(self.holder, 0)[1]:
            return "the holder failed"
        on_disk.add(self._load_from_disk())
        for session in self.sessions:
            with suppress(SessionClosedError):
                session.tick()
                on_disk.add(self._load_from_disk())
                _track_event(session)  # start_new_session() keeps a session that has no events
                session.start_new_session()
                context = _track_event(session)
                if session.save_error or self._load_from_disk() != (context.session_index, context.session_id):
                    return f"not saved afterward: {session.save_error}"
                on_disk.add(self._load_from_disk())
        if len({index for index, _ in on_disk}) != len(on_disk):
            return f"two sessions in the file had the same index: {on_disk}"
        return None

    def _load_from_disk(self) -> tuple[int, str | None]:
        saved = loads(self.path.read_bytes())
        return saved.session_index, saved.session_id


def _measure(call: Callable[[], object]) -> tuple[float, int]:
    """Return how many seconds a call takes, and how often it waits in vain for the lock."""
    start, waits = time.monotonic(), _WAITS.value
    with suppress(TimeoutError):  # raised by save()
        call()
    return time.monotonic() - start, _WAITS.value - waits


def _track_event(session: ClientSession) -> SessionContext:
    return session.get_session_context(uuid.uuid4())


def _call_from_four_threads(case: _Case) -> None:
    """Make four concurrent calls that need the same session's lock."""
    calls = [lambda: _track_event(case.session), case.session.save, case.session.save, case.session.tick]
    with ThreadPoolExecutor(len(calls)) as pool:
        seconds, waits = zip(*pool.map(_measure, calls), strict=True)
    case.seconds, case.waits = max(seconds), max(waits)  # a thread that starts late may wait on its own


def _tick_all(case: _Case) -> None:
    for session in case.sessions:
        session.tick()


CALLS: dict[str, Callable[[_Case], object]] = {
    "first start": _Case.start,
    "event": lambda case: _track_event(case.session),
    "background": lambda case: case.session.set_background(True),
    "save": lambda case: case.session.save(),
    "close": lambda case: case.session.close(),
    "four threads": _call_from_four_threads,
    "ticks of 20 sessions": _tick_all,
}
OPTIONS = ("", "continue_on_restart", "count_empty_sessions")


def _call_during_hang(folder: Path, calls: list[str], options: list[str]) -> None:
    cases = [
        _Case(call, folder / f"{call} {option}" / "session.xml", option)
        for call in calls
        for option in options
        if call != "background" or option  # without an option, going to the background does not save the session
    ]
    for case in cases:
        case.prepare()
    with mock.patch.object(lock_file, "Wait", _CountedWait):
        with ThreadPoolExecutor(len(cases)) as pool:
            list(pool.map(_Case.run, cases))
        losses = [f"{case.call} {case.option}: {loss}" for case in cases if (loss := case.find_loss())]
    print_report(len(cases), losses, longest=max(case.seconds for case in cases))


def call_during_hang(scale: Scale) -> Outcome:
    """Make each kind of call while another process hangs in the middle of a write."""
    options = ",".join(OPTIONS[-1:] if scale is Scale.SAMPLE else OPTIONS)
    (report,) = run_in_fresh_interpreters(__name__, [[",".join(CALLS), options]])
    return Outcome(report["cases"], tuple(report["losses"]), f"longest call {report['counts']['longest']:.2f} s")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "calls while another process hangs holding the lock, including calls from four threads and with 20 sessions",
        "a call waits for the lock twice, a session fails, warns twice or is not saved afterward, or two sessions are "
        "saved with the same index",
        call_during_hang,
    ),
)

if __name__ == "__main__":
    _call_during_hang(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
