"""The base class of the checker and writer threads."""

from __future__ import annotations

import threading
from collections import deque

from client_session_persistence.daemon_thread import DaemonThread


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
