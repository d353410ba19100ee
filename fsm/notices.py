"""What is to be told to the embedder once the session's lock is released: callbacks and log lines."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from fsm import history
from persistence.forks import THIS_PROCESS
from persistence.waiting import a_new_call

if TYPE_CHECKING:
    from collections.abc import Callable

Params = ParamSpec("Params")


class Logger(Protocol):
    """The methods of `logging.Logger` that a session calls.

    One that can be asked for its level too (``isEnabledFor``), and takes ``debug``, is told each decision there.
    """

    def info(self, msg: str, /, *args: object) -> object:
        """Log what went as it should."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log what the user should know."""

    def exception(self, msg: str, /, *args: object) -> object:
        """Log an error that is being handled, with its traceback."""


class _Calls(deque["Callable[[], object]"]):
    """One session's calls on one thread."""

    delivering = False


class _Thread(threading.local):
    """What a thread keeps, of each session; little, and mostly nothing, for many sessions may be kept in memory."""

    def __init__(self) -> None:
        self.calls: dict[Notices, _Calls] = {}


_thread = _Thread()


class Notices:
    """Calls kept back until the lock is released: in order, each on the thread that caused it.

    A callback may call the session again; what that causes is told after what was caused before.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: Logger) -> None:
        """Log failing callbacks to ``logger``."""
        self._logger = logger

    def add(self, call: Callable[Params, object], /, *args: Params.args, **kwargs: Params.kwargs) -> None:
        """Keep a call for this thread's next `deliver`."""
        _thread.calls.setdefault(self, _Calls()).append(partial(call, *args, **kwargs))

    def explain(self, entry: bytes) -> None:
        """Keep a line at level DEBUG for an entry of the history, if the logger takes such lines."""
        logger: Any = self._logger
        with contextlib.suppress(Exception):  # it cannot be asked, or is broken: no line, and no cost to the host
            if logger.isEnabledFor(logging.DEBUG):
                self.add(logger.debug, "%s", history.unpack(entry)[0])

    def deliver(self) -> None:
        """Make this thread's calls, now that it holds no lock. One that raises is logged."""
        process = THIS_PROCESS.id
        calls = _thread.calls.get(self)
        if calls is None:
            return
        # A signal handler may add to them at any time; the inner call delivers, unless the outer one still does.
        while calls and not calls.delivering:
            calls.delivering = True
            try:
                while calls:
                    self._make(calls.popleft(), process)
            finally:
                calls.delivering = False
        if not calls and not calls.delivering:
            _thread.calls.pop(self, None)

    def _make(self, call: Callable[[], object], process: int) -> None:
        try:
            with a_new_call():
                if THIS_PROCESS.id == process:  # else a child came back here from the call before, forked in it
                    call()
        except Exception:
            with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                self._logger.exception("A session's callback failed")

    def after_fork(self) -> Notices:
        """Return a child process's own: what was to be told is the parent's to tell."""
        _thread.calls.pop(self, None)
        return Notices(self._logger)
