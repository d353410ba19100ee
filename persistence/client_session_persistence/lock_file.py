"""The lock of a save file: one thread of one process at a time, by a lock file.

Its descriptor is locked by the `filelock` package, whose `filelock.FileLock` itself does more than is needed here, and
takes half as long as a whole save.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import threading
import time
from typing import TYPE_CHECKING

from filelock import lock_descriptor, unlock_descriptor

from client_session_persistence.atomic_file import PRIVATE, SAFE_FLAGS
from client_session_persistence.deadline import seconds_left
from client_session_persistence.forks import THIS_PROCESS, ForkAware, Lease, Stage, register

if TYPE_CHECKING:
    from collections.abc import Generator, Sized

_OPEN = os.O_RDWR | SAFE_FLAGS
_MOMENT = 0.005
"""Seconds to wait for a lock before asking for it again."""

_locked: set[LockFile] = set()


class LockFile:
    """Created when first locked, and never removed, since removing it would let two in. Locks nest.

    Not thread-safe. On a file system without locks, it behaves as if there were no other process.
    """

    __slots__ = ("_depth", "_descriptor", "_lease", "_path")

    _lease: Lease
    """Granted before the descriptor is locked: void in a child that is forked in between."""

    def __init__(self, path: str) -> None:
        """Remember the path; nothing is created yet."""
        self._path = path
        self._descriptor: int | None = None
        self._depth = 0

    @property
    def is_locked(self) -> bool:
        """Whether this process has it locked, including when it could not be unlocked."""
        return self._descriptor is not None

    def lock(self, seconds: float) -> None:
        """Lock it, once more if it is locked already.

        Raise `TimeoutError` if another process had it locked all the time, `OSError` if it cannot be created, opened or
        locked.
        """
        if self._descriptor is None:
            begin, self._lease = time.monotonic(), Lease()
            while (descriptor := self._try()) is None:
                left = begin + seconds - time.monotonic()
                if left <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, "Another process holds the lock", self._path)
                time.sleep(min(left, _MOMENT))
            self._descriptor = descriptor
            _locked.add(self)
        self._depth += 1

    def unlock(self) -> None:
        """Undo one `lock`; a forked child, which shares what it inherits, only closes the descriptor.

        Raise `OSError` if it could not be unlocked; the next `unlock` tries again.
        """
        self._depth -= 1
        if self._depth <= 0 and self._descriptor is not None:
            with _ignore_missing_locks(errno.ECANCELED):
                self._lease.call(unlock_descriptor, self._descriptor)
            self.drop()

    def drop(self) -> None:
        """Close the descriptor; what a forked child inherits stays its parent's, and locked."""
        descriptor, self._descriptor, self._depth = self._descriptor, None, 0
        _locked.discard(self)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _try(self) -> int | None:
        descriptor, acquired = self._open(), False
        if descriptor is None:
            return None
        try:
            acquired = self._is_acquired(descriptor)
        finally:
            if not acquired:
                os.close(descriptor)
        return descriptor if acquired else None

    def _open(self) -> int | None:
        try:
            return os.open(self._path, _OPEN)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(self._path, _OPEN | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:  # another process has just created it, or it is a dangling link
            if os.path.islink(self._path):  # pragma: no cover - runs on Windows, which has no O_NOFOLLOW
                raise
            return None
        if hasattr(os, "fchmod"):  # pragma: no branch - false on Windows
            with contextlib.suppress(OSError):  # the umask may have removed more
                os.fchmod(descriptor, PRIVATE)
        return descriptor

    @staticmethod
    def _is_acquired(descriptor: int) -> bool:
        acquired = True
        with _ignore_missing_locks():
            acquired = lock_descriptor(descriptor, blocking=False)
        # A file that was removed in the meantime keeps nobody out.
        return acquired and os.fstat(descriptor).st_nlink > 0


@contextlib.contextmanager
def _ignore_missing_locks(*also: int) -> Generator[None]:
    """Ignore the errors of a file system without locks, and these."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, *also):
            raise


def _drop_all() -> None:
    for file in list(_locked):
        file.drop()


register(Stage.FILES, after_fork_in_child=_drop_all)


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
        self._leases = [lease for lease in self._leases if lease.thread == THIS_PROCESS.thread]
        self._is_retained = False

    @property
    def mine(self) -> Lease | None:
        """This thread's lease, if it has one. It is void in a child forked while it was held, until held anew."""
        self.renew_in_child()
        return next((lease for lease in reversed(self._leases) if lease.thread == threading.get_ident()), None)

    @property
    def is_retained(self) -> bool:
        """Whether this process keeps the file locked, though no thread may hold it."""
        self.renew_in_child()
        return self._is_retained

    def retain(self) -> None:
        """Keep the file locked against other processes after this thread leaves, until `release_retained`.

        Raise `OSError` if this process was forked while the lock was held, since the file is its parent's.
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

        Raise `TimeoutError` if it was not free in time, or the call interrupted this thread while it was locking;
        `OSError` if the lock file cannot be created or locked.
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
