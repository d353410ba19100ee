"""Fork and exit handling: one ordered registry of hooks, and the state that a forked child must renew."""

from __future__ import annotations

import atexit
import bisect
import enum
import errno
import os
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

FORK_SECONDS = 1.0
"""How long a fork waits for our threads to pause."""
EXIT_SECONDS = 2.0
"""How long the interpreter waits at exit for sessions to be saved."""


class Stage(enum.IntEnum):
    """The order in which hooks run: ascending in a forked child, descending before a fork and at exit."""

    PROCESS = 0
    FILES = 1
    THREADS = 2
    SESSIONS = 3
    LOOPS = 4


class Hooks(TypedDict, total=False):
    """Functions to call at forks and exit. The argument, if any, is the `time.monotonic` time by which to return."""

    before_fork: Callable[[float], object]
    after_fork_in_parent: Callable[[], object]
    after_fork_in_child: Callable[[], object]
    at_exit: Callable[[float], object]


_registry: list[tuple[Stage, Hooks]] = []


def register(stage: Stage, **hooks: Unpack[Hooks]) -> None:
    """Call these hooks at each fork and when the interpreter exits."""
    bisect.insort(_registry, (stage, hooks), key=lambda registered: registered[0])


def _run(hooks: Iterable[tuple[Stage, Hooks]], when: str, *until: float) -> None:
    for _, callables in hooks:
        hook: Any = callables.get(when)
        if hook is not None:
            hook(*until)


atexit.register(lambda: _run(reversed(_registry), "at_exit", time.monotonic() + EXIT_SECONDS))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _run(reversed(_registry), "before_fork", time.monotonic() + FORK_SECONDS),
        after_in_parent=lambda: _run(_registry, "after_fork_in_parent"),
        after_in_child=lambda: _run(_registry, "after_fork_in_child"),
    )


class _Process:
    """The identity of this process, renewed in each forked child before the child starts any other threads.

    Comparing ``id`` does not call a function, so no code can run between the comparison and the call that follows.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.id = os.getpid()
        self.thread = threading.get_ident()
        """The thread that forked, which is the only thread that the child inherits."""
        self.renewing = threading.RLock()


THIS_PROCESS = _Process()
register(Stage.PROCESS, after_fork_in_child=THIS_PROCESS.renew)


class Lease:
    """A thread's right to write while it holds a lock that processes share.

    If a signal handler or a finalizer on the same thread forks during the write, the child later returns to the code
    that was writing; in the child, the lease is void.
    """

    __slots__ = ("_process", "thread")

    def __init__(self) -> None:
        """Grant the lease to this thread of this process."""
        self._process = THIS_PROCESS.id
        self.thread = threading.get_ident()
        """The identifier of the thread that holds the lease; it stays the same in a forked child."""

    @property
    def is_void(self) -> bool:
        """Whether the lease belongs to a parent process."""
        return self._process != THIS_PROCESS.id

    def call(self, function: Callable[[*Arguments], Result], /, *arguments: *Arguments) -> Result:
        """Make a system call that writes; raise `OSError` if the lease is void and the parent completes it."""
        if self._process == THIS_PROCESS.id:
            return function(*arguments)  # no other code can run between the check and this call
        raise OSError(errno.ECANCELED, "Forked during the write; the parent completes it")


class ForkAware(ABC):
    """An object that renews its locks in each process that uses it."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        """Create the locks for this process."""
        self._process = THIS_PROCESS.id
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Create new, unlocked locks: another thread of the parent may have held the inherited ones."""

    def renew_in_child(self) -> None:
        """In a forked child, renew on the first call, whichever thread makes it."""
        if self._process != THIS_PROCESS.id:
            with THIS_PROCESS.renewing:
                if self._process != THIS_PROCESS.id:
                    self.renew()
                    self._process = THIS_PROCESS.id
