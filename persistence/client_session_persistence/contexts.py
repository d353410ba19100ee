"""Context managers whose exit always runs, even if an exception from outside arrives at any point.

A signal handler (or `PyThreadState_SetAsyncExc`) can raise wherever Python code runs, including in the first
instruction of an ``__exit__`` method, before the method has done anything.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class SafeContext(io.IOBase, Generic[Value]):
    """A context manager that calls its exit function twice, so that one exception from outside cannot prevent it.

    `io.IOBase` calls ``close`` at the end of the block and again when the object is deallocated, both in C. No Python
    code and no traceback refers to the object, so that is as soon as the exception leaves the ``with`` statement.
    """

    __slots__ = ("_enter", "close")

    def __init__(self, enter: Callable[[], Value], leave: Callable[[], object]) -> None:
        """Store both functions. A second call to ``leave`` must complete whatever the first one has not done."""
        self._enter = enter
        self.close = leave  # type: ignore[method-assign, assignment]

    def __enter__(self) -> Value:  # type: ignore[override]
        """Call the first function and return its result."""
        try:
            return self._enter()
        except BaseException:
            self.close()
            raise


def open_into(descriptors: list[int], path: str, flags: int, mode: int = 0o777) -> None:
    """Open a file and append its descriptor to a list; no Python code runs in between, so no descriptor is lost."""
    descriptors.extend(map(os.open, (path,), (flags,), (mode,)))


def close_all(descriptors: list[int]) -> None:
    """Close all descriptors in a list and remove them from it, ignoring errors; no Python code runs in between."""
    while descriptors:
        with contextlib.suppress(OSError, IndexError):
            any(map(os.close, iter(descriptors.pop, None)))
