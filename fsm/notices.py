"""What is to be told to the embedder once the session's lock is released: callbacks and log lines."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, ParamSpec, Protocol

from persistence.waiting import a_new_call

if TYPE_CHECKING:
    from collections.abc import Callable

Params = ParamSpec("Params")


class Logger(Protocol):
    """The methods of `logging.Logger` that a session calls."""

    def info(self, msg: str, /, *args: object) -> object:
        """Log what went as it should."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log what the user should know."""

    def exception(self, msg: str, /, *args: object) -> object:
        """Log an error that is being handled, with its traceback."""


class Notices:
    """Calls kept back until the lock is released: in order, each on the thread that caused it.

    A callback may call the session again; what that causes is told after what was caused before.
    """

    __slots__ = ("_by_thread", "_delivering", "_logger")

    def __init__(self, logger: Logger) -> None:
        """Log failing callbacks to ``logger``."""
        self._logger = logger
        self._by_thread: dict[int, deque[Callable[[], object]]] = {}
        self._delivering: set[int] = set()

    def add(self, call: Callable[Params, object], /, *args: Params.args, **kwargs: Params.kwargs) -> None:
        """Keep a call for this thread's next `deliver`."""
        self._by_thread.setdefault(threading.get_ident(), deque()).append(lambda: call(*args, **kwargs))

    def deliver(self) -> None:
        """Make this thread's calls, now that it holds no lock. One that raises is logged."""
        thread = threading.get_ident()
        calls = self._by_thread.get(thread)
        if calls is None or thread in self._delivering:
            return
        self._delivering.add(thread)
        try:
            while calls:
                call = calls.popleft()
                try:
                    with a_new_call():
                        call()
                except Exception:
                    with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                        self._logger.exception("A session's callback failed")
        finally:
            del self._by_thread[thread]
            self._delivering.discard(thread)

    def after_fork(self) -> Notices:
        """Return a child process's own: what was to be told is the parent's to tell."""
        return Notices(self._logger)
