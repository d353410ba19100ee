"""What a store has handed over, to be made durable on a worker thread while its caller goes on.

One daemon thread writes for the whole process. It is started by the first save, and the interpreter's exit waits for
what it still has to write. Nothing here takes a lock that a signal handler or finalizer could find taken.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import queue
import threading
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from client_session_persistence.atomic_file import sync_folder
from client_session_persistence.forks import ForkAware

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence.process_lock import ProcessLock
    from client_session_persistence.snapshot import Snapshot


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


class Saver(ForkAware):
    """The snapshots that one store has handed over; of several that wait, the newest is written."""

    __slots__ = ("_last", "_unsynced", "_waiting", "_writing", "newest")

    newest: Snapshot
    """The last that was handed over."""

    def renew(self) -> None:
        """Begin with nothing to write: what a forked child inherits is its parent's."""
        self._waiting: deque[tuple[Callable[[], object], Future[None]]] = deque()
        self._writing = threading.RLock()
        """At the interpreter's exit there may be two who write."""
        self._last: Future[None] | None = None
        self._unsynced: deque[str] = deque()

    def sync_later(self, folder: str) -> None:
        """Leave it to the worker to make the names in a folder durable."""
        self._unsynced.append(folder)

    def add(self, lock: ProcessLock, snapshot: Snapshot, write: Callable[[], object]) -> Future[None]:
        """Hand a snapshot over, under the store's lock, which is kept until it is durable; return the future of that.

        Raises:
            BlockingIOError: too many other stores' lock files are open for that already.

        """
        self.renew_in_a_child()
        if not lock.is_kept and WORKER.is_overloaded:
            raise BlockingIOError(errno.EAGAIN, "Too many files wait to be saved")
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # nobody can take it back
        self.newest = snapshot
        lock.keep()
        self._last = future
        self._waiting.append((write, future))
        WORKER.do(partial(self._work, lock))
        return future

    def wait(self) -> None:
        """Wait until what was handed over last is durable; raise what went wrong."""
        self.renew_in_a_child()
        if self._last is not None:
            self._last.result()

    def _work(self, lock: ProcessLock) -> None:
        write: Callable[[], object] | None = None
        futures: list[Future[None]] = []
        error: BaseException | None = None
        with self._writing:
            with contextlib.suppress(IndexError):
                while True:
                    write, future = self._waiting.popleft()
                    futures.append(future)
            if write is None:
                return  # an earlier job has written this one's snapshot, or a newer one
            try:
                self._sync()
                write()
            except BaseException as raised:  # noqa: BLE001  # whatever it is, those who wait must be told
                error = raised
        for future in futures:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._finish(lock)

    def _finish(self, lock: ProcessLock) -> None:
        if not lock.let_go(self._waiting):  # whoever has the lock may be waiting for another job
            WORKER.do_later(partial(self._finish, lock))

    def _sync(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                sync_folder(self._unsynced.popleft())
