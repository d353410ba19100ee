"""The lock of a save file: one thread of one process at a time, by a lock file."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from typing import TYPE_CHECKING

from persistence.forks import ForkAware, Hold
from persistence.lock_file import LockFile
from persistence.waiting import seconds_left

if TYPE_CHECKING:
    from collections.abc import Generator


class ProcessLock(ForkAware):
    """Waits for at most a second (`persistence.waiting`); a thread that holds it may enter again."""

    __slots__ = ("_file", "_given_up", "_holds", "_locking", "_path", "_turn")

    def __init__(self, path: str) -> None:
        """Keep the lock file's path; nothing is made yet."""
        self._path = path
        self._given_up = -math.inf
        """When somebody last waited in vain."""
        self._holds: list[Hold] = []
        """At most one that is not void, and those that a forked child has yet to come out of."""
        super().__init__()

    def renew(self) -> None:
        """Begin unlocked: what a forked child inherits is its parent's."""
        self._turn = threading.RLock()
        """What a thread holds to get at the lock file, whose descriptor is the whole process's."""
        self._file = LockFile(self._path)
        self._locking: int | None = None
        """The thread that is about to lock the file."""
        self._holds = [hold for hold in self._holds if hold.came_along]

    @property
    def mine(self) -> Hold | None:
        """This thread's hold, if it has one. It is void in a child that was forked amid it, until held anew."""
        self.renew_in_a_child()
        for hold in reversed(self._holds):
            if hold.is_mine:
                return hold
        return None

    @contextlib.contextmanager
    def held(self, *, wait: bool = True) -> Generator[Hold]:
        """Hold it in the block.

        Raises:
            TimeoutError: it was not free in time; or this call came between another one's locking, on the same thread.
            OSError: the lock file cannot be made or locked.

        """
        mine = self.mine
        if mine is not None and not mine.is_void:
            yield mine
            return
        if self._locking == threading.get_ident():
            raise TimeoutError(errno.EDEADLK, "A call further up is this thread's, and about to lock", self._path)
        hold, turn, file = Hold(), self._turn, self._file
        begin = time.monotonic()
        seconds = seconds_left(self._given_up) if wait else 0.0
        if not turn.acquire(timeout=seconds):
            self._given_up = time.monotonic() if seconds else self._given_up
            raise TimeoutError(errno.ETIMEDOUT, "Another thread holds the lock", self._path)
        try:
            self._locking = threading.get_ident()
            try:
                if file.is_locked:  # unlocking failed the last time
                    file.unlock_wholly()
                file.lock(max(0.0, begin + seconds - time.monotonic()))
                self._holds.append(hold)
            except TimeoutError:
                self._given_up = time.monotonic() if seconds else self._given_up
                raise
            finally:
                self._locking = None
            try:
                yield hold
            finally:
                self._holds.remove(hold)
                file.unlock()
        finally:
            turn.release()
