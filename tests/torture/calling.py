"""Every method of a session, called from callbacks, log handlers, signal handlers and finalizers."""

from __future__ import annotations

import gc
import itertools
import logging
import random
import signal
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any

from client_session import ClientSession, SessionClosedError
from client_session.testing import ManualClock, check_invariants
from client_session_persistence import Snapshot, XmlStore
from torture.fault import CannotRunError, Scale

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionContext

READ = (
    "state", "background", "checker_running", "user_id", "session_id", "previous_session_id", "session_index",
    "first_event_id", "first_event_timestamp", "event_index", "storage_mechanism", "expires_in", "save_error",
    "foreground_timeout", "background_timeout", "check_interval",
)  # fmt: skip


def _read(session: ClientSession) -> None:
    for name in READ:
        getattr(session, name)


METHODS: dict[str, Callable[[ClientSession], object]] = {
    "an event": lambda session: session.get_session_context(uuid.uuid4()),
    "background": lambda session: session.set_background(True),
    "foreground": lambda session: session.set_background(False),
    "tick": lambda session: session.tick(),
    "touch": lambda session: session.touch(),
    "a new session": lambda session: session.start_new_session(),
    "stopping the checker": lambda session: session.stop_checker(),
    "starting the checker": lambda session: session.start_checker(),
    "saving": lambda session: session.save(),
    "reading": _read,
    "a foreground timeout": lambda session: setattr(session, "foreground_timeout", 600),
    "a background timeout": lambda session: setattr(session, "background_timeout", 300),
    "an interval": lambda session: setattr(session, "check_interval", 15),
    "closing": lambda session: session.close(),
}


def _unless_closed(call: Callable[[ClientSession], object], session: ClientSession, losses: list[str]) -> None:
    try:
        call(session)
    except SessionClosedError:
        pass
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a loss
        losses.append(repr(error))


def on_another_thread(call: Callable[[], object]) -> None:
    """Call on another thread, and wait for it."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


HOOKS = ("on_session_start", "on_session_end", "on_state_change")


def from_callbacks(folder: Path, scale: Scale) -> list[str]:
    """Let each callback make each call, once; return a case's loss, or nothing, for each."""
    ways = itertools.product(HOOKS, METHODS, (False, True), (lambda call: call(), on_another_thread))
    step = 1 if scale is Scale.WHOLE else 5
    return [_from_a_callback(folder / f"{number}.xml", *way) for number, way in enumerate(ways) if number % step == 0]


def _from_a_callback(
    path: Path,
    hook: str,
    method: str,
    others: bool,  # noqa: FBT001  # one of the ways
    where: Callable[[Callable[[], object]], object],
) -> str:
    losses: list[str] = []
    called: list[bool] = []

    def call_once(*_: object) -> None:
        if not called:
            called.append(True)
            where(lambda: _unless_closed(METHODS[method], other if others else session, losses))

    hooks: dict[str, Any] = {hook: call_once}
    session = ClientSession(path, clock=ManualClock(), **hooks)
    with ClientSession(path) as other:
        for use in ("an event", "background", "a new session", "an event", "closing"):
            _unless_closed(METHODS[use], session, losses)
    if not called:
        losses.append("it was not called")
    return "; ".join(f"{method} in {hook}: {loss}" for loss in losses)


class _Failing(XmlStore):
    """Fails now and then, so that there is something to log."""

    __slots__ = ("_saves",)

    def __init__(self, path: Path) -> None:
        """Begin well."""
        super().__init__(path)
        self._saves = itertools.count(1)

    def save(self, snapshot: Snapshot) -> None:
        """Fail at each third."""
        if next(self._saves) % 3 == 0:
            raise OSError("now and then")  # noqa: EM101, TRY003  # the one text
        super().save(snapshot)


class _Caller(logging.Handler):
    """A handler without a lock of its own, which could hang by itself; it calls for every line but its own calls'."""

    def __init__(self, session: ClientSession, losses: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lock = None
        self.session, self.losses, self.lines = session, losses, 0
        self._mine = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(self._mine, "calling", False):
            return
        record.getMessage()
        self.lines += 1
        self._call()
        on_another_thread(self._call)

    def _call(self) -> None:
        self._mine.calling = True
        _unless_closed(METHODS["touch"], self.session, self.losses)
        _unless_closed(METHODS["an event"], self.session, self.losses)
        _unless_closed(METHODS["reading"], self.session, self.losses)
        self._mine.calling = False


def from_log_handlers(folder: Path, scale: Scale) -> list[str]:
    """Let 8 threads use a session whose every log line calls it again."""
    cases: list[str] = []
    session = ClientSession(store=_Failing(folder / "session.xml"), check_interval=0.01)
    caller = _Caller(session, cases)
    root = logging.getLogger()
    root.addHandler(caller)
    root.setLevel(logging.DEBUG)
    uses = [name for name in METHODS if name not in ("closing", "saving")]  # save() tells by raising

    def work(thread: int) -> None:
        chance = random.Random(thread)  # noqa: S311  # repeatable, not secret
        for number in range(1500 if scale is Scale.WHOLE else 20):
            name = "a new session" if number % 4 == 0 else "an event" if number % 4 == 1 else chance.choice(uses)
            _unless_closed(METHODS[name], session, cases)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    return [*cases, *[""] * caller.lines]


def _count(contexts: list[SessionContext]) -> str:
    try:
        check_invariants(sorted(contexts, key=lambda context: (context.session_index, context.event_index)))
    except AssertionError as error:
        return str(error)
    return ""


def _in_between(
    folder: Path, seconds: float, arm: Callable[[Callable[[], None]], None], provoke: Callable[[], object]
) -> list[str]:
    """Use a session, while what is armed calls every method in between as it likes, and closes another at times."""
    cases: list[str] = []
    contexts: list[SessionContext] = []
    session = ClientSession(folder / "session.xml")
    turns = itertools.cycle(METHODS)

    def event(session: ClientSession) -> None:
        contexts.append(session.get_session_context(uuid.uuid4()))

    def call() -> None:
        name = next(turns)
        losses: list[str] = []
        use = event if name == "an event" else METHODS[name]
        _unless_closed(use, ClientSession(folder / "other.xml") if name == "closing" else session, losses)
        # filelock refuses a save within its own acquire or release
        cases.extend(loss if "this thread's" not in loss else "" for loss in losses or [""])

    arm(call)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, use in METHODS.items():
            if name != "closing":
                provoke()
                _unless_closed(event if name == "an event" else use, session, cases)
    arm(lambda: _unless_closed(METHODS["closing"], session, cases))
    while not getattr(session, "_current").is_closed:  # noqa: B009  # until closed in between
        provoke()
        _unless_closed(event, session, cases)
    arm(lambda: None)
    return [*cases, _count(contexts)]


def from_signal_handlers(folder: Path, scale: Scale) -> list[str]:
    """Let a timer's signal call."""
    if not hasattr(signal, "setitimer"):
        message = "needs signal.setitimer, which this system has not got"
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
        return _in_between(folder, 5.0 if scale is Scale.WHOLE else 0.5, arm, lambda: None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Last:
    """Calls when it is collected, by itself and by a weak reference to it."""

    def __init__(self, armed: list[Callable[[], None]]) -> None:
        self.itself, self.armed = self, armed
        weakref.finalize(self, _call_unless_calling, armed)

    def __del__(self) -> None:
        _call_unless_calling(self.armed)


def _call_unless_calling(armed: list[Callable[[], None]]) -> None:
    if armed:
        call = armed.pop()  # by which what it causes to be collected does not call again
        try:
            call()
        finally:
            if not armed:  # else the main thread has armed another meanwhile
                armed.append(call)


def from_finalizers(folder: Path, scale: Scale) -> list[str]:
    """Let the garbage collector, which runs at almost every allocation, call."""
    armed: list[Callable[[], None]] = []

    def arm(call: Callable[[], None]) -> None:
        armed[:] = [call]

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        return _in_between(folder, 5.0 if scale is Scale.WHOLE else 0.5, arm, lambda: _Last(armed))
    finally:
        armed.clear()
        gc.set_threshold(*before)
