"""The calls that run after the session's lock is released: the embedder's callbacks and log lines."""

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
        """Log a problem that the user should know about."""

    def exception(self, msg: str, /, *args: object) -> object:
        """Log the exception that is being handled, with its traceback."""


_NONE: Mapping[str, Callable[..., object]] = {}
Call = tuple[str, Callable[..., object], tuple[Any, ...]]
"""A deferred call: the name to log if it fails, the callable, and its arguments."""


class Queue(deque[Call]):
    """One session's deferred calls on one thread."""

    is_delivering = False


class _Thread(threading.local):
    """One thread's queues, by session. Empty queues are removed, since a process may have many sessions."""

    def __init__(self) -> None:
        self.queues: dict[Callbacks, Queue] = {}


_thread = _Thread()


class Callbacks:
    """Defers calls until the lock is released, then makes them in order, each on the thread that caused it.

    A callback may call the session again; the callbacks that this causes run after those already queued.
    """

    __slots__ = ("_callables", "_logger")

    def __init__(self, logger: Logger, callables: Mapping[str, Callable[..., object]] = _NONE) -> None:
        """Defer calls to ``callables``, the embedder's callables by name; log to ``logger``."""
        self._logger = logger
        self._callables = callables or _NONE  # one empty mapping that many sessions share

    @property
    def queue(self) -> Queue:
        """The calls that the next `deliver` on this thread makes."""
        return _thread.queues.setdefault(self, Queue())

    def log(self, method: Callable[..., object], message: str, *args: object) -> None:
        """Queue a log line: a call to one of the logger's methods."""
        self.queue.append(("logger", method, (message, *args)))

    def log_decision(self, entry: bytes) -> None:
        """Queue a DEBUG line for a history entry if the logger is enabled for that level."""
        logger: Any = self._logger
        with contextlib.suppress(Exception):  # a logger without levels, or a broken one, must not affect the host
            if logger.isEnabledFor(logging.DEBUG):
                self.log(logger.debug, "%s", history.unpack(entry)[0])

    def deliver(self) -> None:
        """Run this thread's deferred calls; it must hold no lock.

        Log each `Exception`. Raise any other `BaseException` after the remaining calls.
        """
        process = THIS_PROCESS.id
        queue = _thread.queues.get(self)
        if queue is None:
            return
        raised: BaseException | None = None
        # A signal handler may add calls at any time. It delivers them itself, unless this outer call is still doing so.
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
                if THIS_PROCESS.id == process:  # otherwise the previous callback forked, and this is the child
                    call(*args)
        except Exception:
            with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                self._logger.exception("%s failed: %r", name, call)
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like are raised after the other calls
            return error
        return None

    def after_fork(self) -> Callbacks:
        """Return new callbacks for a forked child; the parent runs the calls that are queued."""
        _thread.queues.pop(self, None)
        return Callbacks(self._logger, self._callables)

    def call(self, name: str, *args: object) -> tuple[Call, ...]:
        """Return a call to the embedder's callable of this name, for the `queue`; return ``()`` if there is none."""
        callable_ = self._callables.get(name)
        return () if callable_ is None else ((name, callable_, args),)
