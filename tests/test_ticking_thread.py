"""The checker's shared thread: it ticks targets without keeping them alive, and ends when no targets are left."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, SessionClosedError
from client_session.ticking.schedule import reference_to, tick_session
from client_session.ticking.thread import Checker
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 20.0


class Target:
    """A target that counts its ticks and lets a test wait for them."""

    def __init__(self, interval: float = 0.002, error: Exception | None = None) -> None:
        """Set the interval between ticks and, optionally, an error that each tick raises."""
        self.check_interval = interval
        self.error = error
        self.ticks = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def tick(self) -> None:
        """Count the tick, then raise the error if there is one."""
        self.threads.add(threading.current_thread())
        self.ticks.release()
        if self.error:
            raise self.error

    def wait(self, ticks: int = 1) -> bool:
        """Wait until the target is ticked ``ticks`` more times; return ``False`` on timeout."""
        return all(self.ticks.acquire(timeout=WAIT_SECONDS) for _ in range(ticks))


def thread_of(target: Target) -> threading.Thread:
    """Return the thread that ticks a target; fail if there is more than one."""
    assert target.wait()
    (thread,) = target.threads
    return thread


@pytest.fixture
def checker() -> Iterator[Checker]:
    """Yield a new checker, and check that its thread ends after the test drops its targets."""
    checker = Checker()
    yield checker
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "client-session-checker":
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


def test_target_is_ticked_until_it_is_stopped(checker: Checker) -> None:
    """A target is ticked at its interval until it is stopped."""
    target = Target()
    checker.start(target, 0.0)
    assert target.wait(5)
    checker.stop(target)


def test_one_thread_ticks_all_targets(checker: Checker) -> None:
    """Targets with different intervals share one daemon thread."""
    targets = [Target(0.001 * (number % 3 + 1)) for number in range(50)]
    for target in targets:
        checker.start(target, 0.0)
    assert all(target.wait(2) for target in targets)
    threads = {thread for target in targets for thread in target.threads}
    assert len(threads) == 1
    assert threads.pop().daemon
    for target in targets:
        checker.stop(target)


def test_thread_ends_after_the_last_stop(checker: Checker) -> None:
    """The thread ends when there are no targets left to tick, and a later start creates a new one."""
    target = Target()
    for _ in range(3):
        target.threads.clear()
        checker.start(target, 0.0)
        thread = thread_of(target)
        checker.stop(target)
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        while target.ticks.acquire(blocking=False):
            pass


def test_thread_ends_after_the_last_target_is_collected(checker: Checker) -> None:
    """A target that is dropped without being stopped is collected, and the thread ends despite a long interval."""
    target = Target()
    checker.start(target, 0.0)
    thread = thread_of(target)
    target.check_interval = 10_000
    checker.start(target, 0.0)
    del target
    gc.collect()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_failing_tick_is_logged_and_other_targets_continue(checker: Checker, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a target's tick does not end the thread."""
    bad, good = Target(error=RuntimeError("broken")), Target()
    checker.start(bad, 0.0)
    checker.start(good, 0.0)
    assert bad.wait(2)
    assert good.wait(3)
    checker.stop(bad)
    checker.stop(good)
    assert caplog.records[0].levelno == logging.ERROR
    assert "broken" in str(caplog.records[0].exc_info)


def test_tick_of_a_closed_session_is_not_logged(checker: Checker, caplog: pytest.LogCaptureFixture) -> None:
    """SessionClosedError from a tick is ignored."""
    closed = Target(error=SessionClosedError("tick"))
    checker.start(closed, 0.0)
    assert closed.wait(2)
    checker.stop(closed)
    assert caplog.records == []


def test_new_interval_takes_effect_at_once(checker: Checker) -> None:
    """Starting a target again applies its new interval without waiting for the old one to elapse."""
    target = Target(1e300)
    checker.start(target, 0.0)
    target.check_interval = 0.001
    checker.start(target, 0.0)
    assert target.wait(3)
    checker.stop(target)


def test_stopping_an_unknown_target_does_nothing(checker: Checker) -> None:
    """Stopping a target twice, or one that was never started, has no effect."""
    target, other = Target(), Target()
    checker.stop(target)
    checker.start(other, 0.0)
    checker.stop(target)
    assert other.wait(2)
    checker.stop(other)
    checker.stop(other)


def test_pause_during_a_tick_defers_the_other_targets(checker: Checker) -> None:
    """A fork waits only for the current tick; the thread ticks the remaining targets after the fork."""
    pausing: list[threading.Thread] = []
    has_paused = threading.Event()

    class PausingTarget(Target):
        """A target that pauses the checker, as a fork would, during the first tick of any target."""

        def tick(self) -> None:
            """Count the tick."""
            super().tick()
            if not pausing:
                pausing.append(threading.current_thread())
                checker.pause(0.0)
                has_paused.set()

    targets = [PausingTarget(0.05) for _ in range(10)]
    for target in targets:
        checker.start(target, 0.0)
    assert has_paused.wait(WAIT_SECONDS)
    pausing[0].join(WAIT_SECONDS)
    assert sum(target.ticks.acquire(blocking=False) for target in targets) == 1
    checker.resume()
    assert all(target.wait() for target in targets)
    for target in targets:
        checker.stop(target)


def test_other_targets_are_ticked_after_one_is_collected(checker: Checker) -> None:
    """After one of many targets is dropped, the thread still ticks the others."""
    targets = [Target() for _ in range(10)]
    for target in targets:
        checker.start(target, 0.0)
    assert all(target.wait() for target in targets)
    del target, targets[0]
    gc.collect()
    assert all(target.wait(2) for target in targets)
    for target in targets:
        checker.stop(target)


def test_tick_may_start_another_target(checker: Checker) -> None:
    """A target started from the checker's thread is ticked even if the first target has a long interval."""

    class StartingTarget(Target):
        """A target whose first tick starts another target."""

        def tick(self) -> None:
            """Start the other target, then count the tick."""
            self.check_interval = 10_000
            checker.start(self, 0.0)
            checker.start(other, 0.0)
            super().tick()

    first, other = StartingTarget(), Target()
    checker.start(first, 0.0)
    assert first.wait()
    assert other.wait(3)
    checker.stop(first)
    checker.stop(other)


def test_collected_target_is_not_ticked() -> None:
    """Ticking a weak reference has no effect after its target has been collected."""
    reference = reference_to(Target())
    gc.collect()
    assert reference() is None
    tick_session(reference)


def test_session_works_where_no_thread_can_start(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a thread cannot be started, a warning is logged; the next start() tries again, and every target is ticked."""
    messages: list[str] = []
    handler_finished: list[bool] = []
    sessions: list[ClientSession] = []

    class ReentrantHandler(logging.Handler):
        """A log handler that uses the session on another thread and waits for that thread."""

        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            finished = threading.Event()
            calls = [session.touch for session in sessions]
            start_thread(threading.Thread(target=lambda: [call() for call in (*calls, finished.set)], daemon=True))
            handler_finished.append(finished.wait(WAIT_SECONDS))

    logger = logging.getLogger("host.without.threads")
    logger.addHandler(ReentrantHandler())
    start_thread, allowed = threading.Thread.start, False

    def start(thread: threading.Thread) -> None:
        if thread.name == "client-session-checker" and not allowed:
            message = "can't start new thread"
            raise RuntimeError(message)
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with ClientSession(store=MemoryStore(), scheduler=checker, logger=logger) as session:
        sessions.append(session)
        assert session.get_session_context(event_id(1)).event_index == 1
        session.stop_checker()
        session.start_checker()
        session.check_interval = 1
        assert messages == ["The checker thread could not be started; sessions expire at their next event"] * 3
        assert handler_finished == [True] * 3
        allowed, target = True, Target()
        checker.start(target, 0.0)
        assert target.wait(2)
        checker.stop(target)
