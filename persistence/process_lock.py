"""The lock of a save file: one thread of one process at a time, by a lock file and the `filelock` package."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING

from filelock import FileLock

from persistence.durable import PRIVATE
from persistence.forks import ForkAware
from persistence.waiting import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_POLL_SECONDS = 0.005

_files: weakref.WeakValueDictionary[int, FileLock] = weakref.WeakValueDictionary()


def _is_of_another(record: logging.LogRecord) -> bool:
    # filelock logs each acquisition at level DEBUG, and our caller holds its session's lock meanwhile: a deadlock if a
    # handler of the host's calls the session on another thread. Other locks log as ever.
    return not (isinstance(record.args, tuple) and record.args and record.args[0] in _files)


logging.getLogger("filelock").addFilter(_is_of_another)


class ProcessLock(ForkAware):
    """Waits for at most a second (`persistence.waiting`); a thread that holds it may enter again.

    The lock file is made when first needed and never removed, since removing it would let two in.
    """

    __slots__ = ("_file", "_given_up", "_holder", "_kept", "_path", "_turn")

    def __init__(self, path: str) -> None:
        """Keep the lock file's path; nothing is made yet."""
        self._path = path
        self._given_up = -math.inf
        """When somebody last waited in vain."""
        super().__init__()

    def renew(self) -> None:
        """Begin unlocked: what a forked child inherits is its parent's."""
        self._turn = threading.RLock()
        """What a thread holds to get at the lock file, whose descriptor is the whole process's."""
        self._file: FileLock | None = None
        self._holder: int | None = None
        """The thread that has locked the file."""
        self._kept = False

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds it."""
        self.renew_in_a_child()
        return self._holder == threading.get_ident()

    @property
    def is_kept(self) -> bool:
        """Whether this process keeps the file locked, though no thread may hold it."""
        self.renew_in_a_child()
        return self._kept

    def keep(self) -> None:
        """Keep the file locked beyond the block, against other processes: until `let_go`."""
        self._kept = True

    def let_go(self, is_needed: Callable[[], bool]) -> bool:
        """Keep the file locked no more, if that is not needed; whichever thread calls.

        Return whether that is settled; else it is another thread's turn, and this one is to call again.
        """
        if not self._turn.acquire(timeout=_POLL_SECONDS):
            return False
        try:
            was_kept, self._kept = self._kept, False
            if is_needed():  # asked last, so that it holds whoever came between
                self._kept = True
            elif was_kept and self._holder is None:
                self._lock_file().release()
        finally:
            self._turn.release()
        return True

    @contextlib.contextmanager
    def held(self, *, wait: bool = True, wait_for_processes: bool = True) -> Generator[None]:
        """Hold it in the block; where it need not be waited for, try once.

        Raises:
            TimeoutError: it was not free in time.
            OSError: the lock file cannot be made or locked.

        """
        self.renew_in_a_child()
        begin = time.monotonic()
        seconds = seconds_left(self._given_up) if wait else 0.0
        if not self._turn.acquire(timeout=seconds):
            self._given_up = time.monotonic() if seconds else self._given_up
            raise TimeoutError(errno.ETIMEDOUT, "Another thread holds the lock", self._path)
        try:
            if self._holder is not None:
                yield
                return
            file = self._lock_file()
            if not self._kept:
                seconds = seconds if wait_for_processes else 0.0
                file.release(force=True)  # does nothing, unless unlocking failed the last time
                try:
                    file.acquire(timeout=max(0.0, begin + seconds - time.monotonic()))
                except TimeoutError:
                    self._given_up = time.monotonic() if seconds else self._given_up
                    raise
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None
                if not self._kept:
                    file.release()
        finally:
            self._turn.release()

    def _lock_file(self) -> FileLock:
        if self._file is None:
            self._file = FileLock(self._path, mode=PRIVATE, poll_interval=_POLL_SECONDS, thread_local=False)
            _files[id(self._file)] = self._file
        return self._file
