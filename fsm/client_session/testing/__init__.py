"""Test support for programs that embed a session: a manual clock and scheduler, Hypothesis strategies, invariants.

`traces` and `timelines` require Hypothesis (the ``verify`` extra).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.testing.driver import Driver, SessionOptions
from client_session.testing.invariants import InvariantError, check_invariants
from client_session.testing.manual import ManualClock, ManualScheduler
from client_session.testing.trace import Step

if TYPE_CHECKING:
    from client_session.testing.states import ManualStates
    from client_session.testing.strategies import timelines, traces

__all__ = [
    "Driver",
    "InvariantError",
    "ManualClock",
    "ManualScheduler",
    "ManualStates",
    "SessionOptions",
    "Step",
    "check_invariants",
    "timelines",
    "traces",
]


def __getattr__(name: str) -> object:
    """Import the strategies, which need Hypothesis, and the store for visitors on first use."""
    if name == "ManualStates":
        from client_session.testing.states import ManualStates  # noqa: PLC0415

        return ManualStates
    if name not in {"timelines", "traces"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from client_session.testing import strategies  # noqa: PLC0415  # Hypothesis is optional

    return getattr(strategies, name)
