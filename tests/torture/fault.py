"""What a fault is, how large it is run, and what came of it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable


class Scale(enum.Enum):
    """How much of a fault is run."""

    FAST = "fast"
    """A sample, in a second or three, for the suite."""
    WHOLE = "whole"
    """All of it."""


class CannotRunError(Exception):
    """A fault needs what this machine lacks; the message says what, and how to get it."""


@attrs.frozen
class Outcome:
    """What came of a fault."""

    cases: int
    losses: tuple[str, ...]
    """What was lost, a sentence for each case that lost something."""
    figures: str = ""
    """What was measured on the way, such as ``slowest start 3 ms``."""


@attrs.frozen
class Fault:
    """One row of the table."""

    name: str
    """What is done to the session."""
    lost: str
    """What counts as a loss."""
    run: Callable[[Scale], Outcome]
    """Raises `CannotRunError` where the machine lacks what it needs."""
