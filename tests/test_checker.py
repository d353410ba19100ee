"""The shared checker's thread: it ticks, holds nothing alive, and is gone when nothing is left to tick."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, SessionClosedError
from client_session.ticking.thread import Checker
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


class Target:
    """Something that is ticked, and can be waited for."""

    def __init__(self, interval: float = 0.002, error: Exception | None = None) -> None:
        """Tick at this interval; raise this error at each tick."""
        self.check_interval = interval
        self.error = error
        self.ticks = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def tick(self) -> None:
        """Count, or fail."""
        self.threads.add(threading.current_thread())
        self.ticks.release()
        if self.error:
            raise self.error

    def wait(self, ticks: int = 1) -> bool:
        """Wait for further ticks."""
        return all(self.ticks.acquire(timeout=PATIENCE) for _ in range(ticks))


def thread_of(target: Target) -> threading.Thread:
    """Return the one thread that ticks a target."""
    assert target.wait()
    (thread,) = target.threads
    return thread


@pytest.fixture
def checker() -> Iterator[Checker]:
    """Return a checker of the test's own, whose thread must be gone when the test has dropped its targets."""
    checker = Checker()
    yield checker
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "client-session-checker":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_ticks_again_and_again(checker: Checker) -> None:
    """A target is ticked at its interval until it is stopped."""
    target = Target()
    checker.start(target, 0.0)
    assert target.wait(5)
    checker.stop(target)


def test_one_thread_ticks_them_all(checker: Checker) -> None:
    """Many targets of several intervals share a daemon thread."""
    targets = [Target(0.001 * (number % 3 + 1)) for number in range(50)]
    for target in targets:
        checker.start(target, 0.0)
    assert all(target.wait(2) for target in targets)
    threads = {thread for target in targets for thread in target.threads}
    assert len(threads) == 1
    assert threads.pop().daemon
    for target in targets:
        checker.stop(target)


def test_the_thread_ends_with_the_last_stop(checker: Checker) -> None:
    """Nothing to tick, no thread; and a new one when there is something again."""
    target = Target()
    for _ in range(3):
        target.threads.clear()
        checker.start(target, 0.0)
        thread = thread_of(target)
        checker.stop(target)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        while target.ticks.acquire(blocking=False):
            pass


def test_the_thread_ends_with_the_last_target(checker: Checker) -> None:
    """A target that is dropped without being stopped is collected, and the thread ends though its interval is long."""
    target = Target()
    checker.start(target, 0.0)
    thread = thread_of(target)
    target.check_interval = 10_000
    checker.start(target, 0.0)
    del target
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_failing_tick_is_logged_and_the_others_go_on(checker: Checker, caplog: pytest.LogCaptureFixture) -> None:
    """One bad target does not stop the thread."""
    bad, good = Target(error=RuntimeError("broken")), Target()
    checker.start(bad, 0.0)
    checker.start(good, 0.0)
    assert bad.wait(2)
    assert good.wait(3)
    checker.stop(bad)
    checker.stop(good)
    assert caplog.records[0].levelno == logging.ERROR
    assert "broken" in str(caplog.records[0].exc_info)


def test_a_session_closed_meanwhile_is_no_failure(checker: Checker, caplog: pytest.LogCaptureFixture) -> None:
    """A tick that comes too late is silent."""
    closed = Target(error=SessionClosedError("tick"))
    checker.start(closed, 0.0)
    assert closed.wait(2)
    checker.stop(closed)
    assert caplog.records == []


def test_a_new_interval_takes_effect_at_once(checker: Checker) -> None:
    """Starting again changes the interval, from one beyond all waiting to a short one."""
    target = Target(1e300)
    checker.start(target, 0.0)
    target.check_interval = 0.001
    checker.start(target, 0.0)
    assert target.wait(3)
    checker.stop(target)


def test_stopping_what_is_not_ticked_does_nothing(checker: Checker) -> None:
    """Twice is fine, and so is never started."""
    target, other = Target(), Target()
    checker.stop(target)
    checker.start(other, 0.0)
    checker.stop(target)
    assert other.wait(2)
    checker.stop(other)
    checker.stop(other)


def test_without_threads_the_host_goes_on(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, a warning is all that it costs; the next start tries again, and ticks all."""
    warned: list[str] = []
    free: list[bool] = []
    sessions: list[ClientSession] = []

    class HostsHandler(logging.Handler):
        """Uses the session on another thread, and waits for it."""

        def emit(self, record: logging.LogRecord) -> None:
            warned.append(record.getMessage())
            reached = threading.Event()
            use = [session.touch for session in sessions]
            starting(threading.Thread(target=lambda: [call() for call in (*use, reached.set)], daemon=True))
            free.append(reached.wait(PATIENCE))

    logger = logging.getLogger("of.a.host.without.threads")
    logger.addHandler(HostsHandler())
    starting, allowed = threading.Thread.start, False

    def start(thread: threading.Thread) -> None:
        if thread.name == "client-session-checker" and not allowed:
            message = "can't start new thread"
            raise RuntimeError(message)
        starting(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with ClientSession(store=MemoryStore(), scheduler=checker, logger=logger) as session:
        sessions.append(session)
        assert session.get_session_context(event_id(1)).event_index == 1
        session.stop_checker()
        session.start_checker()
        session.check_interval = 1
        assert warned == ["No checker thread could be started; sessions expire at their next event"] * 3
        assert free == [True] * 3
        allowed, target = True, Target()
        checker.start(target, 0.0)
        assert target.wait(2)
        checker.stop(target)
