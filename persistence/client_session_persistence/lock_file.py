"""The lock on a save file: a lock file that only one thread of one process can lock at a time.

The `filelock` package locks the file's descriptor. Its `filelock.FileLock` class is not used: it does more than is
needed here, and using it would take half as long as an entire save.
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

from client_session_persistence.atomic_file import SAFE_FLAGS, UNSUPPORTED, call_patiently, create_lock_file
from client_session_persistence.deadline import seconds_left
from client_session_persistence.forks import THIS_PROCESS, ForkAware, Lease, Stage, register

if TYPE_CHECKING:
    from collections.abc import Generator, Sized

_OPEN_FLAGS = os.O_RDWR | SAFE_FLAGS
_RETRY_SECONDS = 0.005
"""Seconds to wait before trying a lock again."""

_locked_files: set[LockFile] = set()


def count_locked_files() -> int:
    """Return how many lock files this process has locked, each of which uses a descriptor."""
    return len(_locked_files)


class LockFile:
    """A file that is created when first locked. It is never removed, or else two processes could lock it. Locks nest.

    Not thread-safe. On a file system without lock support, it behaves as if there were no other processes.
    """

    __slots__ = ("_depth", "_descriptor", "_guarded", "_lease", "_path")

    _lease: Lease
    """Granted before the descriptor is locked, so that it is void in any child forked later."""

    def __init__(self, path: str, guarded: str = "") -> None:
        """Store the paths of the lock file and of the file that it guards, if any; nothing is created yet."""
        self._path, self._guarded = path, guarded
        self._descriptor: int | None = None
        self._depth = 0

    @property
    def is_locked(self) -> bool:
        """Whether this process has the file locked, even if only because unlocking failed."""
        return self._descriptor is not None

    def lock(self, seconds: float) -> None:
        """Lock the file; if it is already locked, add a level of nesting.

        Raise `TimeoutError` if another process held the lock the whole time, and `OSError` if the file cannot be
        created, opened, or locked.
        """
        if self._descriptor is None:
            begin, self._lease = time.monotonic(), Lease()
            while (descriptor := self._try_lock()) is None:
                remaining = begin + seconds - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, "Another process holds the lock", self._path)
                time.sleep(min(remaining, _RETRY_SECONDS))
            self._descriptor = descriptor
            _locked_files.add(self)
        self._depth += 1

    def unlock(self) -> None:
        """Undo one call to `lock`. A forked child, which shares the lock with its parent, only closes its descriptor.

        Raise `OSError` if unlocking fails; the next `unlock` tries again.
        """
        self._depth -= 1
        if self._depth <= 0 and self._descriptor is not None:
            with _ignore_missing_locks(errno.ECANCELED):
                self._lease.call(unlock_descriptor, self._descriptor)
            self.drop()

    def drop(self) -> None:
        """Close the descriptor. In a forked child, this leaves the parent's lock in place."""
        descriptor, self._descriptor, self._depth = self._descriptor, None, 0
        _locked_files.discard(self)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _try_lock(self) -> int | None:
        descriptor, acquired = self._open(), False
        if descriptor is None:
            return None
        try:
            acquired = self._try_lock_descriptor(descriptor)
        finally:
            if not acquired:
                os.close(descriptor)
        return descriptor if acquired else None

    def _open(self) -> int | None:
        try:
            return call_patiently(lambda: os.open(self._path, _OPEN_FLAGS))
        except FileNotFoundError:
            pass
        try:
            return create_lock_file(self._path, _OPEN_FLAGS, self._guarded)
        except FileExistsError:  # another process has just created it, or it is a dangling symbolic link
            if os.path.islink(self._path):  # pragma: no cover - runs on Windows, which has no O_NOFOLLOW
                raise
            return None

    @staticmethod
    def _try_lock_descriptor(descriptor: int) -> bool:
        acquired = True
        with _ignore_missing_locks():
            acquired = lock_descriptor(descriptor, blocking=False)
        # A lock on a file that has since been removed does not keep other processes out.
        return acquired and os.fstat(descriptor).st_nlink > 0


@contextlib.contextmanager
def _ignore_missing_locks(*error_numbers: int) -> Generator[None]:
    """Ignore these error numbers and the ones with which a file system refuses locks (on NFS, ENOLCK)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, *error_numbers):
            raise


def _drop_all_locks() -> None:
    for file in list(_locked_files):
        file.drop()


register(Stage.FILES, after_fork_in_child=_drop_all_locks)


class ProcessLock(ForkAware):
    """A re-entrant lock that waits until the call's deadline (`client_session_persistence.deadline`)."""

    __slots__ = ("_acquiring", "_file", "_guarded", "_is_retained", "_leases", "_mutex", "_path", "_timed_out_at")

    def __init__(self, path: str, guarded: str = "") -> None:
        """Store the paths of the lock file and of the file that it guards, if any; nothing is created yet."""
        self._path, self._guarded = path, guarded
        self._timed_out_at = -math.inf
        """When a caller last timed out waiting for the lock."""
        self._leases: list[Lease] = []
        """At most one valid lease and, in a forked child, the void leases of blocks that the child has not left yet."""
        super().__init__()

    def renew(self) -> None:
        """Start over unlocked: a lock that a forked child inherits belongs to its parent."""
        self._mutex = threading.RLock()
        """Guards the lock file, whose descriptor is shared by the whole process."""
        self._file = LockFile(self._path, self._guarded)
        self._acquiring: int | None = None
        """The thread that is currently locking or unlocking the file."""
        self._leases = [lease for lease in self._leases if lease.thread == THIS_PROCESS.thread]
        self._is_retained = False

    @property
    def own_lease(self) -> Lease | None:
        """This thread's lease, if any. In a forked child, an inherited lease is void until the child locks again."""
        self.renew_in_child()
        return next((lease for lease in reversed(self._leases) if lease.thread == threading.get_ident()), None)

    @property
    def is_retained(self) -> bool:
        """Whether this process keeps the file locked even while no thread holds the lock."""
        self.renew_in_child()
        return self._is_retained

    def retain(self) -> None:
        """Keep other processes out after this thread releases the lock, until `release_retained` is called.

        Raise `OSError` if this process was forked while the lock was held, since the lock belongs to its parent.
        """
        if not self.is_retained:
            file = self._file
            file.lock(0)  # nested within the lock that this thread holds
            if self._is_retained:  # a signal handler has retained it in the meantime
                file.unlock()
            self._is_retained = True

    def release_retained(self, waiting: Sized) -> bool:
        """Stop retaining the lock unless something is waiting to be written. Any thread may call this.

        Return False if another thread holds the lock, so that the caller must try again. Otherwise, return True.
        """
        self.renew_in_child()
        mutex = self._mutex
        if not mutex.acquire(timeout=_RETRY_SECONDS):
            return False
        try:
            if self._is_retained and not waiting:
                self._acquiring, self._is_retained = threading.get_ident(), False
                with contextlib.suppress(OSError):  # the next holder will retry
                    self._file.unlock()
        finally:
            self._acquiring = None
            mutex.release()
        return True

    @contextlib.contextmanager
    def held(self, *, wait: bool = True, wait_for_processes: bool = True) -> Generator[Lease]:
        """Hold the lock during the block; without ``wait``, try to acquire it only once.

        Raise `TimeoutError` if the lock could not be acquired in time, or if this thread is already acquiring it;
        raise `OSError` if the lock file cannot be created or locked.
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
