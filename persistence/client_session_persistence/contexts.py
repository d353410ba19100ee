"""Context managers whose exit always runs, even if an exception from outside arrives at any point.

A signal handler (or `PyThreadState_SetAsyncExc`) can raise wherever Python code runs, including in the first
instruction of an ``__exit__`` method, before the method has done anything.
"""

from __future__ import annotations

import contextlib
import io
import os
from functools import wraps
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


class SafeContext(io.IOBase, Generic[Value]):
    """A context manager that runs a generator up to its ``yield``, and closes the generator at the end of the block.

    `io.IOBase` exits and is deallocated in C, by calling ``close``. So the next Python code to run is the generator,
    which resumes within its own ``try``.
    """

    __slots__ = ("_generator", "close")

    def __init__(self, generator: Generator[Value]) -> None:
        """Store the generator."""
        self._generator = generator
        self.close = generator.close  # type: ignore[method-assign]

    def __enter__(self) -> Value:  # type: ignore[override]
        """Run the generator up to its ``yield``, and return what it yields."""
        try:
            return next(self._generator)
        except BaseException:
            self._generator.close()
            raise


def safe_context(function: Callable[Parameters, Generator[Value]]) -> Callable[Parameters, SafeContext[Value]]:
    """Decorate a generator function like `contextlib.contextmanager`, except that its ``finally`` always runs.

    The generator is not told about exceptions in the block. To survive an exception that arrives during the
    ``finally``, it must be written so that a second call completes what the first one has begun.
    """

    @wraps(function)
    def create(*arguments: Parameters.args, **options: Parameters.kwargs) -> SafeContext[Value]:
        return SafeContext(function(*arguments, **options))

    return create


def open_into(descriptors: list[int], path: str, flags: int, mode: int = 0o777) -> None:
    """Open a file and append its descriptor to a list; no Python code runs in between, so no descriptor is lost."""
    descriptors.extend(map(os.open, (path,), (flags,), (mode,)))


def close_all(descriptors: list[int]) -> None:
    """Close all descriptors in a list and remove them from it, ignoring errors; no Python code runs in between."""
    while descriptors:
        with contextlib.suppress(OSError, IndexError):
            any(map(os.close, iter(descriptors.pop, None)))
