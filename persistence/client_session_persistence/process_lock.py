"""The lock of a save file: one thread of one process at a time, by a lock file."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from typing import TYPE_CHECKING

from client_session_persistence.deadline import seconds_left
from client_session_persistence.forks import ForkAware, Lease
from client_session_persistence.lock_file import LockFile

if TYPE_CHECKING:
    from collections.abc import Generator, Sized

_MOMENT = 0.005
"""Seconds to wait for a lock that will be asked for again."""


class ProcessLock(ForkAware):
    """Waits within the call's deadline (`client_session_persistence.deadline`); its holder may enter again."""

    __slots__ = ("_acquiring", "_file", "_is_retained", "_leases", "_mutex", "_path", "_timed_out_at")

    def __init__(self, path: str) -> None:
        """Remember the lock file's path; nothing is created yet."""
        self._path = path
        self._timed_out_at = -math.inf
        """When a caller last waited in vain."""
        self._leases: list[Lease] = []
        """At most one that is not void, and those that a forked child has yet to return from."""
        super().__init__()

    def renew(self) -> None:
        """Begin unlocked: what a forked child inherits is its parent's."""
        self._mutex = threading.RLock()
        """Guards the lock file, whose descriptor belongs to the whole process."""
        self._file = LockFile(self._path)
        self._acquiring: int | None = None
        """The thread that is locking or unlocking the file at this moment."""
        self._leases = [lease for lease in self._leases if lease.is_inherited]
        self._is_retained = False

    @property
    def mine(self) -> Lease | None:
        """This thread's lease, if it has one. It is void in a child forked while it was held, until held anew."""
        self.renew_in_child()
        for lease in reversed(self._leases):
            if lease.is_mine:
                return lease
        return None

    @property
    def is_retained(self) -> bool:
        """Whether this process keeps the file locked, though no thread may hold it."""
        self.renew_in_child()
        return self._is_retained

    def retain(self) -> None:
        """Keep the file locked against other processes after this thread leaves, until `release_retained`.

        Raises:
            OSError: this process was forked while the lock was held, and the file is its parent's.

        """
        if not self.is_retained:
            file = self._file
            file.lock(0)  # once more than the thread that holds it
            if self._is_retained:  # a signal handler's call retained it in between
                file.unlock()
            self._is_retained = True

    def release_retained(self, waiting: Sized) -> bool:
        """Stop retaining the file, unless something waits to be written; any thread may call.

        Return whether that is done; else another thread holds the lock, and the caller must call again.
        """
        self.renew_in_child()
        mutex = self._mutex
        if not mutex.acquire(timeout=_MOMENT):
            return False
        try:
            if self._is_retained and not waiting:
                self._acquiring, self._is_retained = threading.get_ident(), False
                with contextlib.suppress(OSError):  # the next holder tries to unlock it again
                    self._file.unlock()
        finally:
            self._acquiring = None
            mutex.release()
        return True

    @contextlib.contextmanager
    def held(self, *, wait: bool = True, wait_for_processes: bool = True) -> Generator[Lease]:
        """Hold the lock in the block; without ``wait``, try once.

        Raises:
            TimeoutError: it was not free in time, or the call interrupted this thread while it was locking.
            OSError: the lock file cannot be created or locked.

        """
        self.renew_in_child()
        if self._acquiring == threading.get_ident():
            raise TimeoutError(errno.EDEADLK, "This thread is already acquiring the lock", self._path)
        lease, mutex, file = Lease(), self._mutex, self._file
        begin = time.monotonic()
        seconds = seconds_left(self._timed_out_at) if wait else 0.0
        if not mutex.acquire(timeout=seconds):
            self._timed_out_at = time.monotonic() if seconds else self._timed_out_at
            raise TimeoutError(errno.ETIMEDOUT, "Another thread holds the lock", self._path)
        try:
            self._acquiring = threading.get_ident()
            if not wait_for_processes:
                seconds = 0.0
            try:
                file.lock(max(0.0, begin + seconds - time.monotonic()))
                self._leases.append(lease)
            except TimeoutError:
                self._timed_out_at = time.monotonic() if seconds else self._timed_out_at
                raise
            finally:
                self._acquiring = None
            try:
                yield lease
            finally:
                self._leases.remove(lease)
                file.unlock()
        finally:
            mutex.release()
