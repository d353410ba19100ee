"""Faults, the scales at which they run, and their outcomes."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable


class Scale(enum.Enum):
    """How many cases of a fault to run."""

    SAMPLE = "sample"
    """A few cases for the test suite; they take one to three seconds."""
    FULL = "full"
    """All cases."""


class CannotRunError(Exception):
    """This machine cannot run a fault. The message says what is missing and how to get it."""


@attrs.frozen
class Outcome:
    """The result of running a fault."""

    cases: int
    losses: tuple[str, ...]
    """One message for each loss."""
    figures: str = ""
    """Measurements, such as ``slowest start 3 ms``."""


@attrs.frozen
class Fault:
    """One row of the table."""

    name: str
    """What happens to the session."""
    loss: str
    """What counts as a loss."""
    run: Callable[[Scale], Outcome]
    """Raises `CannotRunError` if this machine cannot run the fault."""
