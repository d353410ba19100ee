"""Forked children that do something, answer and are gone, or are found to hang."""

from __future__ import annotations

import contextlib
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

PATIENCE = 10.0


def require_fork() -> None:
    """Raise `CannotRunError` where there is no fork."""
    if not hasattr(os, "fork"):
        message = "this system has no os.fork(); run it on Linux or another Unix"
        raise CannotRunError(message)


class ChildError(Exception):
    """A child hung or failed."""


@attrs.frozen
class Child:
    """A forked process that answers through a pipe."""

    process: int
    pipe: int

    def answer(self) -> Any:  # noqa: ANN401  # whatever JSON holds
        """Return what it answered; one that hangs is killed, and that or its failure raises `ChildError`."""
        data = b""
        end = time.monotonic() + PATIENCE
        while True:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, end - time.monotonic()))
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
            message = f"hung for {PATIENCE:.0f} s" if os.WIFSIGNALED(status) else data.decode()
            raise ChildError(message)
        return json.loads(data)


class _Forking:
    """Forks anywhere; where the child comes out of the block, it answers and leaves."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._parent = os.getpid()
        self._writer = -1

    def fork(self) -> Child:
        reader, self._writer = os.pipe()
        process = os.fork()
        if process:
            os.close(self._writer)
        return Child(process, reader)

    def leave(self, failure: BaseException | None) -> None:
        if os.getpid() == self._parent:
            return
        status = 1
        try:
            try:
                if failure is not None:
                    raise failure  # noqa: TRY301  # told like one of the work's own
                data = json.dumps(self._work()).encode()
                status = 0
            except BaseException as error:  # noqa: BLE001  # told to the parent
                data = f"{type(error).__name__}: {error}".encode()
            os.write(self._writer, data)
        finally:
            os._exit(status)


@contextlib.contextmanager
def answering(work: Callable[[], object]) -> Generator[_Forking]:
    """Within this, fork anywhere; a child that comes out of it answers what ``work`` returns, and leaves."""
    forking = _Forking(work)
    try:
        yield forking
    except BaseException as error:
        forking.leave(error)
        raise
    forking.leave(None)


def fork_and_answer(work: Callable[[], object]) -> Child:
    """Fork; the child answers what ``work`` returns."""
    with answering(work) as forking:
        return forking.fork()
