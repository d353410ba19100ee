"""The base class for the checker and writer threads."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, MemoryStore
from client_session_persistence.daemon_thread import DaemonThread
from event_ids import event_id

if TYPE_CHECKING:
    from client_session import SessionSummary


class OneJobThread(DaemonThread):
    """A daemon thread whose `_work` returns after each job, even if more are queued."""

    name = "one-job-at-a-time"

    def __init__(self, *jobs: str) -> None:
        """Queue the jobs."""
        self.jobs = deque(jobs)
        self.is_idle = threading.Event()
        self.done: list[tuple[str, threading.Thread]] = []
        super().__init__()

    def _work(self) -> None:
        self.done.append((self.jobs.popleft(), threading.current_thread()))
        if not self.jobs:
            self.is_idle.set()

    def _has_work(self) -> bool:
        return bool(self.jobs)

    def _wake(self) -> None:
        pass


def test_work_that_arrives_as_the_thread_ends_is_still_done() -> None:
    """Jobs added after `_work` has returned run on the same thread before it ends."""
    worker = OneJobThread("first", "second", "third")
    assert worker.ensure_running()
    assert worker.is_idle.wait(10)
    assert [job for job, _ in worker.done] == ["first", "second", "third"]
    threads = {thread for _, thread in worker.done}
    assert [thread.name for thread in threads] == ["one-job-at-a-time"]
    threads.pop().join()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_exception_in_a_callback_does_not_end_the_checker(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """If a callback raises on the checker thread, the exception is logged and other sessions still expire."""
    both_ended = threading.Barrier(2, timeout=20)

    def fail(_: SessionSummary) -> None:
        both_ended.wait()
        raise error

    sessions = [
        ClientSession(store=MemoryStore(), foreground_timeout=0.01, check_interval=0.01, on_session_end=fail)
        for _ in range(3)
    ]
    for session in sessions:
        session.get_session_context(event_id(1))
        both_ended.wait()  # wait until the checker thread is in the callback
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "client-session-checker"]
    assert thread.is_alive()
    for session in sessions:
        session.close()
    thread.join(20)
    assert len(caplog.records) == len(sessions)
