"""What a store has handed over, to be made durable on a worker thread while its caller goes on.

One daemon thread writes for the whole process. It is started by the first save, and the interpreter's exit waits for
what it still has to write. Nothing here takes a lock that a signal handler or finalizer could find taken.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from persistence.snapshot import Snapshot


MOST_FILES = 100
"""How many files may wait to be written: each has its lock file open, and a process may not have many open files."""


class Worker:
    """A thread that does jobs one after another."""

    def __init__(self) -> None:
        """Start with nothing to do, and no thread."""
        self.renew()

    def renew(self) -> None:
        """Start afresh, as a forked child must: what was to be written is its parent's to write."""
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._leaving = False

    def do(self, job: Callable[[], object]) -> None:
        """Do a job on the thread; here and now if this is the thread, or if there can be none (any more)."""
        if self._leaving or threading.current_thread() is self._thread or not self._is_running():
            job()
        else:
            self.do_later(job)

    def do_later(self, job: Callable[[], object]) -> None:
        """Do a job after those that wait."""
        self._jobs.put(job)

    @property
    def is_overloaded(self) -> bool:
        """Whether no further file should wait."""
        return self._jobs.qsize() >= MOST_FILES

    def finish(self) -> None:
        """Wait until all is done; what comes later is done by whoever wants it."""
        self._leaving = True
        if self._thread is not None:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait()

    def _is_running(self) -> bool:
        if self._thread is None:
            with self._starting:
                thread = threading.Thread(
                    target=self._run, args=(self._jobs,), name="client-session-saver", daemon=True
                )
                if self._thread is None:  # still: a signal handler's call may have come between
                    self._thread = thread
                    try:
                        thread.start()
                    except RuntimeError:  # the interpreter is leaving, or the system has no more threads
                        self._thread = None
        return self._thread is not None

    @staticmethod
    def _run(jobs: queue.SimpleQueue[Callable[[], object]]) -> None:
        while True:
            jobs.get()()


WORKER = Worker()
atexit.register(WORKER.finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.renew)


class Handover:
    """The snapshots that a store has handed over since it last let go of its lock; of several, the newest is written.

    Args:
        write: writes a snapshot durably.
        let_go: unlocks the store, unless something `is_waiting`; tells whether that could be done now.

    """

    __slots__ = ("_let_go", "_waiting", "_write", "_writing", "last", "newest")

    last: Future[None]
    """Of the newest snapshot's being durable."""

    def __init__(self, newest: Snapshot, write: Callable[[Snapshot], object], let_go: Callable[[], bool]) -> None:
        """Begin with nothing written."""
        self.newest = newest
        self._write = write
        self._let_go = let_go
        self._waiting: deque[Future[None]] = deque()
        self._writing = threading.RLock()
        """At the interpreter's exit there may be two who write."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._waiting)

    def add(self, snapshot: Snapshot) -> Future[None]:
        """Hand a snapshot over, and return the future of its being durable. The store is locked."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # nobody can take it back
        self.newest, self.last = snapshot, future
        self._waiting.append(future)
        WORKER.do(self._work)
        return future

    def _work(self) -> None:
        futures: list[Future[None]] = []
        error: BaseException | None = None
        with self._writing:
            with contextlib.suppress(IndexError):
                while True:
                    futures.append(self._waiting.popleft())
            if not futures:
                return  # an earlier job has written this one's snapshot, or a newer one
            try:
                self._write(self.newest)
            except BaseException as raised:  # noqa: BLE001  # whatever it is, those who wait must be told
                error = raised
        for future in futures:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._finish()

    def _finish(self) -> None:
        if not self._let_go():  # whoever has the lock may be waiting for another job
            WORKER.do_later(self._finish)
