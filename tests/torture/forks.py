"""Fork while another thread holds a lock, during an operation, in a callback, and while holding the file's lock."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import tempfile
import threading
import time
import uuid
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from client_session import ClientSession
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence import MemoryStore, SqliteStore, XmlStore, deadline
from torture.fault import Fault, Outcome, Scale
from torture.forked_children import ChildError, fork_in_c, open_fork_point, require_fork, run_in_child
from torture.recorder import OPERATIONS, Recorder, event_keys, ignore_closed
from torture.reentrancy import call_at_point
from torture.worker_pool import run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from client_session import SessionContext
    from client_session_persistence import SnapshotStore
    from torture.forked_children import Child
    from torture.recorder import EventKey

_LOCK_SECONDS = 1000.0
"""How long a call waits for a lock in these tests, so that a child that waits for an inherited lock hangs."""


@contextlib.contextmanager
def _fork_folder() -> Generator[Path]:
    """Yield a temporary folder, and suppress Python 3.12's warning about forking a multithreaded process."""
    require_fork()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield Path(folder)


def _entity_key(context: SessionContext) -> list[object]:
    return [context.user_id, context.session_id, context.session_index, context.event_index]


def _use_session(session: ClientSession) -> list[object]:
    """Make every call that acquires a lock; return an entity's key and how many seconds the calls took."""
    start = time.monotonic()
    context = session.get_session_context(uuid.uuid4())
    session.set_background(True)
    session.set_background(False)
    session.tick()
    session.touch()
    session.check_interval = 14
    session.save()
    logging.getLogger("client_session.session").warning("from the child")
    return [_entity_key(context), time.monotonic() - start]


@contextlib.contextmanager
def _lock_held(lock: AbstractContextManager[object], released: threading.Event) -> Generator[None]:
    """Hold a lock on another thread until ``released`` is set."""
    acquired = threading.Event()

    def hold() -> None:
        with lock:
            acquired.set()
            released.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    acquired.wait()
    try:
        yield
    finally:
        released.set()
        thread.join()


class _TickTarget:
    check_interval = 0.001

    def tick(self) -> None:
        pass


@contextlib.contextmanager
def _checker_restarting() -> Generator[None]:
    """Keep starting and stopping the checker on another thread, since the checker does not have a lock to hold."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.0002):
            target = _TickTarget()
            SHARED_CHECKER.start(target, 0.0)
            SHARED_CHECKER.stop(target)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _SilentHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        pass


def _locks(
    session: ClientSession, store: XmlStore | MemoryStore
) -> dict[str, Callable[[], AbstractContextManager[object]]]:
    internals: Any = session
    handler = logging.getLogger("client_session.session").handlers[0]
    return {
        "the session's": lambda: internals._lock,  # noqa: SLF001  # the lock under test
        "the ledger's": lambda: internals._ledger._lock,  # noqa: SLF001  # the lock under test
        "the store's": store.lock,
        "the in-memory store's": store.lock,
        "the checker's": _checker_restarting,
        "the log handler's": lambda: handler.lock,
    }


def _fork_with_lock_held(name: str) -> Callable[[Scale], Outcome]:
    in_memory = name == "the in-memory store's"

    def run(scale: Scale) -> Outcome:
        children = 500 if scale is Scale.FULL else 5
        losses: list[str] = []
        slowest = 0.0
        logger = logging.getLogger("client_session.session")
        handler = _SilentHandler()
        logger.addHandler(handler)
        logger.propagate = False
        try:
            with (
                _fork_folder() as folder,
                mock.patch.multiple(deadline, LOCK_SECONDS=_LOCK_SECONDS, MAX_LOCK_SECONDS=_LOCK_SECONDS),
            ):
                store = MemoryStore() if in_memory else XmlStore(folder / "session.xml")
                with ClientSession(store=store, logger=logger) as session:
                    own = _entity_key(session.get_session_context(uuid.uuid4()))
                    known_sessions = {(own[2], own[1])}
                    lock = _locks(session, store)[name]
                    for number in range(children):
                        released = threading.Event()
                        with _lock_held(lock(), released):
                            child = run_in_child(lambda: _use_session(session))
                            released.set()
                            try:
                                found, seconds = child.result()
                            except ChildError as error:
                                losses.append(f"child {number}: {error}")
                                continue
                        slowest = max(slowest, seconds)
                        if found[0] != own[0] or found[3] != 1:
                            losses.append(f"child {number} continued with {found}; the parent has {own}")
                        index = found[2] if not in_memory else (number, found[2])
                        if any(found[1] == known or index == known_index for known_index, known in known_sessions):
                            losses.append(f"child {number} used {found}, which was already taken")
                        known_sessions.add((index, found[1]))
                    after = _entity_key(session.get_session_context(uuid.uuid4()))
                    if after != [*own[:3], 2]:
                        losses.append(f"the parent continued with {after} after {own}")
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
        return Outcome(children, tuple(losses), f"slowest child {slowest * 1000:.0f} ms")

    return run


def _fork_during_operations(scale: Scale, *, store: Callable[[Path], SnapshotStore] = XmlStore) -> Outcome:
    require_fork()
    return run_in_workers(partial(_run_shard, store=store), scale)


def _fork_in_c_during_operations(scale: Scale) -> Outcome:
    require_fork()
    return run_in_workers(_run_shard_in_c, scale)


def _run_shard_in_c(shard: int, shards: int, scale: Scale) -> Outcome:
    return _run_shard(shard, shards, scale, fork_in_c)


def _run_shard(
    shard: int,
    shards: int,
    scale: Scale,
    system_fork: Callable[[], int] | None = None,
    *,
    store: Callable[[Path], SnapshotStore] = XmlStore,
) -> Outcome:
    """Fork at evenly spaced points in each operation, which the child completes, as after a fork in a handler."""
    cases, losses = 0, list[str]()
    step = 5 * shards if scale is Scale.FULL else 211
    with _fork_folder() as folder:
        for name, (prepare, operation) in OPERATIONS.items():
            point = (cases + 5 * shard) % step
            points = point + 1
            while point < points:
                recorder = Recorder(store(folder / str(cases) / "session.xml"))
                prepare(recorder)
                points, loss = fork_at(point, recorder, operation, system_fork)
                if loss:
                    losses.append(f"in {name}, at point {point}: {loss}")
                cases += 1
                point += step
    return Outcome(cases, tuple(losses))


def fork_at(
    point: int,
    recorder: Recorder,
    operation: Callable[[Recorder], object],
    system_fork: Callable[[], int] | None = None,
) -> tuple[int, str]:
    """Fork at one point in an operation that both processes complete; return the number of points and the loss."""
    before = len(recorder.contexts)
    parent = os.getpid()
    children: list[Child] = []
    parent_sessions: set[str] = set()

    def fork() -> None:
        parent_sessions.update((recorder.session.session_id, *(context.session_id for context in recorder.contexts)))
        children.append(fork_point.fork())
        if os.getpid() != parent:
            recorder.started.clear()
            recorder.ended.clear()
            if point % 2:
                ignore_closed(recorder.event)  # make a call before the interrupted operation continues

    def continue_in_child() -> list[EventKey]:
        ignore_closed(recorder.event)
        ignore_closed(recorder.event)
        recorder.session.close()
        if isinstance(recorder.store, XmlStore):
            recorder.store.flush()  # a forked child exits without waiting for its background saves
        assert recorder.session.save_error is None, recorder.session.save_error
        reported = {start.session_id for start in recorder.started} | {end.session_id for end in recorder.ended}
        assert not reported & parent_sessions, "the child reported one of its parent's sessions"
        return event_keys(recorder.contexts[before:])

    with open_fork_point(continue_in_child, system_fork) as fork_point:
        points = call_at_point(lambda: ignore_closed(lambda: operation(recorder)), fork, point)
    try:
        ignore_closed(recorder.event)
        child_keys = [tuple(key) for child in children for key in child.result()]
        recorder.check_fork(child_keys)
    except (AssertionError, ChildError) as error:
        return points, f"{type(error).__name__}: {error}"
    return points, ""


def _fork_in_callback(scale: Scale) -> Outcome:
    children = 100 if scale is Scale.FULL else 4
    losses: list[str] = []
    with _fork_folder() as folder:
        forked: list[Child] = []
        armed: dict[str, bool] = {}

        def fork(_: SessionContext) -> None:
            if armed.pop("once", False):  # this callback also runs in the child, when its session starts
                forked.append(run_in_child(lambda: event_keys([session.get_session_context(uuid.uuid4())])))

        for number in range(children):
            forked.clear()
            armed["once"] = True
            with ClientSession(folder / str(number) / "session.xml", on_session_start=fork) as session:
                parent_keys = event_keys([session.get_session_context(uuid.uuid4()) for _ in range(2)])
                try:
                    ((child, index, event),) = forked[0].result()
                except ChildError as error:
                    losses.append(str(error))
                    continue
                if (
                    child == parent_keys[0][0]
                    or (index, event) != (2, 1)
                    or [key[1:] for key in parent_keys] != [(1, 1), (1, 2)]
                ):
                    losses.append(f"child {child}, {index}, {event}; parent {parent_keys}")
    return Outcome(children, tuple(losses))


def _fork_under_file_lock(scale: Scale) -> Outcome:
    """Fork children that inherit their parent's lock descriptor and close it in every possible way."""
    children = 100 if scale is Scale.FULL else 4
    losses: list[str] = []
    with _fork_folder() as folder:
        store = XmlStore(folder / "session.xml")
        with ClientSession(store=store) as session:
            session.get_session_context(uuid.uuid4())

            def try_lock() -> str:
                try:
                    with store.lock():
                        return "believes it holds its parent's lock"
                except TimeoutError:
                    pass
                gc.collect()
                return ""

            for number in range(children):
                with store.lock():
                    store.load()
                    loss = run_in_child(try_lock).result() if number % 20 == 0 else ""
                    with open_fork_point(lambda: "") as fork_point, store.lock():  # the child leaves this block too
                        child = fork_point.fork()
                    child.result()
                    if loss:
                        losses.append(f"child {number} {loss}")
                    with (folder / "session.xml.lock").open("r+b") as another:
                        try:
                            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            losses.append(f"child {number} released its parent's lock")
                        except BlockingIOError:
                            pass
    return Outcome(children, tuple(losses))


FAULTS: tuple[Fault, ...] = (
    *(
        Fault(
            "fork while another thread starts and stops the checker"
            if name == "the checker's"
            else f"fork while another thread holds {name} lock",
            "a child hangs, continues its parent's session, or reuses an index or session id",
            _fork_with_lock_held(name),
        )
        for name in (
            "the session's",
            "the ledger's",
            "the store's",
            "the in-memory store's",
            "the checker's",
            "the log handler's",
        )
    ),
    Fault(
        "fork at every fifth point in each operation and its save, on the same thread; both processes continue",
        "the parent and child share a session, skip or duplicate a number, or both report the same session",
        _fork_during_operations,
    ),
    Fault(
        "fork at every fifth point in each operation and its background save; both processes continue",
        "the parent and child share a session, skip or duplicate a number, or both report the same session",
        partial(_fork_during_operations, store=partial(XmlStore, background=True)),
    ),
    Fault(
        "fork at every fifth point in each operation and its save in a database; both processes continue",
        "the parent and child share a session, skip or duplicate a number, or both report the same session",
        partial(_fork_during_operations, store=SqliteStore),
    ),
    Fault(
        "fork in C code, without Python's fork hooks, at every fifth point in each operation and its save",
        "the parent and child share a session, skip or duplicate a number, or both report the same session",
        _fork_in_c_during_operations,
    ),
    Fault(
        "fork in on_session_start",
        "the parent and child share a session, or skip or duplicate a number",
        _fork_in_callback,
    ),
    Fault(
        "fork while holding the save file's lock; the child drops the inherited lock",
        "the child believes it holds the lock, or releases its parent's lock",
        _fork_under_file_lock,
    ),
)
