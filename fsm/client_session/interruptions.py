"""Exceptions that arrive from outside: they belong to the caller, not to the code that they interrupt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def is_from_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler raised this exception; Python passes each handler the frame it interrupts."""
    entry = error.__traceback__
    interrupted: FrameType | None = None
    while entry is not None:
        for value in entry.tb_frame.f_locals.values():
            if interrupted is not None and (value is interrupted or (type(value) is tuple and interrupted in value)):
                return True
        interrupted, entry = entry.tb_frame, entry.tb_next
    return False
