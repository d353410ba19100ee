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


class _Guard:
    """What a thread holds to renew; made anew in each child, before it has threads."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.lock = threading.RLock()
        self.process = os.getpid()
        self.thread = threading.get_ident()
        """The thread that forked, which alone came along."""


_guard = _Guard()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guard.renew)


class Hold:
    """A thread's hold of a lock between processes, and with it the leave to write.

    A child that was forked amid it, in a signal handler or a finalizer on that very thread, comes back into what its
    parent is doing; there the hold is void.
    """

    __slots__ = ("_process", "_thread")

    def __init__(self) -> None:
        """Begin in this thread of this process."""
        self._process = _guard.process
        self._thread = threading.get_ident()

    @property
    def is_mine(self) -> bool:
        """Whether it is this thread's, or was the one's that forked it."""
        return self._thread == threading.get_ident()

    @property
    def came_along(self) -> bool:
        """Whether this process was forked by the holder."""
        return self._thread == _guard.thread

    @property
    def is_void(self) -> bool:
        """Whether it is a parent's."""
        return self._process != _guard.process

    def do(self, call: Callable[[*Arguments], Result], /, *arguments: *Arguments) -> Result:
        """Make a system call that writes, unless this process was forked since.

        Raises:
            OSError: it was, and what is written is the parent's.

        """
        if self._process == _guard.process:
            return call(*arguments)  # nothing that the interpreter lets anybody come between stands before it
        raise OSError(errno.ECANCELED, "This process was forked amid it, and what is written is its parent's")


class ForkAware(ABC):
    """Something with locks that begins anew in each process that uses it."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        """Begin in this process."""
        self._process = _guard.process
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Make the locks, unlocked."""

    def renew_in_a_child(self) -> None:
        """Renew in the first call in a forked child, whichever of its threads makes it."""
        if self._process != _guard.process:
            with _guard.lock:
                if self._process != _guard.process:
                    self.renew()
                    self._process = _guard.process
