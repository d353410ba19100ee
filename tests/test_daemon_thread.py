"""The daemon thread that the checker and the writer share."""

from __future__ import annotations

import threading
from collections import deque

from client_session_persistence.daemon_thread import DaemonThread


class OneJobAtATime(DaemonThread):
    """A daemon thread whose `_work` returns after each job, though more may wait."""

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


def test_thread_continues_with_work_that_arrives_as_it_ends() -> None:
    """Work that is added after `_work` has returned runs on the same thread, which then ends."""
    worker = OneJobAtATime("first", "second", "third")
    assert worker.ensure_running()
    assert worker.is_idle.wait(10)
    assert [job for job, _ in worker.done] == ["first", "second", "third"]
    threads = {thread for _, thread in worker.done}
    assert [thread.name for thread in threads] == ["one-job-at-a-time"]
    threads.pop().join()
