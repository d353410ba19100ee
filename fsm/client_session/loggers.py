"""Support for loggers from other libraries, such as loguru, which may not format messages with ``%``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_session.callbacks import Logger


def preformatting(logger: Logger) -> Logger:
    """Return a logger that formats each message itself, or the same logger if it is the standard library's."""
    return logger if isinstance(logger, _STANDARD) else _PreformattingLogger(logger)


_STANDARD: tuple[type, ...] = (logging.Logger, logging.LoggerAdapter)


class _PreformattingLogger:
    """Passes complete messages to an embedder's logger, without arguments, so that the logger does not format them."""

    __slots__ = ("_target",)

    def __init__(self, logger: Any) -> None:  # noqa: ANN401  # `debug` and `isEnabledFor` are optional
        self._target = logger

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        return bool(self._target.isEnabledFor(level))

    def debug(self, msg: str, /, *args: object) -> None:
        self._target.debug(_text(msg, args))

    def info(self, msg: str, /, *args: object) -> None:
        self._target.info(_text(msg, args))

    def warning(self, msg: str, /, *args: object) -> None:
        self._target.warning(_text(msg, args))

    def exception(self, msg: str, /, *args: object) -> None:
        self._target.exception(_text(msg, args))


def _text(msg: str, args: tuple[object, ...]) -> str:
    return msg % args
