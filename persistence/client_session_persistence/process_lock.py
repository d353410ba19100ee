"""The lock of a save file: one thread of one process at a time, by a lock file."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from typing import TYPE_CHECKING

from client_session_persistence.deadline import seconds_left
from client_session_persistence.forks import ForkAware, Hold
from client_session_persistence.lock_file import LockFile

if TYPE_CHECKING:
    from collections.abc import Generator, Sized

_MOMENT = 0.005
"""How long to wait, in seconds, for what will be asked for again."""


class ProcessLock(ForkAware):
    """Waits for at most a second (`client_session_persistence.deadline`); a thread that holds it may enter again."""

    __slots__ = ("_file", "_given_up", "_holds", "_kept", "_locking", "_path", "_turn")

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
        """The thread that is about to lock the file, or to keep it locked no more."""
        self._holds = [hold for hold in self._holds if hold.came_along]
        self._kept = False

    @property
    def mine(self) -> Hold | None:
        """This thread's hold, if it has one. It is void in a child that was forked amid it, until held anew."""
        self.renew_in_a_child()
        for hold in reversed(self._holds):
            if hold.is_mine:
                return hold
        return None

    @property
    def is_kept(self) -> bool:
        """Whether this process keeps the file locked, though no thread may hold it."""
        self.renew_in_a_child()
        return self._kept

    def keep(self) -> None:
        """Keep the file locked beyond this thread's hold, against other processes: until `let_go`.

        Raises:
            OSError: this process was forked amid the hold, and the file is its parent's.

        """
        if not self.is_kept:
            file = self._file
            file.lock(0)  # once more than the hold
            if self._kept:  # by a signal handler's call that came between
                file.unlock()
            self._kept = True

    def let_go(self, waiting: Sized) -> bool:
        """Keep the file locked no more, unless something is waiting to be written; whichever thread calls.

        Return whether that is settled; else it is another thread's turn, and this one is to call again.
        """
        self.renew_in_a_child()
        turn = self._turn
        if not turn.acquire(timeout=_MOMENT):
            return False
        try:
            if self._kept and not waiting:
                self._locking, self._kept = threading.get_ident(), False
                with contextlib.suppress(OSError):  # who locks it next tries to unlock it again
                    self._file.unlock()
        finally:
            self._locking = None
            turn.release()
        return True

    @contextlib.contextmanager
    def held(self, *, wait: bool = True, wait_for_processes: bool = True) -> Generator[Hold]:
        """Hold it in the block; where it need not be waited for, try once.

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
            if not wait_for_processes:
                seconds = 0.0
            try:
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
