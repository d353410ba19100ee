"""Error handling for tracker integrations: a failing session must not break the host program."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from client_session.callbacks import Logger


class Failures:
    """Exception handler that logs only the first of several consecutive failures. Thread-safe.

    An error that affects one event usually affects the next one as well. If log records themselves are tracked, logging
    every failure would cause another failure, in an endless loop.
    """

    __slots__ = ("_failing", "_logger")

    def __init__(self, logger: Logger) -> None:
        """Log to ``logger``."""
        self._logger = logger
        self._failing = False

    @contextlib.contextmanager
    def log_errors(self, message: str) -> Generator[None]:
        """Catch any exception from the block, and log it with ``message`` unless the previous block also failed."""
        try:
            yield
        except Exception:
            if not self._failing:
                self._failing = True
                with contextlib.suppress(Exception):  # even if the logger is broken, the host must not lose its event
                    self._logger.exception(message)
        else:
            self._failing = False
