"""Calls that are deferred until the session's lock is released: the embedder's callbacks and log lines."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from client_session import history
from client_session.interruptions import is_from_signal_handler
from client_session_persistence.deadline import THREAD
from client_session_persistence.forks import THIS_PROCESS, notice_fork


class Logger(Protocol):
    """The methods of `logging.Logger` that a session calls. Other loggers get complete messages, without ``args``.

    If the logger also has ``isEnabledFor`` and ``debug``, decisions are logged at the DEBUG level.
    """

    def info(self, msg: str, /, *args: object) -> object:
        """Log that a failure is over."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log a problem that the user should know about."""

    def exception(self, msg: str, /, *args: object) -> object:
        """Log the exception that is being handled, with its traceback."""


_NO_CALLABLES: Mapping[str, Callable[..., object]] = {}
Call = tuple[str, Callable[..., object], tuple[Any, ...]]
"""A deferred call: the name to log if it fails, the callable, and its arguments."""


class Queue(deque[Call]):
    """One session's deferred calls on one thread."""

    is_delivering = False


class _Thread(threading.local):
    """One thread's queues, keyed by session. Empty queues are removed, since a process may have many sessions."""

    def __init__(self) -> None:
        self.queues: dict[Callbacks, Queue] = {}


_thread = _Thread()


class Callbacks:
    """Defers calls until the lock is released, then runs them in order, each on the thread that caused it.

    A callback may call the session again; any callbacks queued as a result run after those already queued.
    """

    __slots__ = ("_callables", "_logger")

    def __init__(self, logger: Logger, callables: Mapping[str, Callable[..., object]] = _NO_CALLABLES) -> None:
        """Defer calls to the embedder's ``callables`` (keyed by name) and to ``logger``."""
        self._logger = logger
        self._callables = callables or _NO_CALLABLES  # one empty mapping that many sessions share

    @property
    def queue(self) -> Queue:
        """The calls that the next `deliver` on this thread will run."""
        return _thread.queues.setdefault(self, Queue())

    def log(self, method: Callable[..., object], message: str, *args: object) -> None:
        """Queue a log line: a call to one of the logger's methods."""
        self.queue.append(("logger", method, (message, *args)))

    def log_decision(self, entry: bytes) -> None:
        """Queue a DEBUG line for a history entry if the logger is enabled for that level."""
        logger: Any = self._logger
        try:
            is_enabled = logger.isEnabledFor(logging.DEBUG)
        except Exception as error:  # a logger without levels, or a broken one, must not affect the host
            if is_from_signal_handler(error):
                raise
            return
        if is_enabled:
            self.log(logger.debug, "%s", history.unpack(entry)[0])

    def deliver(self) -> None:
        """Run this thread's deferred calls. The thread must not hold any locks.

        Log each `Exception`. Raise any other `BaseException` after the remaining calls have run.
        """
        process = THIS_PROCESS.id
        queue = _thread.queues.get(self)
        if queue is None:
            return
        raised: BaseException | None = None
        # A signal handler may add calls at any time. The handler then runs them, unless this call is going to.
        while queue and not queue.is_delivering:
            queue.is_delivering = True
            try:
                raised = self._run_all(queue, process) or raised
            except BaseException as error:  # noqa: BLE001  # it interrupted this call, and is raised after the others
                raised = error
            finally:
                queue.is_delivering = False
        if not queue and not queue.is_delivering:
            _thread.queues.pop(self, None)
        if raised is not None:
            raise raised

    def _run_all(self, queue: Queue, process: int) -> BaseException | None:
        # Not inlined in `deliver`: in Python 3.13, a loop's jump backward may not be covered by the ``try`` around it.
        raised: BaseException | None = None
        while queue:
            raised = self._run_first(queue, process) or raised
        return raised

    def _run_first(self, queue: Queue, process: int) -> BaseException | None:
        """Remove the first call from the queue and run it; return an exception that must reach the caller."""
        notice_fork()
        outer = THREAD.until
        name, call, args = queue[0]
        try:
            THREAD.until = None  # a call that the embedder's code makes has a deadline of its own
            del queue[0]  # like the line below, this cannot be interrupted, so each call runs exactly once
            if THIS_PROCESS.id == process:  # if they differ, the previous callback forked, and this is the child
                call(*args)
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like are raised after the other calls
            return self._failure(error, "%s failed: %r", name, call)
        finally:
            THREAD.until = outer
        return None

    def _failure(self, error: BaseException, message: str, *args: object) -> BaseException | None:
        """Log an `Exception` that the embedder's code raised; return any other exception."""
        if not isinstance(error, Exception) or is_from_signal_handler(error):
            return error
        try:
            self._logger.exception(message, *args)  # noqa: LOG004  # called in an exception handler
        except BaseException as broken:  # noqa: BLE001  # a broken logger must not make the host lose its event
            if not isinstance(broken, Exception) or is_from_signal_handler(broken):
                return broken
        return None

    def after_fork(self) -> Callbacks:
        """Return new callbacks for a forked child; the parent runs the queued calls."""
        _thread.queues.pop(self, None)
        return Callbacks(self._logger, self._callables)

    def call(self, name: str, *args: object) -> tuple[Call, ...]:
        """Return a call to the embedder's callable with this name, to be queued, or ``()`` if there is none."""
        callable_ = self._callables.get(name)
        return () if callable_ is None else ((name, callable_, args),)
