"""What runs after the session's lock is released: the embedder's callbacks, and log lines."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from client_session import history
from client_session_persistence.deadline import no_deadline
from client_session_persistence.forks import THIS_PROCESS


class Logger(Protocol):
    """The methods of `logging.Logger` that a session calls.

    If the logger also has ``isEnabledFor`` and ``debug``, decisions are logged at level DEBUG.
    """

    def info(self, msg: str, /, *args: object) -> object:
        """Log that something works again."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log what the user should know."""

    def exception(self, msg: str, /, *args: object) -> object:
        """Log an error that is being handled, with its traceback."""


_NONE: Mapping[str, Callable[..., object]] = {}
Call = tuple[str, Callable[..., object], tuple[Any, ...]]
"""A deferred call: the name that a failure is logged with, the callable, and its arguments."""


class Queue(deque[Call]):
    """One session's calls on one thread."""

    is_delivering = False


class _Thread(threading.local):
    """A thread's queues by session. It is empty most of the time, since a process may keep many sessions."""

    def __init__(self) -> None:
        self.queues: dict[Callbacks, Queue] = {}


_thread = _Thread()


class Callbacks:
    """Calls deferred until the lock is released: in order, each on the thread that caused it.

    A callback may call the session again; the callbacks which that causes run after those that were caused before.
    """

    __slots__ = ("_callables", "_logger")

    def __init__(self, logger: Logger, callables: Mapping[str, Callable[..., object]] = _NONE) -> None:
        """Defer calls of the embedder's callables, which are given by name; log those that fail to ``logger``."""
        self._logger = logger
        self._callables = callables or _NONE  # which many sessions can share

    @property
    def queue(self) -> Queue:
        """This thread's calls for the next `deliver`."""
        return _thread.queues.setdefault(self, Queue())

    def log(self, method: Callable[..., object], message: str, *args: object) -> None:
        """Queue a log line: a call of one of the logger's methods."""
        self.queue.append(("logger", method, (message, *args)))

    def log_decision(self, entry: bytes) -> None:
        """Queue a DEBUG line for an entry of the history, if the logger takes such lines."""
        logger: Any = self._logger
        with contextlib.suppress(Exception):  # a logger that has no levels, or is broken, costs the host nothing
            if logger.isEnabledFor(logging.DEBUG):
                self.log(logger.debug, "%s", history.unpack(entry)[0])

    def deliver(self) -> None:
        """Run this thread's calls, now that it holds no lock.

        An `Exception` is logged. Any other `BaseException` is raised after the remaining calls.
        """
        process = THIS_PROCESS.id
        queue = _thread.queues.get(self)
        if queue is None:
            return
        raised: BaseException | None = None
        # A signal handler may add calls at any time; the inner call delivers them, unless the outer one still does.
        while queue and not queue.is_delivering:
            queue.is_delivering = True
            try:
                while queue:
                    raised = self._run(*queue.popleft(), process) or raised
            finally:
                queue.is_delivering = False
        if not queue and not queue.is_delivering:
            _thread.queues.pop(self, None)
        if raised is not None:
            raise raised

    def _run(self, name: str, call: Callable[..., object], args: tuple[Any, ...], process: int) -> BaseException | None:
        try:
            with no_deadline():
                if THIS_PROCESS.id == process:  # else the previous callback forked, and this is the child
                    call(*args)
        except Exception:
            with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                self._logger.exception("%s failed: %r", name, call)
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like reach the caller, after the other calls
            return error
        return None

    def after_fork(self) -> Callbacks:
        """Return a forked child's own: the queued calls are the parent's to run."""
        _thread.queues.pop(self, None)
        return Callbacks(self._logger, self._callables)

    def call(self, name: str, *args: object) -> tuple[Call, ...]:
        """Return a call of the embedder's callable of this name to put into the `queue`; nothing if there is none."""
        callable_ = self._callables.get(name)
        return () if callable_ is None else ((name, callable_, args),)
