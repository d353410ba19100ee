"""The lock on a save file: a lock file that only one thread of one process can lock at a time.

The `filelock` package locks the file's descriptor. Its `filelock.FileLock` class is not used: it does more than is
needed here, and using it would take half as long as an entire save.

The lock file also holds a record that shows waiting processes whether the lock changes hands, and whose turn is next.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import struct
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from filelock import lock_descriptor, unlock_descriptor

from client_session_persistence.atomic_file import SAFE_FLAGS, UNSUPPORTED, call_patiently, create_lock_file, read_at
from client_session_persistence.contexts import Finalizer, SafeContext, close_all, open_into
from client_session_persistence.deadline import LOCK_SECONDS, MAX_LOCK_SECONDS, Wait, is_held
from client_session_persistence.forks import THIS_PROCESS, ForkAware, Lease, Stage, register

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sized

_OPEN_FLAGS = os.O_RDWR | SAFE_FLAGS
_RETRY_SECONDS = 0.005
"""Seconds to wait before trying a lock again."""
_RETRY_SECONDS_IN_LINE = 0.02
"""The same for a process that lets another go first."""
_MUTEX_SECONDS = 0.05
"""Seconds to wait for another thread before checking whether the lock has changed hands."""

_TIME, _RECORD = struct.Struct("<Q"), struct.Struct("<QQ")
_STAMP, _TURN = 1, 1 + _TIME.size
"""Where the record's two times begin (Windows locks byte 0): the time when the lock changed hands or its holder last
made progress, and the time since which the next process has been waiting, in nanoseconds of `time.monotonic`."""
_SIZE = _STAMP + _RECORD.size

_open_files: dict[int, list[int]] = {}
"""The descriptors of each lock file that may be open, which a forked child must close. The keys are the lists' ids."""


class LockFile:
    """A file that is created when first locked. It is never removed: otherwise, two processes could lock it at once.

    Not thread-safe. On a file system without lock support, it behaves as if there were no other processes.
    """

    __slots__ = (
        "_descriptors", "_finalizer", "_guarded", "_lease", "_passed", "_path", "_record", "changed_at", "stamp",
    )  # fmt: skip

    _lease: Lease
    """Granted before the descriptor is locked, so that it is void in any child forked later."""

    def __init__(self, path: str, guarded: str = "") -> None:
        """Store the paths of the lock file and of the file that it guards, if any; nothing is created yet."""
        self._path, self._guarded = path, guarded
        self._descriptors: list[int] = []
        """The open descriptor, if any. No descriptor is ever outside this list, even if an exception arrives."""
        self._finalizer = Finalizer(partial(_close, self._descriptors))
        """Closes the descriptor if this object is deallocated while it is open."""
        self._record: int | None = None
        """The descriptor of the record, if the file may hold one."""
        self.stamp = 0
        """The stamp that was last read or written: when the lock changed hands, or 0 (see `_STAMP`)."""
        self._passed = 0
        """The last turn that this process waited for although the file was free."""
        self.changed_at = -math.inf
        """When this object last saw the lock change hands, or its holder make progress (`time.monotonic`)."""

    @property
    def is_locked(self) -> bool:
        """Whether this process has the file locked, even if only because unlocking failed."""
        return bool(self._descriptors)

    def lock(self, seconds_left: Callable[[], float]) -> None:
        """Lock the file unless it is locked already. Processes that began to wait earlier go first.

        Raise `TimeoutError` if other processes held the lock until ``seconds_left()`` was 0.0, and `OSError` if the
        file cannot be created, opened, or locked, or if this process was forked meanwhile.
        """
        if self._descriptors:
            return
        self._lease = Lease()
        since = time.monotonic_ns() if seconds_left() else 0
        is_done = False
        try:
            while (pause := self._try_lock(since)) is not None and (seconds := seconds_left()):
                time.sleep(min(seconds, pause))
            is_done = True
        finally:
            if not is_done:
                self.drop()
        if not self._descriptors and self._lease.is_void:
            raise OSError(errno.ECANCELED, "Forked while locking the file; the parent completes it", self._path)
        if not self._descriptors:
            raise TimeoutError(errno.ETIMEDOUT, "Another process holds the lock", self._path)

    def show_progress(self) -> None:
        """Show waiting processes that the holder is making progress."""
        self._write(_STAMP, self._new_stamp())

    def erase_stamp(self) -> None:
        """Show other processes that the lock is about to be released."""
        self._write(_STAMP, 0)

    def unlock(self) -> None:
        """Unlock the file if it is locked. A forked child, which shares the lock with its parent, only closes it.

        Raise `OSError` if unlocking fails; the next `unlock` tries again.
        """
        for descriptor in self._descriptors:
            with _ignore_missing_locks(errno.ECANCELED):
                self._lease.call(unlock_descriptor, descriptor)
        self.drop()

    def drop(self) -> None:
        """Close the descriptor. In a forked child, this leaves the parent's lock in place."""
        _close(self._descriptors)
        self._finalizer.closed = True

    def _try_lock(self, since: int) -> float | None:
        """Try to lock the file; if that fails, return how many seconds to pause before the next try.

        ``since`` is when this process began to wait, or 0 if it does not wait.
        """
        self._open()
        descriptor = next(iter(self._descriptors), None)
        if descriptor is None:
            return _RETRY_SECONDS
        is_free = self._try_lock_descriptor(descriptor)
        file_stat = self._lease.call(os.fstat, descriptor)
        # Anything else could be another user's link to a file that must not be changed.
        is_ours = stat.S_ISREG(file_stat.st_mode) and file_stat.st_nlink == 1 and file_stat.st_size in (0, _SIZE)
        self._record = descriptor if is_ours else None
        turn = self._read_record()
        is_in_line = 0 < turn < since
        # A lock on a file that has been removed does not keep other processes out.
        if is_free and file_stat.st_nlink and (not is_in_line or turn == self._passed):
            self._write(_STAMP, self._new_stamp(), 0)
            return None
        if not is_in_line and since and not is_free:
            self._write(_TURN, since)
        if is_in_line and is_free:
            self._passed = turn  # if its process exists, it locks the file during the pause
        self.drop()
        return _RETRY_SECONDS_IN_LINE if is_in_line else _RETRY_SECONDS

    def _read_record(self) -> int:
        """Note whether the lock has changed hands. Return when the next process began to wait, or 0."""
        data = b""
        if self._record is not None:
            with contextlib.suppress(OSError):
                data = read_at(self._record, _RECORD.size, _STAMP)
        stamp: int
        turn: int
        stamp, turn = _RECORD.unpack(data) if len(data) == _RECORD.size else (0, 0)
        if stamp != self.stamp:
            self.stamp, self.changed_at = stamp, time.monotonic()
        return turn

    def _new_stamp(self) -> int:
        self.stamp = stamp = time.monotonic_ns()
        self.changed_at = stamp / 1e9
        return stamp

    def _write(self, offset: int, *times: int) -> None:
        """Write to the record. The lock works without it, for example on a full disk."""
        if self._record in self._descriptors:
            with contextlib.suppress(OSError):
                self._lease.call(_pwrite, self._record, b"".join(map(_TIME.pack, times)), offset)

    def _open(self) -> None:
        """Open the file, or create it. Without an error, another process may have created it in the meantime."""
        self._finalizer.closed = False
        _open_files[id(self._descriptors)] = self._descriptors
        with contextlib.suppress(FileNotFoundError):
            call_patiently(lambda: open_into(self._descriptors, self._path, _OPEN_FLAGS))
            return
        try:
            create_lock_file(self._descriptors, self._path, _OPEN_FLAGS, self._guarded)
        except FileExistsError:  # another process has just created it, or it is a dangling symbolic link
            if os.path.islink(self._path):  # pragma: no cover - runs on Windows, which has no O_NOFOLLOW
                raise

    @staticmethod
    def _try_lock_descriptor(descriptor: int) -> bool:
        with _ignore_missing_locks():
            return lock_descriptor(descriptor, blocking=False)
        return True


class OwnerLock:
    """The lock on a saved session. The owner holds it from construction to close; forked children do not inherit it."""

    __slots__ = ("_file",)

    def __init__(self, path: str, guarded: str = "") -> None:
        """Store the paths of the lock file and of the file that it guards, if any; nothing is created yet."""
        self._file = LockFile(path, guarded)

    def own(self) -> bool:
        """Try to become the owner; return whether this succeeded.

        The present owner may be a short run, so this waits until it has been the owner for 1 s, but at most 10 s.
        Raise `OSError` if the file cannot be created, opened, or locked.
        """
        file, begin = self._file, time.monotonic()

        def seconds_left() -> float:
            # An owner writes its stamp right after it has locked the file, and erases it before it unlocks it.
            now, owned_since = time.monotonic(), file.stamp / 1e9
            if not 0 < owned_since <= now:  # there is no stamp, or it is from another machine
                owned_since = max(begin, file.changed_at)
            return max(0.0, min(begin + MAX_LOCK_SECONDS, owned_since + LOCK_SECONDS) - now)

        try:
            file.lock(seconds_left)
        except TimeoutError as error:
            if error.errno != errno.ETIMEDOUT:  # a signal handler has raised it
                raise
            return False
        return True

    def release(self) -> None:
        """Let another run become the owner."""
        self._file.erase_stamp()
        self._file.unlock()


@contextlib.contextmanager
def _ignore_missing_locks(*error_numbers: int) -> Generator[None]:
    """Ignore these error numbers and the ones with which a file system refuses locks (on NFS, ENOLCK)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, *error_numbers):
            raise


def _pwrite(descriptor: int, data: bytes, offset: int) -> None:
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, data, offset)
    else:  # pragma: no cover - runs on Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)


def _close(descriptors: list[int]) -> None:
    close_all(descriptors)
    _open_files.pop(id(descriptors), None)


def _close_all_files() -> None:
    for descriptors in list(_open_files.values()):
        close_all(descriptors)


register(Stage.FILES, after_fork_in_child=_close_all_files)


class ProcessLock(ForkAware):
    """A re-entrant lock that waits as long as `client_session_persistence.deadline` allows."""

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
        for lease in reversed(self._leases):
            if lease.thread == threading.get_ident():
                return lease
        return None

    @property
    def is_retained(self) -> bool:
        """Whether this process keeps the file locked even while no thread holds the lock."""
        self.renew_in_child()
        return self._is_retained

    def show_progress(self) -> None:
        """Show waiting processes that this process, which holds the lock, is making progress."""
        self._file.show_progress()

    def retain(self) -> None:
        """Keep other processes out after this thread releases the lock, until `release_retained` is called.

        Raise `OSError` if this process was forked while the lock was held, since the lock belongs to its parent.
        """
        self.renew_in_child()
        if not self._file.is_locked:
            raise OSError(errno.ECANCELED, "Forked during the write; the parent completes it", self._path)
        self._is_retained = True

    def release_retained(self, waiting: Sized) -> bool:
        """Stop retaining the lock unless something is waiting to be written. Any thread may call this.

        Return False if another thread holds the lock, so that the caller must try again. Otherwise, return True.
        """
        self.renew_in_child()
        if is_held(self._mutex):  # the block that this thread is in unlocks the file
            self._is_retained = self._is_retained and bool(waiting)
            return True
        hold = self.new_hold()
        acquire_mutex = partial(hold.mutex.acquire, timeout=_RETRY_SECONDS)
        with contextlib.suppress(OSError), SafeContext(acquire_mutex, partial(self.release, hold)) as is_acquired:
            if not is_acquired:
                return False
            self._is_retained = self._is_retained and bool(waiting)
        return True  # even if unlocking has failed: the next holder unlocks the file

    def held(self, *, wait: bool = True) -> SafeContext[Lease]:
        """Return a context manager that holds the lock during its block; see `acquire`."""
        hold = self.new_hold()
        return SafeContext(partial(self.acquire, hold, wait=wait), partial(self.release, hold))

    def new_hold(self) -> Hold:
        """Return what `acquire` and `release` need."""
        self.renew_in_child()
        return Hold(self._mutex, self._file)

    def acquire(self, hold: Hold, *, wait: bool = True) -> Lease:
        """Acquire the lock; without ``wait``, try only once. Call `release` whether or not this succeeds.

        Raise `TimeoutError` if the lock could not be acquired in time, or if this thread is already acquiring it;
        raise `OSError` if the lock file cannot be created or locked.
        """
        lease, waiting = hold.lease, Wait() if wait else None
        if self._acquiring == lease.thread:
            hold.is_released = True  # the outer call releases what it acquires
            raise TimeoutError(errno.EDEADLK, "This thread is already acquiring the lock", self._path)

        def seconds_left() -> float:
            return 0.0 if waiting is None else waiting.seconds_left(hold.file.changed_at, self._timed_out_at)

        may_wait = seconds_left() > 0
        try:
            self._acquire_mutex(hold.mutex, seconds_left)
            self._acquiring = lease.thread
            hold.file.lock(seconds_left)
            self._leases.append(lease)
        except TimeoutError:
            if may_wait:
                self._timed_out_at = time.monotonic()
            raise
        finally:
            if self._acquiring == lease.thread:  # nothing is called here, so no exception from outside can arrive
                self._acquiring = None
        return lease

    def _acquire_mutex(self, mutex: threading.RLock, seconds_left: Callable[[], float]) -> None:
        while not mutex.acquire(timeout=min(_MUTEX_SECONDS, seconds_left())):
            if not seconds_left():
                raise TimeoutError(errno.ETIMEDOUT, "Another thread holds the lock", self._path)

    def release(self, hold: Hold) -> None:
        """Release the lock, if this thread has acquired it. If this was interrupted, call it again.

        Raise `OSError` if the file could not be unlocked; the next holder unlocks it.
        """
        if hold.is_released or not is_held(hold.mutex):
            return
        if hold.lease in self._leases:
            self._leases.remove(hold.lease)
        hold.releases += 1
        try:
            if not self.is_retained:  # in a forked child, the parent may retain the lock
                hold.file.unlock()
        except BaseException:
            if hold.releases == 1:
                raise
        while hold.is_outermost and is_held(hold.mutex):
            hold.mutex.release()
        hold.is_released = True


class Hold:
    """One thread's hold on a `ProcessLock`, from before it is acquired until after it is released."""

    __slots__ = ("file", "is_outermost", "is_released", "lease", "mutex", "releases")

    def __init__(self, mutex: threading.RLock, file: LockFile) -> None:
        """Store what is acquired. In a forked child, it remains the parent's."""
        self.mutex, self.file, self.lease = mutex, file, Lease()
        self.is_outermost = not is_held(mutex)
        """False if an outer call on this thread was interrupted while it acquired or released the lock."""
        self.releases = 0
        self.is_released = False
