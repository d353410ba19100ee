"""Threads, forks, garbage collection and interpreter exit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualClock
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionContext
    from conftest import MakeSession

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")


def run_in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run the same function on several threads at once, and raise the first error."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001  # raised again on the test's thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.usefixtures("fast_thread_switching")
def test_threads_share_a_session_without_gaps(make: MakeSession) -> None:
    """Event indexes have no gaps, and each session has exactly one first event."""
    contexts: list[SessionContext] = []
    session = make()

    def work(thread: int) -> None:
        for number in range(500):
            contexts.append(session.get_session_context(event_id(thread * 1000 + number)))
            if number % 50 == 49:
                session.start_new_session()
            session.set_background(number % 7 == 0)
            session.tick()

    run_in_threads(8, work)
    numbers: dict[tuple[str, int], list[int]] = {}
    for context in contexts:
        numbers.setdefault((context.session_id, context.session_index), []).append(context.event_index)
    assert all(sorted(indexes) == list(range(1, len(indexes) + 1)) for indexes in numbers.values())
    assert sorted(index for _, index in numbers) == list(range(1, len(numbers) + 1))
    firsts = Counter((context.session_id, context.first_event_id) for context in contexts)
    assert len(firsts) == len(numbers)


@pytest.mark.usefixtures("fast_thread_switching")
def test_sessions_on_many_threads_share_a_store_without_gaps() -> None:
    """Sessions that share a store share a user, and their indexes form one unbroken chain."""
    store = MemoryStore()
    contexts: list[SessionContext] = []

    def work(thread: int) -> None:
        with ClientSession(store=store) as session:
            for number in range(40):
                contexts.append(session.get_session_context(event_id(thread * 1000 + number)))
                session.start_new_session()

    run_in_threads(8, work)
    contexts.sort(key=lambda context: context.session_index)
    assert [context.session_index for context in contexts] == list(range(1, 321))
    assert all(after.previous_session_id == before.session_id for before, after in pairwise(contexts))
    assert len({context.user_id for context in contexts}) == 1


@pytest.mark.usefixtures("fast_thread_switching")
def test_close_is_safe_during_other_calls() -> None:
    """A concurrent call either succeeds or raises SessionClosedError, and close() never hangs."""
    from client_session import SessionClosedError  # noqa: PLC0415  # used only here

    for _ in range(20):
        session = ClientSession(store=MemoryStore(), check_interval=0.001)

        def work(thread: int, session: ClientSession = session) -> None:
            if thread == 0:
                session.close()
            try:
                for number in range(50):
                    session.get_session_context(event_id(number))
                    session.tick()
            except SessionClosedError:
                pass
            else:
                assert thread != 0

        run_in_threads(4, work)


def test_dropped_session_is_collected() -> None:
    """Neither the checker nor the callbacks keep a dropped session alive, even without close()."""
    session = ClientSession(store=MemoryStore(), on_session_start=lambda _: None)
    session.get_session_context(event_id(1))
    session_ref = weakref.ref(session)
    del session
    gc.collect()
    assert session_ref() is None


def test_default_checker_expires_a_session() -> None:
    """With the default clock and scheduler, a session expires on its own."""
    ended = threading.Event()
    session = ClientSession(
        store=MemoryStore(), foreground_timeout=0.05, check_interval=0.01, on_session_end=lambda _: ended.set()
    )
    session.get_session_context(event_id(1))
    assert ended.wait(timeout=10)
    assert session.session_index is None
    session.close()


@pytest.mark.parametrize("check_interval", [0.001, 3600.0])
def test_open_session_does_not_delay_exit(tmp_path: Path, check_interval: float) -> None:
    """A program that never closes its session exits without waiting for a thread, and prints no errors."""
    program = (
        "import sys, uuid; from client_session import ClientSession; from client_session_persistence import forks;"
        "forks.EXIT_SECONDS = 3600.0;"  # a wait for a thread would reach the timeout below
        f"session = ClientSession(sys.argv[1], check_interval={check_interval});"
        "session.get_session_context(uuid.uuid4())"
    )
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program, str(tmp_path / "session.xml")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""


def run_in_child(work: Callable[[], object]) -> Any:  # noqa: ANN401  # the literal that the child returned
    """Fork, run a function in the child, check that it succeeds, and return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, repr(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123  # a descriptor
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    return __import__("ast").literal_eval(answer.decode())


@needs_fork
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12; forked on purpose
def test_forked_child_begins_its_own_session(save_path: Path) -> None:
    """The child's next event begins a new session for the same user, so the two processes never share an index."""
    session = ClientSession(save_path)
    first = session.get_session_context(event_id(1))
    data = run_in_child(lambda: session.get_session_context(event_id(2)).data)
    assert data["userId"] == first.user_id
    assert data["sessionId"] != first.session_id
    assert (data["sessionIndex"], data["eventIndex"], data["previousSessionId"]) == (2, 1, first.session_id)
    assert session.get_session_context(event_id(3)).event_index == 2
    session.start_new_session()
    assert session.get_session_context(event_id(4)).session_index == 3
    session.close()


@needs_fork
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12; forked on purpose
def test_forked_child_does_not_hang_on_a_held_lock(save_path: Path) -> None:
    """A child does not hang if it was forked while another thread held the session's lock in a store call."""
    saving, proceed = threading.Event(), threading.Event()

    class SlowStore(MemoryStore):
        """A store that blocks in save() while the session's lock is held."""

        def save(self, snapshot: Any) -> None:  # noqa: ANN401  # passed through
            if snapshot.session_id is not None and not proceed.is_set():
                saving.set()
                proceed.wait(timeout=30)
            super().save(snapshot)

    session = ClientSession(store=SlowStore())
    other = ClientSession(save_path)
    thread = threading.Thread(target=lambda: session.get_session_context(event_id(1)))
    thread.start()
    assert saving.wait(timeout=10)

    def child() -> tuple[int, int]:
        proceed.set()
        session.touch()
        session.set_background(True)
        return other.get_session_context(event_id(2)).session_index, session.get_session_context(
            event_id(3)
        ).event_index

    assert run_in_child(child) == (1, 1)
    proceed.set()
    thread.join()
    session.close()
    other.close()


@needs_fork
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12; forked on purpose
def test_checker_runs_in_a_forked_child(save_path: Path) -> None:
    """A child's session expires on its own, even though threads do not survive a fork."""
    ended = threading.Event()
    session = ClientSession(
        save_path, foreground_timeout=0.05, check_interval=0.01, on_session_end=lambda _: ended.set()
    )

    def child() -> bool:
        ended.clear()
        session.get_session_context(event_id(2))
        return ended.wait(timeout=10)

    assert run_in_child(child)
    session.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot send a signal to a thread")
def test_signal_handler_that_raises_does_not_leak_the_lock(make: MakeSession) -> None:
    """If a signal handler raises while an event waits for another thread, only that event is lost."""
    main, is_interrupted = threading.get_ident(), threading.Event()

    def raise_interrupt(*_: object) -> None:
        is_interrupted.set()
        raise KeyboardInterrupt

    class InterruptingClock(ManualClock):
        """A clock that interrupts the waiting main thread when a worker holding the lock reads the time."""

        def monotonic(self) -> float:
            """Interrupt the main thread once it is waiting, then return the time."""
            if threading.get_ident() != main and not is_interrupted.is_set():
                is_read.set()
                until = time.monotonic() + 10
                while sys._current_frames()[main].f_code.co_name != "acquire_soon":  # noqa: SLF001  # no public API
                    assert time.monotonic() < until
                signal.pthread_kill(main, signal.SIGUSR1)
                assert is_interrupted.wait(10)
            return super().monotonic()

    is_read = threading.Event()
    session = make(clock=InterruptingClock())
    session.get_session_context(event_id(1))
    thread = threading.Thread(target=lambda: session.get_session_context(event_id(2)))
    before = signal.signal(signal.SIGUSR1, raise_interrupt)
    try:
        thread.start()
        assert is_read.wait(10)
        with pytest.raises(KeyboardInterrupt):
            session.get_session_context(event_id(3))
    finally:
        signal.signal(signal.SIGUSR1, before)
    thread.join()
    run_in_threads(1, lambda _: session.get_session_context(event_id(4)))
    assert session.event_index == 3


def test_scheduler_may_tick_in_start_and_stop(make: MakeSession, clock: ManualClock) -> None:
    """A scheduler that calls tick() from start() or stop() does not cause a deadlock or recursion."""

    class EagerScheduler:
        """A scheduler whose start() and stop() call the session's tick()."""

        def start(self, session: Any, now: float) -> None:  # noqa: ANN401, ARG002  # any session
            session.tick()

        def stop(self, session: Any) -> None:  # noqa: ANN401  # any session
            session.tick()

    session = make(scheduler=EagerScheduler())
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.tick()
    session.set_background(False)
    assert session.get_session_context(event_id(2)).session_index == 2
