"""Fork and exit handling: one ordered registry of hooks, and the state that a forked child must renew.

Some programs fork in C code, without Python's fork hooks; uWSGI does. `notice_fork` then runs the hooks late, at the
child's first call to any of our objects. It costs almost nothing in other processes: the kernel clears a page of memory
in each forked child, and reading that page shows whether the hooks have run.
"""

from __future__ import annotations

import atexit
import bisect
import contextlib
import datetime as dt
import enum
import errno
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from mmap import mmap

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

FORK_SECONDS = 1.0
"""How long a fork waits for our threads to pause."""
EXIT_SECONDS = 2.0
"""How long the interpreter waits at exit for sessions to be saved."""
_CHECK_SECONDS = 0.05
"""Seconds to wait for a future before checking whether this process was forked meanwhile."""


_DATETIME = (dt, sys.modules.get("_datetime"))
"""Kept until our last finalizer has run: without its C module, datetime crashes Python 3.13 and fails in 3.14."""


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
    """Call these hooks at each fork and when the interpreter exits (now, if it has called the other hooks already)."""
    bisect.insort(_registry, (stage, hooks), key=lambda registered: registered[0])
    if THIS_PROCESS.has_exited:
        _run([(stage, hooks)], "at_exit", time.monotonic())


def _run(hooks: Iterable[tuple[Stage, Hooks]], when: str, *until: float) -> None:
    for _, callables in hooks:
        hook: Any = callables.get(when)
        if hook is not None:
            hook(*until)


def _before_fork() -> None:
    notice_fork()
    _run(reversed(_registry), "before_fork", time.monotonic() + FORK_SECONDS)


def _at_exit() -> None:
    notice_fork()
    _run(reversed(_registry), "at_exit", time.monotonic() + EXIT_SECONDS)
    THIS_PROCESS.has_exited = True


class _Process:
    """The identity of this process, renewed in each forked child before the child starts any other threads.

    Comparing ``id`` does not call a function, so no code can run between the comparison and the call that follows.
    """

    def __init__(self) -> None:
        self.renewals: dict[int, threading.RLock] = {}
        """For each process id, a lock to hold while the hooks of that child run. An inherited lock may be held."""
        self.renewing_id = 0
        """The process whose hooks are running."""
        self.has_exited = False
        """Whether the hooks for the interpreter's exit have run."""
        self.renew()

    def renew(self) -> None:
        self.id = os.getpid()
        self.thread = threading.get_ident()
        """The thread that forked, which is the only thread that the child inherits."""
        self.renewing = threading.RLock()


THIS_PROCESS = _Process()
register(Stage.PROCESS, after_fork_in_child=THIS_PROCESS.renew)


class _ProcessIdMarker:
    """A marker for systems whose kernel cannot clear memory in forked children."""

    def __getitem__(self, _: int) -> bool:
        return os.getpid() == THIS_PROCESS.id


_MADV_WIPEONFORK = 18  # <linux/mman.h>; the mmap module does not define it
_cleared: list[tuple[mmap, bytes]] = []


def cleared_in_child(data: bytes) -> mmap | bytes:
    """Return a copy of ``data`` that is all zeros in a forked child until the child's hooks have run.

    It is always all zeros if the system can fork but cannot clear memory in a forked child.
    """
    if not hasattr(os, "fork"):
        return data
    if sys.platform in ("linux", "android"):
        with contextlib.suppress(ImportError, OSError):  # OSError: Linux before 4.14
            import mmap  # noqa: PLC0415  # some platforms do not have it

            memory = mmap.mmap(-1, len(data), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(_MADV_WIPEONFORK)
            memory[:] = data
            _cleared.append((memory, data))
            return memory
    return bytes(len(data))


_page = cleared_in_child(b"\1")
MARKER = _page if _page[0] else _ProcessIdMarker()
"""Its only item is true unless this process was forked and its hooks have not run yet. Reading it calls no function."""


def notice_fork() -> None:
    """Run the hooks of a forked child if they have not run yet: the process may have been forked by C code."""
    if not MARKER[0]:
        _renew_child()


def _renew_child() -> None:
    """Run the hooks of a forked child once, on the thread that gets here first; others wait until they have run."""
    process = os.getpid()
    with THIS_PROCESS.renewals.setdefault(process, threading.RLock()):
        if MARKER[0] or THIS_PROCESS.renewing_id == process:  # a hook calls this function again
            return
        THIS_PROCESS.renewing_id = process
        try:
            _run(_registry, "after_fork_in_child")
            for memory, data in _cleared:
                memory[:] = data
        finally:
            THIS_PROCESS.renewing_id = 0


def wait_for(future: Future[None], process: int) -> bool:
    """Wait until a future that this process created is done. Return False in a forked child, where it never will be."""
    while not future.done():
        with contextlib.suppress(TimeoutError):
            future.exception(_CHECK_SECONDS)
        notice_fork()
        if process != THIS_PROCESS.id:
            return False
    return True


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _run(_registry, "after_fork_in_parent"),
        after_in_child=_renew_child,
    )


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
        return self._process != THIS_PROCESS.id or not MARKER[0]

    def call(self, function: Callable[[*Arguments], Result], /, *arguments: *Arguments) -> Result:
        """Make a system call that writes; raise `OSError` if the lease is void and the parent completes it."""
        if self._process == THIS_PROCESS.id and MARKER[0]:
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
        notice_fork()
        if self._process != THIS_PROCESS.id:
            with THIS_PROCESS.renewing:
                if self._process != THIS_PROCESS.id:
                    self.renew()
                    self._process = THIS_PROCESS.id
