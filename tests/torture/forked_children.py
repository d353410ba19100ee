"""Forked children that return a result through a pipe, with a timeout."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

import attrs

from torture.fault import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

HANG_SECONDS = 10.0
"""The number of seconds after which a child is considered hung."""


def require_fork() -> None:
    """Raise `CannotRunError` if this system cannot fork."""
    if not hasattr(os, "fork"):
        message = "needs os.fork(), which this system does not have"
        raise CannotRunError(message)


def fork_in_c() -> int:
    """Fork as uWSGI does: in C code that holds the GIL, without calling Python's fork hooks."""
    process: int = ctypes.PyDLL(None).fork()
    return process


class ChildError(Exception):
    """A child hung or failed."""


@attrs.frozen
class Child:
    """A forked process that returns a result through a pipe."""

    process: int
    pipe: int

    def result(self) -> Any:  # noqa: ANN401  # any JSON value
        """Return the child's result.

        Raises:
            ChildError: the child failed, or hung and was killed.

        """
        data = b""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(self.process, signal.SIGKILL)
                break
            chunk = os.read(self.pipe, 65536)
            if not chunk:
                break
            data += chunk
        os.close(self.pipe)
        _, status = os.waitpid(self.process, 0)
        if status:
            message = f"hung for {HANG_SECONDS:.0f} s" if os.WIFSIGNALED(status) else data.decode()
            raise ChildError(message)
        return json.loads(data)


class _ForkPoint:
    """An object that forks on request within a block; at the end of the block, the child sends its result and exits."""

    def __init__(self, work: Callable[[], object], system_fork: Callable[[], int]) -> None:
        self._work = work
        self._system_fork = system_fork
        self._parent = os.getpid()
        self._writer = -1

    def fork(self) -> Child:
        reader, self._writer = os.pipe()
        process = self._system_fork()
        if process:
            os.close(self._writer)
        return Child(process, reader)

    def exit_child(self, failure: BaseException | None) -> None:
        if os.getpid() == self._parent:
            return
        status = 1
        try:
            try:
                if failure is not None:
                    raise failure  # noqa: TRY301  # reported like an exception raised by work()
                data = json.dumps(self._work()).encode()
                status = 0
            except BaseException as error:  # noqa: BLE001  # reported to the parent
                data = f"{type(error).__name__}: {error}".encode()
            os.write(self._writer, data)
        finally:
            os._exit(status)


@contextlib.contextmanager
def open_fork_point(work: Callable[[], object], system_fork: Callable[[], int] | None = None) -> Generator[_ForkPoint]:
    """Yield an object that can fork; at the end of the block, the child returns the result of ``work()`` and exits.

    It forks with ``system_fork``, by default `os.fork`.
    """
    fork_point = _ForkPoint(work, system_fork or os.fork)
    try:
        yield fork_point
    except BaseException as error:
        fork_point.exit_child(error)
        raise
    fork_point.exit_child(None)


def run_in_child(work: Callable[[], object]) -> Child:
    """Fork a child that returns the result of ``work()``."""
    with open_fork_point(work) as fork_point:
        return fork_point.fork()
