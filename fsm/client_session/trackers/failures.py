"""Error handling for tracker integrations: a failing session must not break the host program."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from client_session.callbacks import Logger


class Failures:
    """Context manager that catches any exception from its block, and logs only the first of several consecutive ones.

    An error that affects one event usually affects the next one as well. If log records themselves are tracked, logging
    every failure would cause another failure, in an endless loop.

    Threads may share an instance, and blocks may be nested.
    """

    __slots__ = ("_failing", "_logger", "_message")

    def __init__(self, logger: Logger, message: str) -> None:
        """Log exceptions to ``logger`` with ``message``."""
        self._logger = logger
        self._message = message
        self._failing = False

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Catch the block's exception, and log it unless the previous block also failed."""
        if error is None:
            self._failing = False
            return False
        if not isinstance(error, Exception):
            return False
        if not self._failing:
            self._failing = True
            with contextlib.suppress(Exception):  # even if the logger is broken, the host must not lose its event
                self._logger.exception(self._message)  # noqa: LOG004  # with statements call this as a handler
        return True
