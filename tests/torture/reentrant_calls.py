"""Re-entrant calls: each method, called from callbacks, log handlers, signal handlers and finalizers.

Each scenario runs in its own interpreter. If it hangs, a watchdog prints the stacks and ends the interpreter.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import itertools
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_session import ClientSession, SessionClosedError
from client_session.testing import ManualClock, check_invariants
from client_session_persistence import Snapshot, XmlStore
from torture.close_during_tick import close_during_ticks
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.worker_pool import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext

HANG_SECONDS = 60.0
"""The number of seconds after which a row is considered hung; every row takes far less time."""

PROPERTIES = (
    "state", "background", "checker_running", "user_id", "session_id", "previous_session_id", "session_index",
    "first_event_id", "first_event_timestamp", "event_index", "storage_mechanism", "expires_in", "save_error",
    "foreground_timeout", "background_timeout", "max_duration", "check_interval",
)  # fmt: skip


def _read_properties(session: ClientSession) -> None:
    for name in PROPERTIES:
        getattr(session, name)


METHODS: dict[str, Callable[[ClientSession], object]] = {
    "event": lambda session: session.get_session_context(uuid.uuid4()),
    "passive event": lambda session: session.get_session_context(uuid.uuid4(), extend=False),
    "background": lambda session: session.set_background(True),
    "foreground": lambda session: session.set_background(False),
    "tick": lambda session: session.tick(),
    "touch": lambda session: session.touch(),
    "new session": lambda session: session.start_new_session(),
    "stop checker": lambda session: session.stop_checker(),
    "start checker": lambda session: session.start_checker(),
    "save": lambda session: session.save(),
    "read properties": _read_properties,
    "set foreground timeout": lambda session: setattr(session, "foreground_timeout", 600),
    "set background timeout": lambda session: setattr(session, "background_timeout", 300),
    "set maximum duration": lambda session: setattr(session, "max_duration", 86_400),
    "set check interval": lambda session: setattr(session, "check_interval", 15),
    "close": lambda session: session.close(),
}


def _call_unless_closed(call: Callable[[ClientSession], object], session: ClientSession, losses: list[str]) -> None:
    try:
        call(session)
    except SessionClosedError:
        pass
    except Exception as error:  # noqa: BLE001  # any other exception is a loss
        losses.append(repr(error))


def _call_unless_refused(call: Callable[[ClientSession], object], session: ClientSession, losses: list[str]) -> None:
    """Make a call; ignore a refusal if the interrupted call is acquiring the save file's lock."""

    def call_or_refuse(session: ClientSession) -> None:
        try:
            call(session)
        except TimeoutError as error:
            if error.errno != errno.EDEADLK:
                raise

    _call_unless_closed(call_or_refuse, session, losses)


def _run_on_another_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


# Callbacks

CALLBACKS = ("on_session_start", "on_session_end", "on_state_change")


def _call_from_callbacks(folder: Path, scale: Scale) -> list[str]:
    """Make each call from each callback once; return one string per case, empty unless there was a loss."""
    cases = itertools.product(CALLBACKS, METHODS, (False, True), (lambda call: call(), _run_on_another_thread))
    step = 1 if scale is Scale.FULL else 5
    return [
        _call_from_callback(folder / f"{number}.xml", *case) for number, case in enumerate(cases) if number % step == 0
    ]


def _call_from_callback(
    path: Path,
    callback: str,
    method: str,
    on_other_session: bool,  # noqa: FBT001  # from itertools.product
    run: Callable[[Callable[[], object]], object],
) -> str:
    losses: list[str] = []
    called: list[bool] = []

    def call_once(*_: object) -> None:
        if not called:
            called.append(True)
            run(lambda: _call_unless_closed(METHODS[method], other if on_other_session else session, losses))

    callbacks: dict[str, Any] = {callback: call_once}
    session = ClientSession(path, clock=ManualClock(), **callbacks)
    with ClientSession(path) as other:
        for name in ("event", "background", "new session", "event", "close"):
            _call_unless_closed(METHODS[name], session, losses)
    if not called:
        losses.append("the callback was not called")
    return "; ".join(f"{method} in {callback}: {loss}" for loss in losses)


# Log handlers


class _FailingStore(XmlStore):
    """A store whose every third save fails, so that the session has something to log."""

    __slots__ = ("_saves",)

    def __init__(self, path: Path) -> None:
        """Initialize the save counter."""
        super().__init__(path)
        self._saves = itertools.count(1)

    def save(self, snapshot: Snapshot) -> None:
        """Save, or raise an error on every third call."""
        if next(self._saves) % 3 == 0:
            raise OSError("every third save fails")  # noqa: EM101, TRY003  # its only message
        super().save(snapshot)


class _CallingHandler(logging.Handler):
    """A log handler that calls the session for each line, except for lines caused by its own calls.

    The handler does not use a lock of its own, since doing so could cause a deadlock.
    """

    def __init__(self, session: ClientSession, losses: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lock = None
        self.session, self.losses, self.lines = session, losses, 0
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(self._local, "calling", False):
            return
        record.getMessage()
        self.lines += 1
        self._call()
        _run_on_another_thread(self._call)

    def _call(self) -> None:
        self._local.calling = True
        _call_unless_closed(METHODS["touch"], self.session, self.losses)
        _call_unless_closed(METHODS["event"], self.session, self.losses)
        _call_unless_closed(METHODS["read properties"], self.session, self.losses)
        self._local.calling = False


def _call_from_log_handlers(folder: Path, scale: Scale) -> list[str]:
    """Use a session from eight threads, with a log handler that calls the session for each line."""
    cases: list[str] = []
    session = ClientSession(store=_FailingStore(folder / "session.xml"), check_interval=0.01)
    handler = _CallingHandler(session, cases)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    names = [name for name in METHODS if name not in ("close", "save")]  # save() raises the store's errors

    def work(thread: int) -> None:
        chance = random.Random(thread)  # noqa: S311  # repeatable, not secret
        for number in range(1500 if scale is Scale.FULL else 20):
            name = "new session" if number % 4 == 0 else "event" if number % 4 == 1 else chance.choice(names)
            _call_unless_closed(METHODS[name], session, cases)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    return [*cases, *[""] * handler.lines]


# Signal handlers and finalizers


def _check_numbers(contexts: list[SessionContext]) -> str:
    try:
        check_invariants(sorted(contexts, key=lambda context: (context.session_index, context.event_index)))
    except AssertionError as error:
        return str(error)
    return ""


def _use_with_interruptions(
    folder: Path, seconds: float, arm: Callable[[Callable[[], None]], None], provoke: Callable[[], object]
) -> list[str]:
    """Use a session while interruptions call each of its methods and sometimes close another session.

    ``arm(call)`` sets the call that an interruption makes. ``provoke()`` causes an interruption if nothing else does.
    """
    cases: list[str] = []
    contexts: list[SessionContext] = []
    session = ClientSession(folder / "session.xml")
    names = itertools.cycle(METHODS)

    def event(session: ClientSession) -> None:
        contexts.append(session.get_session_context(uuid.uuid4()))

    def passive_event(session: ClientSession) -> None:
        context = session.get_session_context(uuid.uuid4(), extend=False)
        if context is not None:
            contexts.append(context)

    calls = {**METHODS, "event": event, "passive event": passive_event}

    def interrupt() -> None:
        name = next(names)
        losses: list[str] = []
        call = calls[name]
        _call_unless_refused(call, ClientSession(folder / "other.xml") if name == "close" else session, losses)
        cases.extend(losses or [""])

    arm(interrupt)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            if name != "close":
                provoke()
                _call_unless_closed(call, session, cases)
    arm(lambda: _call_unless_closed(METHODS["close"], session, cases))
    while not getattr(session, "_current").is_closed:  # noqa: B009  # until an interruption closes it
        provoke()
        _call_unless_closed(event, session, cases)
    arm(lambda: None)
    return [*cases, _check_numbers(contexts)]


def _call_from_signal_handlers(folder: Path, scale: Scale) -> list[str]:
    """Call the session from a timer's signal handler."""
    if not hasattr(signal, "setitimer"):
        message = "needs signal.setitimer, which this system does not have"
        raise CannotRunError(message)

    armed: list[Callable[[], None]] = []
    chance = random.Random(1)  # noqa: S311  # repeatable, not secret

    def arm(call: Callable[[], None]) -> None:
        armed[:] = [call]

    def handle(*_: object) -> None:
        armed[0]()
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.005))

    arm(lambda: None)
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        return _use_with_interruptions(folder, 5.0 if scale is Scale.FULL else 0.5, arm, lambda: None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _CallingFinalizer:
    """An object that makes the armed call from its `__del__` and from a weak reference's callback."""

    def __init__(self, armed: list[Callable[[], None]]) -> None:
        self.cycle, self.armed = self, armed
        weakref.finalize(self, _call_unless_calling, armed)

    def __del__(self) -> None:
        _call_unless_calling(self.armed)


def _call_unless_calling(armed: list[Callable[[], None]]) -> None:
    if armed:
        call = armed.pop()  # prevents objects that are collected during the call from making another call
        try:
            call()
        finally:
            if not armed:  # the main thread may have armed another call in the meantime
                armed.append(call)


def _call_from_finalizers(folder: Path, scale: Scale) -> list[str]:
    """Call the session from finalizers, while the garbage collector runs at almost every allocation."""
    armed: list[Callable[[], None]] = []

    def arm(call: Callable[[], None]) -> None:
        armed[:] = [call]

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        return _use_with_interruptions(
            folder, 5.0 if scale is Scale.FULL else 0.5, arm, lambda: _CallingFinalizer(armed)
        )
    finally:
        armed.clear()
        gc.set_threshold(*before)


# Rows

ROWS: dict[str, tuple[str, Callable[[Path, Scale], list[str]]]] = {
    "callbacks": (
        "each callback calls every method of its own or another session, directly or on a thread that it waits for",
        _call_from_callbacks,
    ),
    "logging": (
        "8 threads use a session while a DEBUG log handler calls it, directly and on a thread that it waits for",
        _call_from_log_handlers,
    ),
    "signals": ("a signal handler calls every method, then close()", _call_from_signal_handlers),
    "finalizers": ("__del__ and weak reference callbacks call every method", _call_from_finalizers),
    "close": ("close() is called during a tick that is saving or running a callback", close_during_ticks),
}


def _run_row(row: str, scale: Scale) -> Outcome:
    """Run a row in its own interpreter."""
    with tempfile.TemporaryDirectory(prefix="client-session-reentrant-") as folder:
        done = subprocess.run(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-m", __name__, row, folder, scale.value],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return Outcome(1, (f"the scenario hung or failed: {done.stderr[-2000:]}",))
    report = json.loads(lines[-1])
    if report["cannot_run"]:
        raise CannotRunError(report["cannot_run"])
    return Outcome(report["cases"], tuple(report["losses"]))


def _main(row: str, folder: str, scale: str) -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    cannot_run, cases = "", list[str]()
    try:
        cases = ROWS[row][1](Path(folder), Scale(scale))
    except CannotRunError as error:
        cannot_run = str(error)
    except Exception:  # noqa: BLE001  # any exception is a loss
        cases = [traceback.format_exc()]
    losses = [case for case in cases if case]
    print(json.dumps({"cannot_run": cannot_run, "cases": len(cases), "losses": losses}))  # noqa: T201  # read by _run_row


FAULTS: tuple[Fault, ...] = tuple(
    Fault(name, "a call hangs or fails, or a number is skipped", partial(_run_row, row))
    for row, (name, _) in ROWS.items()
)

if __name__ == "__main__":
    _main(*sys.argv[1:])
