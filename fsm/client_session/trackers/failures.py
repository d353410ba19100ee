"""A failure in a session must cost the host nothing: it is caught, and logged once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from client_session.callbacks import Logger


class Failures:
    """Catches what fails, and logs the first of each streak.

    May be shared by threads. Once a streak, since whatever fails for one event tends to fail for the next; and since
    the logging may itself be tracked, where a line for each failure would cause the next one for ever.
    """

    __slots__ = ("_failing", "_logger")

    def __init__(self, logger: Logger) -> None:
        """Log to ``logger``."""
        self._logger = logger
        self._failing = False

    @contextlib.contextmanager
    def caught(self, message: str) -> Generator[None]:
        """Log ``message`` and the traceback if what is done meanwhile raises, unless the time before failed too."""
        try:
            yield
        except Exception:
            if not self._failing:
                self._failing = True
                with contextlib.suppress(Exception):  # a broken logger must not cost the host its event
                    self._logger.exception(message)
        else:
            self._failing = False
