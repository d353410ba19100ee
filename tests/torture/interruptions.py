"""Exceptions from outside: a signal handler or another thread raises at any point of any call."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib.util
import inspect
import itertools
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_session import EndReason
from client_session_persistence import MemoryStore, SqliteStore, XmlStore
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.recorder import OPERATIONS, Recorder, ignore_closed
from torture.reentrancy import call_at_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client_session import SessionContext
    from client_session_persistence import SnapshotStore

LOST_SECONDS = 60.0
"""After this time, an exception is lost; usually, it arrives within milliseconds."""
SECONDS = 10.0
"""Far more than a save may take."""


def _close(recorder: Recorder) -> None:
    recorder.event()
    recorder.session.close()


def _open(recorder: Recorder) -> None:
    recorder.session = recorder.open()


def _forget(recorder: Recorder) -> None:
    recorder.session.forget_user()


INTERRUPTED_OPERATIONS = {
    **OPERATIONS,
    "constructing a session": (_close, _open),
    "forgetting the user": (Recorder.two_events, _forget),
}


class Interrupted(BaseException):
    """Not an `Exception`, like `KeyboardInterrupt`."""


class TimeLimitError(Exception):
    """An ordinary exception, like the one that Celery raises at a soft time limit."""


def _raise_signal() -> None:
    signal.raise_signal(signal.SIGUSR1)


def count_points(recorder: Recorder, operation: Callable[[Recorder], object]) -> int:
    """Return the number of points at which an exception can interrupt an operation."""
    return call_at_point(lambda: operation(recorder), lambda: None, -1, raising=True)


def raise_at_point(recorder: Recorder, operation: Callable[[Recorder], object], point: int) -> str:
    """Raise an exception in a signal handler at one point; return an error message if it does not reach the caller."""
    error = (Interrupted if point % 2 else TimeLimitError)("from outside")
    is_raised = False

    def handler(*_: object) -> None:
        nonlocal is_raised
        is_raised = True
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        call_at_point(lambda: operation(recorder), _raise_signal, point, raising=True)
    except (Interrupted, TimeLimitError) as raised:
        return "" if raised is error else f"another exception reached the caller: {raised!r}"
    finally:
        signal.signal(signal.SIGUSR1, before)
    # While a call waits for the worker thread, the number of points differs from run to run.
    return "the exception did not reach the caller" if is_raised else ""


def interrupt(recorder: Recorder, operation: Callable[[Recorder], object], point: int) -> str:
    """Interrupt an operation at one point; return what was lost, or an empty string."""
    descriptors = open_descriptors()
    return raise_at_point(recorder, operation, point) or find_damage(recorder, descriptors)


def find_damage(
    recorder: Recorder, descriptors: set[str], interruptions: int = 1, *, may_lose_callbacks: bool = False
) -> str:
    """Return what interrupted calls have left behind, or an empty string."""
    internals: Any = recorder.session
    for name, lock in (("session", internals._lock), ("ledger", internals._ledger._lock)):  # noqa: SLF001
        if lock._is_owned():  # noqa: SLF001  # the lock under test
            return f"the {name}'s lock is still held"
    if isinstance(recorder.store, XmlStore | SqliteStore) and (loss := _find_held_lock(recorder.store)):
        return loss
    if leaked := _find_leaked(descriptors, recorder.store):
        return f"open descriptors: {leaked}"
    try:
        check_interrupted(recorder, interruptions, may_lose_callbacks=may_lose_callbacks)
    except Exception as damage:  # noqa: BLE001  # any exception is a loss
        return f"{type(damage).__name__}: {damage}"
    return ""


def _find_leaked(descriptors: set[str], store: SnapshotStore) -> set[str]:
    """Return the descriptors that are open in addition to these, and that no thread is about to close."""
    for _ in range(1000):
        leaked = {each for each in open_descriptors() - descriptors if not _is_open_database(each, store)}
        if not leaked:
            return leaked
        threading.Event().wait(0.001)  # the worker thread closes the lock file right after it has released the lock
    return leaked


def open_descriptors() -> set[str]:
    """Return the open descriptors of this process and their files."""
    found: set[str] = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name}: {link.readlink()}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def _is_open_database(descriptor: str, store: SnapshotStore) -> bool:
    """Return whether a descriptor is one of those that a store keeps open."""
    path = descriptor.partition(": ")[2]
    return isinstance(store, SqliteStore) and path in {f"{store.path}{suffix}" for suffix in ("", "-wal", "-shm")}


def _find_held_lock(store: XmlStore | SqliteStore) -> str:
    """Return whether the save file is locked although all saves are done."""
    if isinstance(store, XmlStore):
        flush = threading.Thread(target=store.flush, daemon=True)
        flush.start()
        flush.join(SECONDS)
        if flush.is_alive():
            return "a save never ends"
    for _ in range(1000):
        if is_free(store):
            return ""
        threading.Event().wait(0.001)  # the worker thread releases the lock right after it has completed the future
    return "the save file's lock is still held"


def is_free(store: XmlStore | SqliteStore) -> bool:
    """Return whether another process could lock the save file now."""
    try:
        with Path(f"{store.path}.lock").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def check_interrupted(recorder: Recorder, interruptions: int, *, may_lose_callbacks: bool) -> None:
    """Go on using the session; check that callbacks match, and that no number was duplicated and few were skipped."""
    for call in (recorder.event, recorder.session.start_new_session, recorder.event):
        ignore_closed(call)
    recorder.run_again()
    contexts = recorder.contexts
    last_user, users = contexts[-1].user_id, {context.user_id for context in contexts}
    forgotten = {summary.user_id for summary in recorder.ended if summary.reason is EndReason.FORGET}
    assert users == forgotten | {last_user} or (may_lose_callbacks and len(users) <= 2), f"{users}, {forgotten}"
    ids = {(context.user_id, context.session_index): context.session_id for context in contexts}
    assert len(set(ids.values())) == len(ids), f"one session has several indexes: {ids}"
    skipped = sum(_skipped_numbers([context for context in contexts if context.user_id == user]) for user in users)
    assert skipped <= interruptions, f"skipped numbers: {contexts}"
    started = Counter(context.session_id for context in recorder.started)
    ended = Counter(summary.session_id for summary in recorder.ended)
    assert max((*started.values(), *ended.values())) == 1, f"reported twice: {started}, {ended}"
    if not may_lose_callbacks:
        assert set(ids.values()) <= set(started), "on_session_start was not called"
        assert started == ended, f"started {started}, ended {ended}"


def _skipped_numbers(contexts: list[SessionContext]) -> int:
    """Return how many numbers a user's entities skip; check that none is duplicated."""
    keys = Counter((context.session_index, context.event_index) for context in contexts)
    assert max(keys.values()) == 1, f"duplicate numbers: {keys}"
    indexes = {index for index, _ in keys}
    skipped = max(indexes) - len(indexes)
    for index in indexes:
        numbers = [event for session, event in keys if session == index]
        skipped += max(numbers) - len(numbers)
    return skipped


def _memory_store(_: Path) -> MemoryStore:
    return MemoryStore()


def _prepare(store: Callable[[Path], SnapshotStore], folder: str, prepare: Callable[[Recorder], object]) -> Recorder:
    recorder = Recorder(store(Path(folder) / uuid.uuid4().hex / "session.xml"))
    prepare(recorder)
    return recorder


def _raise_at_each_point(store: Callable[[Path], SnapshotStore], step: int) -> Outcome:
    cases, losses = 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for name, (prepare, operation) in INTERRUPTED_OPERATIONS.items():
            recorder = _prepare(store, folder, prepare)
            for point in range(cases % step, count_points(recorder, operation), step):
                recorder = _prepare(store, folder, prepare)
                if loss := interrupt(recorder, operation, point):
                    losses.append(f"during {name}, at point {point}: {loss}")
                cases += 1
    return Outcome(cases, tuple(losses))


def _raise_in(store: Callable[[Path], SnapshotStore], sample_step: int) -> Callable[[Scale], Outcome]:
    return lambda scale: _raise_at_each_point(store, 1 if scale is Scale.FULL else sample_step)


_LOSS = (
    "the exception does not reach the caller, a lock or descriptor is leaked, a save never ends, a number is"
    " duplicated, more than one is skipped, or callbacks do not match the entities"
)


class _Worker(threading.Thread):
    """Makes calls until it is stopped, and counts the exceptions that other threads raise in it."""

    def __init__(self, calls: Iterable[Callable[[], object]]) -> None:
        super().__init__()
        self.calls = itertools.cycle(calls)
        self.received = 0
        self.is_armed = False
        """Whether the thread is ready to receive an exception."""
        self.is_stopped = False

    def run(self) -> None:
        while not self.is_stopped:
            try:
                self._make_calls()
            except Interrupted:
                self.is_armed = False
                self.received += 1

    def _make_calls(self) -> None:
        # Not inlined in `run`: in Python 3.13, a loop's jump backward is not always covered by the ``try`` around it.
        self.is_armed = True
        while not self.is_stopped:
            next(self.calls)()

    def raise_and_wait(self) -> bool:
        """Raise an exception in the thread, and wait until it has been received; return False if it is lost."""
        end = time.monotonic() + LOST_SECONDS
        while not self.is_armed:
            time.sleep(0)
        before = self.received
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident or 0), ctypes.py_object(Interrupted))
        while self.received == before:
            if time.monotonic() > end:
                return False
            time.sleep(0)
        return True


def _raise_in_threads(scale: Scale) -> Outcome:
    """Raise in four threads that make all kinds of calls to one session."""
    exceptions = 100_000 if scale is Scale.FULL else 1_000
    recorder = Recorder(MemoryStore())
    session = recorder.session
    calls: tuple[Callable[[], object], ...] = (
        recorder.event,
        recorder.event,
        session.start_new_session,
        session.touch,
        session.tick,
        session.save,
        session.stop_checker,
        session.start_checker,
        partial(session.set_background, background=True),
        partial(session.set_background, background=False),
        session.explain,
    )
    workers = [_Worker(calls) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.collect()
    gc.disable()  # Python discards an exception that arrives in a finalizer of some other object
    try:
        for worker in workers:
            worker.start()
        is_complete = all(worker.raise_and_wait() for worker in itertools.islice(itertools.cycle(workers), exceptions))
    finally:
        gc.enable()
        sys.setswitchinterval(interval)
        for worker in workers:
            worker.is_stopped = True
            worker.join()
    loss = "" if is_complete else "an exception did not reach the caller"
    loss = loss or find_damage(recorder, open_descriptors(), exceptions)
    return Outcome(exceptions, (loss,) if loss else ())


_SUCCESSES = 20


def _run_until_enough(
    scale: Scale,
    run: Callable[[Callable[[], object], int], None],
    full_step: int,
    sample_step: int,
    *errors: type[Exception],
) -> Outcome:
    """Run each operation with ever more of a resource, until it has enough; check that it survives every shortage."""
    cases, losses = 0, list[str]()
    step = full_step if scale is Scale.FULL else sample_step
    with tempfile.TemporaryDirectory() as folder:
        for store in (_memory_store, XmlStore) if scale is Scale.FULL else (_memory_store,):
            for name, (prepare, operation) in INTERRUPTED_OPERATIONS.items():
                successes = 0  # Python survives some shortages without an exception, so one success is not enough
                for amount in itertools.count(1, step):
                    if successes == _SUCCESSES:
                        break
                    recorder = _prepare(store, folder, prepare)
                    descriptors = open_descriptors()
                    try:
                        run(partial(operation, recorder), amount)
                        successes += 1
                    except errors:
                        cases, successes = cases + 1, 0
                    if loss := find_damage(recorder, descriptors, may_lose_callbacks=MemoryError in errors):
                        losses.append(f"during {name}, with {amount}: {loss}")
    return Outcome(cases, tuple(losses))


def _run_with_frames(operation: Callable[[], object], amount: int) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + amount)
    try:
        operation()
    finally:
        sys.setrecursionlimit(limit)


def _exhaust_stack(scale: Scale) -> Outcome:
    return _run_until_enough(scale, _run_with_frames, 1, 1, RecursionError)


def _run_with_allocations(operation: Callable[[], object], amount: int) -> None:
    _testcapi: Any = importlib.import_module("_testcapi")
    _testcapi.set_nomemory(amount, amount + 1)
    try:
        operation()
    finally:
        _testcapi.remove_mem_hooks()


def _exhaust_memory(scale: Scale) -> Outcome:
    if importlib.util.find_spec("_testcapi") is None or sys.version_info >= (3, 12):
        message = "this needs Python 3.11 with _testcapi, which makes allocations fail; Python 3.13 itself crashes"
        raise CannotRunError(message)
    # Out of memory, CPython itself raises other errors in some places, such as threading.RLock() and os.unlink().
    return _run_until_enough(scale, _run_with_allocations, 5, 97, MemoryError, SystemError, RuntimeError)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a signal handler raises at each point in each operation, in memory",
        _LOSS,
        _raise_in(_memory_store, 7),
    ),
    Fault(
        "a signal handler raises at each point in each operation and its save",
        _LOSS,
        _raise_in(XmlStore, 31),
    ),
    Fault(
        "a signal handler raises at each point in each operation and its background save",
        _LOSS,
        _raise_in(partial(XmlStore, background=True), 31),
    ),
    Fault(
        "a signal handler raises at each point in each operation and its save in a database",
        _LOSS,
        _raise_in(SqliteStore, 149),
    ),
    Fault(
        "another thread raises in four threads that make all kinds of calls to one session",
        _LOSS,
        _raise_in_threads,
    ),
    Fault("the stack overflows at each depth in each operation", _LOSS, _exhaust_stack),
    Fault("each memory allocation in each operation fails", _LOSS, _exhaust_memory),
)
