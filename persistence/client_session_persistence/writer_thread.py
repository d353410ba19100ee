"""Background saves: a worker thread makes queued snapshots durable while the caller continues.

One daemon thread writes for the whole process. The first save starts it; at exit, the interpreter waits for the
remaining writes. This module never waits for a lock that an interrupted call on the same thread could hold.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from client_session_persistence.atomic_file import sync_folder
from client_session_persistence.daemon_thread import DaemonThread
from client_session_persistence.forks import THIS_PROCESS, ForkAware, Stage, register, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence.forks import Lease
    from client_session_persistence.lock_file import ProcessLock
    from client_session_persistence.snapshot import Snapshot


MAX_FILES = 100
"""The maximum number of files waiting to be written. For each, a lock file stays open, and descriptors are limited."""


class WriterThread(DaemonThread):
    """Runs jobs one after another on a daemon thread."""

    name = "client-session-writer"

    def renew(self) -> None:
        """Start over, as a forked child must: the queued jobs belong to its parent."""
        self.jobs: deque[Callable[[], object]] = deque()
        """The jobs that the thread will run, in order."""
        self.retained: set[ProcessLock] = set()
        """The locks of the stores that have something to write. Each of them uses a descriptor."""
        super().renew()
        self._is_exiting = False

    def run(self, job: Callable[[], object]) -> None:
        """Run a job on the thread, or directly if the caller is on that thread or the thread cannot run."""
        if self._is_exiting or self.is_current or not self.ensure_running():
            job()
        else:
            self.add(job)
            self.ensure_running()  # a fork may have ended the thread before the job was in the queue

    def add(self, job: Callable[[], object]) -> None:
        """Queue a job for the thread."""
        self.jobs.append(job)
        self._wake()

    def finish(self, until: float) -> None:
        """Wait for all jobs, but not past ``until`` (`time.monotonic` time). From now on, `run` calls jobs directly."""
        self._is_exiting = True
        if self._has_work() or self.is_running:
            done = threading.Event()
            self.add(done.set)
            done.wait(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while not self.is_pausing:
            while self.jobs:
                self.jobs.popleft()()
                if self.is_pausing:
                    return
            self._wait()

    def _has_work(self) -> bool:
        return bool(self.jobs)


WRITER = WriterThread()
register(
    Stage.THREADS,
    before_fork=WRITER.pause,
    after_fork_in_parent=WRITER.resume,
    after_fork_in_child=WRITER.renew,
    at_exit=WRITER.finish,
)


class PendingWrites(ForkAware):
    """The snapshots that one store has queued. If several are waiting, only the newest and any new user are written."""

    __slots__ = ("_last", "_waiting", "_writing", "newest", "unsynced")

    newest: Snapshot | None
    """The most recently queued snapshot, or ``None`` if it was a new user that could not be written."""

    def renew(self) -> None:
        """Start over with an empty queue: the parent writes the snapshots that were queued before the fork."""
        self._waiting: deque[tuple[Callable[[], object], Future[None], bool]] = deque()
        """How to write each snapshot, its future, and whether it must be written even if newer ones are waiting."""
        self._writing = threading.RLock()
        """Held while writing: at the interpreter's exit, two threads may try to write."""
        self._last: Future[None] | None = None
        self.unsynced: deque[str] = deque()
        """Folders with new entries that the thread must make durable before it writes."""

    def add(
        self, lock: ProcessLock, snapshot: Snapshot, write: Callable[[], object], *, is_required: bool = False
    ) -> Future[None]:
        """Queue a snapshot and return its future. The lock, which the caller holds, is retained until the save is done.

        Raise `BlockingIOError` if too many other stores' lock files are already open.
        """
        self.renew_in_child()
        if not lock.is_retained and len(WRITER.retained) >= MAX_FILES:
            raise BlockingIOError(errno.EAGAIN, f"more than {MAX_FILES} files are waiting to be saved")
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # prevents cancellation
        job = partial(self._write_newest, lock)
        try:
            lock.retain()
            WRITER.retained.add(lock)
            self.newest = snapshot
            self._last = future
            self._waiting.append((write, future, is_required))
            WRITER.run(job)
        except BaseException:
            WRITER.run(job)  # an exception from outside may have interrupted the first try
            raise
        return future

    def replace_user(self, lock: ProcessLock, lease: Lease, snapshot: Snapshot, write: Callable[[], object]) -> None:
        """Queue a new user's snapshot behind all others and wait until it is durable; raise its error, if any."""
        self.renew_in_child()
        process, last = THIS_PROCESS.id, self._last
        if last is not None:
            wait_for(last, process)  # so that a failure here is not reported as a failure of that save
        future = lease.call(partial(self.add, is_required=True), lock, snapshot, write)
        wait_for(future, process)
        try:
            lease.call(future.result)
        except BaseException:
            if self.newest is snapshot:
                self.newest = None
            raise

    def wait(self) -> None:
        """Wait until the last queued snapshot is durable; raise its error, if any."""
        self.renew_in_child()
        process, last = THIS_PROCESS.id, self._last
        if last is not None and wait_for(last, process):
            last.result()

    def _write_newest(self, lock: ProcessLock) -> None:
        taken: list[tuple[Callable[[], object], Future[None], bool]] = []
        error: BaseException | None = None
        try:
            with self._writing:
                with contextlib.suppress(IndexError):
                    taken.extend(iter(self._waiting.popleft, None))  # no Python code runs in between, so none is lost
                # If nothing was taken, an earlier job wrote this job's snapshot or a newer one.
                for number, (write, _, is_required) in enumerate(taken, 1):
                    if is_required or number == len(taken):
                        self._write(lock, write)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, the futures must report it
            error = raised
        try:
            _complete([future for _, future, _ in taken], error)
        finally:
            self._release(lock)

    def _write(self, lock: ProcessLock, write: Callable[[], object]) -> None:
        with contextlib.suppress(IndexError):
            while True:
                lock.show_progress()
                sync_folder(self.unsynced.popleft())
        write()

    def _release(self, lock: ProcessLock) -> None:
        if not lock.release_retained(self._waiting):  # the thread that holds the lock may be waiting for another job
            WRITER.add(partial(self._release, lock))
        elif not lock.is_retained:
            WRITER.retained.discard(lock)


def _complete(futures: list[Future[None]], error: BaseException | None) -> None:
    """Set the result of each future, even if a callback of an earlier one raises `SystemExit`."""
    try:
        while futures:
            future = futures.pop(0)
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
    finally:
        if futures:
            _complete(futures, error)
