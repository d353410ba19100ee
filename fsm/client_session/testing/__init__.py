"""A kit for embedders' tests, and ours: time that moves when told, traces that Hypothesis draws, and what must hold.

`traces` and `timelines` need Hypothesis (the extra ``verify``); the rest needs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.testing.driver import Driver, SessionOptions
from client_session.testing.invariants import InvariantError, check_invariants
from client_session.testing.manual import ManualClock, ManualScheduler

if TYPE_CHECKING:
    from client_session.testing.strategies import timelines, traces

__all__ = [
    "Driver",
    "InvariantError",
    "ManualClock",
    "ManualScheduler",
    "SessionOptions",
    "check_invariants",
    "timelines",
    "traces",
]


def __getattr__(name: str) -> object:
    """Import Hypothesis when a strategy is asked for, and not before."""
    if name not in {"timelines", "traces"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from client_session.testing import strategies  # noqa: PLC0415  # Hypothesis is optional

    return getattr(strategies, name)
