"""A lock file: locked by this process or another, by the `filelock` package's lock of a descriptor.

`filelock.FileLock` itself does more than is needed here, and takes half as long as a whole save.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from filelock import lock_descriptor, unlock_descriptor

from client_session_persistence.atomic_file import PRIVATE, SAFE_FLAGS
from client_session_persistence.forks import Lease, Stage, register

if TYPE_CHECKING:
    from collections.abc import Generator

_POLL_SECONDS = 0.005

_OPEN = os.O_RDWR | SAFE_FLAGS

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

        Raises:
            TimeoutError: another process had it locked all the time.
            OSError: it cannot be created, opened or locked.

        """
        if self._descriptor is None:
            begin, self._lease = time.monotonic(), Lease()
            while (descriptor := self._try()) is None:
                left = begin + seconds - time.monotonic()
                if left <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, "Another process holds the lock", self._path)
                time.sleep(min(left, _POLL_SECONDS))
            self._descriptor = descriptor
            _locked.add(self)
        self._depth += 1

    def unlock(self) -> None:
        """Undo one `lock`; a forked child, which shares what it inherits, only closes the descriptor.

        Raises:
            OSError: it could not be unlocked; the next `unlock` tries again.

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
        descriptor = self._open()
        if descriptor is None:
            return None
        try:
            if self._is_acquired(descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

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
