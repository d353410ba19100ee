"""What is to be told to the embedder once the session's lock is released: callbacks and log lines."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, ParamSpec, Protocol

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


def is_held(lock: threading.RLock) -> bool:
    """Tell whether this thread holds a lock."""
    # Not public, but what threading.Condition asks of any lock, and typeshed lacks it.
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


class _Kept(threading.local):
    """One thread's calls."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()
        self.delivering = False


class Notices:
    """Calls kept back until the lock is released: in order, each on the thread that caused it.

    A callback may call the session again; what that causes is told after what was caused before.
    """

    __slots__ = ("_kept", "_logger")

    def __init__(self, logger: Logger) -> None:
        """Log failing callbacks to ``logger``."""
        self._logger = logger
        self._kept = _Kept()

    def add(self, call: Callable[Params, object], /, *args: Params.args, **kwargs: Params.kwargs) -> None:
        """Keep a call for this thread's next `deliver`."""
        self._kept.calls.append(lambda: call(*args, **kwargs))

    def deliver(self) -> None:
        """Make this thread's calls, now that it holds no lock. One that raises is logged."""
        kept = self._kept
        while kept.calls and not kept.delivering:
            kept.delivering = True
            try:
                while kept.calls:
                    self._make(kept.calls.popleft())
            finally:
                kept.delivering = False

    def _make(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                self._logger.exception("A session's callback failed")

    def after_fork(self) -> Notices:
        """Return a child process's own: what was to be told is the parent's to tell."""
        return Notices(self._logger)
