"""Forked children: a lock that they inherit may be held by a thread that did not come along, or be their parent's."""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class _Process:
    """Which process this is; begins anew in each child, before that has threads.

    To compare its id calls nothing, so that nobody comes between that and the call that follows.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.id = os.getpid()
        self.thread = threading.get_ident()
        """The one that forked, which alone came along."""
        self.renewing = threading.RLock()


THIS_PROCESS = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THIS_PROCESS.begin)


class Hold:
    """A thread's hold of a lock between processes, and with it the leave to write.

    A child that was forked amid it, in a signal handler or a finalizer on that very thread, comes back into what its
    parent is doing; there the hold is void.
    """

    __slots__ = ("_process", "_thread")

    def __init__(self) -> None:
        """Begin in this thread of this process."""
        self._process = THIS_PROCESS.id
        self._thread = threading.get_ident()

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's, or was the one's that forked it."""
        return self._thread == threading.get_ident()

    @property
    def came_along(self) -> bool:
        """Whether this process was forked by the holder."""
        return self._thread == THIS_PROCESS.thread

    @property
    def is_void(self) -> bool:
        """Whether it is a parent's."""
        return self._process != THIS_PROCESS.id

    def do(self, call: Callable[[*Arguments], Result], /, *arguments: *Arguments) -> Result:
        """Make a system call that writes, unless this process was forked since.

        Raises:
            OSError: it was, and what is written is the parent's.

        """
        if self._process == THIS_PROCESS.id:
            return call(*arguments)  # nothing that the interpreter lets anybody come between stands before it
        raise OSError(errno.ECANCELED, "This process was forked amid it, and what is written is its parent's")


class ForkAware(ABC):
    """Something with locks that begins anew in each process that uses it."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        """Begin in this process."""
        self._process = THIS_PROCESS.id
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Make the locks, unlocked."""

    def renew_in_a_child(self) -> None:
        """Renew in the first call in a forked child, whichever of its threads makes it."""
        if self._process != THIS_PROCESS.id:
            with THIS_PROCESS.renewing:
                if self._process != THIS_PROCESS.id:
                    self.renew()
                    self._process = THIS_PROCESS.id
