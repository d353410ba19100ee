"""Context managers whose exit always runs, even if an exception from outside arrives at any point.

A signal handler (or `PyThreadState_SetAsyncExc`) can raise wherever Python code runs, including in the first
instruction of an ``__exit__`` method, before the method has done anything.
"""

from __future__ import annotations

import contextlib
import io
import os
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class Finalizer(io.IOBase):
    """Calls ``close`` when it is deallocated, unless ``closed`` is true.

    `io.IOBase` checks and calls both in C. An exception from outside that arrives in Python code which a finalizer runs
    (such as ``__del__``) is lost, so a finalizer with nothing left to do must not run any.
    """

    __slots__ = ("close", "closed")

    close: Callable[[], object]  # type: ignore[assignment]
    closed: bool

    def __init__(self, close: Callable[[], object]) -> None:
        """Store the function. ``closed`` is true at first."""
        self.close = close
        self.closed = True  # pyright: ignore[reportIncompatibleMethodOverride]


class SafeContext(io.IOBase, Generic[Value]):
    """A context manager that calls its exit function again if an exception from outside has interrupted the first call.

    `io.IOBase` calls ``close`` at the end of the block, in C. If that call does not complete, ``close`` is called again
    when the object is deallocated. No Python code and no traceback refers to the object, so that is as soon as the
    exception leaves the ``with`` statement.
    """

    __slots__ = ("_enter", "close", "closed")

    close: Callable[[], object]  # type: ignore[assignment]

    def __init__(self, enter: Callable[[], Value], leave: Callable[[], object]) -> None:
        """Store both functions. A second call to ``leave`` must complete whatever the first one has not done."""
        completed: list[bool] = []
        self._enter, self.close = enter, partial(_complete, leave, completed)
        self.closed = completed  # type: ignore[assignment, misc]  # true once the exit function has completed

    def __enter__(self) -> Value:  # type: ignore[override]
        """Call the first function and return its result."""
        try:
            return self._enter()
        except BaseException:
            self.close()
            raise


def _complete(leave: Callable[[], object], completed: list[bool]) -> None:
    """Call a function, and add to a list once it has returned."""
    leave()
    completed.append(True)


def open_into(descriptors: list[int], path: str, flags: int, mode: int = 0o777) -> None:
    """Open a file and append its descriptor to a list; no Python code runs in between, so no descriptor is lost."""
    descriptors.extend(map(os.open, (path,), (flags,), (mode,)))


def close_all(descriptors: list[int]) -> None:
    """Close all descriptors in a list and remove them from it, ignoring errors; no Python code runs in between."""
    while descriptors:
        with contextlib.suppress(OSError, IndexError):
            any(map(os.close, iter(descriptors.pop, None)))
