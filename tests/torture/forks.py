"""Forks while another thread holds a lock, in the middle of an operation, in a callback, and under the file's lock."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_session import ClientSession
from client_session.ticking.thread import SHARED_CHECKER
from client_session_persistence import MemoryStore, XmlStore
from torture.children import ChildError, answering, fork_and_answer, require_fork
from torture.coming_between import come_between
from torture.fault import Fault, Outcome, Scale
from torture.warm import share_out
from torture.witness import OPERATIONS, Witness, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from client_session import SessionContext
    from torture.children import Child
    from torture.witness import Told

SLOWEST = 1.0
"""Seconds within which a child must be through."""


@contextlib.contextmanager
def _forking() -> Generator[Path]:
    require_fork()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forks with threads; they are the point
        yield Path(folder)


def _told(context: SessionContext) -> list[object]:
    return [context.user_id, context.session_id, context.session_index, context.event_index]


def _use(session: ClientSession) -> list[object]:
    """Call all that takes a lock; return an event's entity and the seconds that it took."""
    begin = time.monotonic()
    context = session.get_session_context(uuid.uuid4())
    session.set_background(True)
    session.set_background(False)
    session.tick()
    session.touch()
    session.check_interval = 14
    session.save()
    logging.getLogger("client_session.session").warning("from the child")
    return [_told(context), time.monotonic() - begin]


@contextlib.contextmanager
def _held(lock: AbstractContextManager[object], released: threading.Event) -> Generator[None]:
    """Let another thread hold a lock until `released`."""
    taken = threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            released.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        released.set()
        thread.join()


class _Ticked:
    check_interval = 0.001

    def tick(self) -> None:
        pass


@contextlib.contextmanager
def _starting_and_stopping() -> Generator[None]:
    """Start and stop checking all the time: the checker has no lock that a thread could be found holding."""
    left = threading.Event()

    def work() -> None:
        while not left.wait(0.0002):
            ticked = _Ticked()
            SHARED_CHECKER.start(ticked, 0.0)
            SHARED_CHECKER.stop(ticked)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


class _Quiet(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        pass


def _locks(
    session: ClientSession, store: XmlStore | MemoryStore
) -> dict[str, Callable[[], AbstractContextManager[object]]]:
    inside: Any = session
    handler = logging.getLogger("client_session.session").handlers[0]
    return {
        "the session's": lambda: inside._lock,  # noqa: SLF001  # the lock under test
        "the ledger's": lambda: inside._ledger._lock,  # noqa: SLF001  # the lock under test
        "the store's": store.lock,
        "the checker's": _starting_and_stopping,
        "the log handler's": lambda: handler.lock,
    }


def _with_a_lock_held(name: str, *, in_memory: bool) -> Callable[[Scale], Outcome]:
    def run(scale: Scale) -> Outcome:
        children = 500 if scale is Scale.WHOLE else 5
        losses: list[str] = []
        slowest = 0.0
        logger = logging.getLogger("client_session.session")
        handler = _Quiet()
        logger.addHandler(handler)
        logger.propagate = False
        try:
            with _forking() as folder:
                store = MemoryStore() if in_memory else XmlStore(folder / "session.xml")
                with ClientSession(store=store, logger=logger) as session:
                    own = _told(session.get_session_context(uuid.uuid4()))
                    numbered = {(own[2], own[1])}
                    lock = _locks(session, store)[name]
                    for number in range(children):
                        released = threading.Event()
                        with _held(lock(), released):
                            child = fork_and_answer(lambda: _use(session))
                            released.set()
                            try:
                                told, seconds = child.answer()
                            except ChildError as error:
                                losses.append(f"child {number}: {error}")
                                continue
                        slowest = max(slowest, seconds)
                        if seconds >= SLOWEST:
                            losses.append(f"child {number} took {seconds:.1f} s")
                        if told[0] != own[0] or told[3] != 1:
                            losses.append(f"child {number} went on with {told}, the parent has {own}")
                        index = told[2] if not in_memory else (number, told[2])
                        if any(told[1] == known or index == taken for taken, known in numbered):
                            losses.append(f"child {number} numbered {told}, which was taken")
                        numbered.add((index, told[1]))
                    after = _told(session.get_session_context(uuid.uuid4()))
                    if after != [*own[:3], 2]:
                        losses.append(f"the parent went on with {after} after {own}")
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
        return Outcome(children, tuple(losses), f"slowest child {slowest * 1000:.0f} ms")

    return run


def _amid_operations(scale: Scale) -> Outcome:
    require_fork()
    return share_out(_amid_share, scale)


def _amid_share(share: int, shares: int, scale: Scale) -> Outcome:
    """Fork at points of each operation; the child goes on with it to its end, as after a signal handler's fork."""
    cases, losses = 0, list[str]()
    step = 5 * shares if scale is Scale.WHOLE else 211
    with _forking() as folder:
        for name, (prepare, operation) in OPERATIONS.items():
            point = (cases + 5 * share) % step
            points = point + 1
            while point < points:
                witness = Witness(XmlStore(folder / str(cases) / "session.xml"))
                prepare(witness)
                points, loss = _fork_at(point, witness, operation)
                if loss:
                    losses.append(f"in {name}, at point {point}: {loss}")
                cases += 1
                point += step
    return Outcome(cases, tuple(losses))


def _fork_at(point: int, witness: Witness, operation: Callable[[Witness], object]) -> tuple[int, str]:
    before = len(witness.contexts)
    parent = os.getpid()
    forked: list[Child] = []
    parents: set[str] = set()

    def fork() -> None:
        parents.update((witness.session.session_id, *(context.session_id for context in witness.contexts)))
        forked.append(answer.fork())
        if os.getpid() != parent:
            witness.started.clear()
            witness.ended.clear()
            if point % 2:
                refused(witness.event)  # before it comes back

    def go_on() -> list[Told]:
        refused(witness.event)
        refused(witness.event)
        witness.session.close()
        assert witness.session.save_error is None, witness.session.save_error
        heard = {start.session_id for start in witness.started} | {end.session_id for end in witness.ended}
        assert not heard & parents, "the child told what is its parent's to tell"
        return told(witness.contexts[before:])

    with answering(go_on) as answer:
        points = come_between(lambda: refused(lambda: operation(witness)), fork, point)
    try:
        refused(witness.event)
        theirs = [tuple(one) for child in forked for one in child.answer()]
        witness.check_fork(theirs)
    except (AssertionError, ChildError) as error:
        return points, f"{type(error).__name__}: {error}"
    return points, ""


def _in_a_callback(scale: Scale) -> Outcome:
    children = 100 if scale is Scale.WHOLE else 4
    losses: list[str] = []
    with _forking() as folder:
        forked: list[Child] = []
        armed: dict[str, bool] = {}

        def fork(_: SessionContext) -> None:
            if armed.pop("once", False):  # not in the child, whose session starts too
                forked.append(fork_and_answer(lambda: told([session.get_session_context(uuid.uuid4())])))

        for number in range(children):
            forked.clear()
            armed["once"] = True
            with ClientSession(folder / str(number) / "session.xml", on_session_start=fork) as session:
                ours = told([session.get_session_context(uuid.uuid4()) for _ in range(2)])
                try:
                    ((child, index, event),) = forked[0].answer()
                except ChildError as error:
                    losses.append(str(error))
                    continue
                if child == ours[0][0] or (index, event) != (2, 1) or [one[1:] for one in ours] != [(1, 1), (1, 2)]:
                    losses.append(f"child {child}, {index}, {event}; parent {ours}")
    return Outcome(children, tuple(losses))


def _under_the_file_lock(scale: Scale) -> Outcome:
    """A child inherits the descriptor by which its parent holds the lock, and drops it in every way there is."""
    children = 100 if scale is Scale.WHOLE else 4
    losses: list[str] = []
    with _forking() as folder:
        store = XmlStore(folder / "session.xml")
        with ClientSession(store=store) as session:
            session.get_session_context(uuid.uuid4())

            def use() -> str:
                try:
                    with store.lock():
                        return "believes that it holds its parent's lock"
                except TimeoutError:
                    pass
                gc.collect()
                return ""

            for number in range(children):
                with store.lock():
                    store.load()
                    answer = fork_and_answer(use).answer() if number % 20 == 0 else ""
                    with answering(lambda: "") as forking, store.lock():  # leaves by way of the lock's own exit
                        child = forking.fork()
                    child.answer()
                    if answer:
                        losses.append(f"child {number} {answer}")
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
            f"fork while another thread holds {name} lock{', in memory' if in_memory else ''}",
            "a child takes a second, goes on with its parent's session, or numbers one alike",
            _with_a_lock_held(name, in_memory=in_memory),
        )
        for name, in_memory in (
            ("the session's", False),
            ("the ledger's", False),
            ("the store's", False),
            ("the store's", True),
            ("the checker's", False),
            ("the log handler's", False),
        )
    ),
    Fault(
        "fork at each fifth point within each operation and its saving, on that thread; both go on with it",
        "parent and child share a session, together skip or double a number, or tell one thing twice",
        _amid_operations,
    ),
    Fault("fork in on_session_start", "the same", _in_a_callback),
    Fault(
        "fork under the save file's lock; the child drops what it inherits",
        "the child believes that it holds the lock, or releases its parent's",
        _under_the_file_lock,
    ),
)
