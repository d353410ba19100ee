"""A lock file: locked by this process or another, by the `filelock` package's lock of a descriptor.

`filelock.FileLock` itself does more than is needed here, and takes as long for it as half of a save.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from filelock import lock_descriptor, unlock_descriptor

from client_session_persistence.atomic_file import CAREFULLY, PRIVATE
from client_session_persistence.forks import Hold

if TYPE_CHECKING:
    from collections.abc import Generator

_POLL_SECONDS = 0.005

_OPEN = os.O_RDWR | CAREFULLY

_locked: set[LockFile] = set()


class LockFile:
    """Made when first locked and never removed, since removing it would let two in. Locked as often as it is unlocked.

    Not thread-safe. Where a file system has no locks, it is as if nobody else were there.
    """

    __slots__ = ("_descriptor", "_hold", "_path", "_times")

    _hold: Hold
    """Begun before the descriptor is locked: in a child that is forked amid that, it is void."""

    def __init__(self, path: str) -> None:
        """Keep the path; nothing is made yet."""
        self._path = path
        self._descriptor: int | None = None
        self._times = 0

    @property
    def is_locked(self) -> bool:
        """Whether this process has it locked, also if it could not be unlocked."""
        return self._descriptor is not None

    def lock(self, seconds: float) -> None:
        """Lock it, once more if it is locked already.

        Raises:
            TimeoutError: another process had it locked all the time.
            OSError: it cannot be made, opened or locked.

        """
        if self._descriptor is None:
            begin, self._hold = time.monotonic(), Hold()
            while (descriptor := self._try()) is None:
                left = begin + seconds - time.monotonic()
                if left <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, "Another process holds the lock", self._path)
                time.sleep(min(left, _POLL_SECONDS))
            self._descriptor = descriptor
            _locked.add(self)
        self._times += 1

    def unlock(self) -> None:
        """Unlock it, if it was locked once; in a forked child, which shares what it inherits, only close it.

        Raises:
            OSError: it could not be unlocked; the next unlocking makes up for it.

        """
        self._times -= 1
        if self._times <= 0 and self._descriptor is not None:
            with _as_if_alone(errno.ECANCELED):
                self._hold.do(unlock_descriptor, self._descriptor)
            self.drop()

    def drop(self) -> None:
        """Close the descriptor; what a forked child inherits remains its parent's, and locked."""
        descriptor, self._descriptor, self._times = self._descriptor, None, 0
        _locked.discard(self)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _try(self) -> int | None:
        descriptor = self._open()
        if descriptor is None:
            return None
        try:
            if self._is_got(descriptor):
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
        except FileExistsError:  # made by another just now, or a link that leads nowhere
            if os.path.islink(self._path):
                raise
            return None
        if hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):  # the umask may have taken away more
                os.fchmod(descriptor, PRIVATE)
        return descriptor

    @staticmethod
    def _is_got(descriptor: int) -> bool:
        got = True
        with _as_if_alone():
            got = lock_descriptor(descriptor, blocking=False)
        # One that somebody removed meanwhile keeps nobody out.
        return got and os.fstat(descriptor).st_nlink > 0


@contextlib.contextmanager
def _as_if_alone(*also: int) -> Generator[None]:
    """Take no offence at a file system without locks, or at these errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, *also):
            raise


def _drop_all() -> None:
    for file in list(_locked):
        file.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all)
