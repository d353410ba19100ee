"""Hypothesis strategies that generate the steps of a trace."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from hypothesis import strategies as st

from client_session.graph import Input
from client_session.testing.manual import START
from client_session.testing.trace import INPUTS, External, Step

TIMEOUTS = (600.0, 300.0)
_NEAR_TIMEOUTS = [base + offset for base in TIMEOUTS for offset in (-0.25, 0.0, 0.25)]
# Floats and the microseconds in a save file represent quarter seconds exactly, so equal times stay equal.
GAPS = st.sampled_from([0.0, 0.25, 15.0, *_NEAR_TIMEOUTS]) | st.integers(0, 8000).map(lambda quarters: quarters / 4)
"""Seconds between two steps, often at or near the default timeouts."""

# Shifts are zero or at least one second: smaller shifts would be treated as slewing (see Anchor.adjusted).
WALL_SHIFTS = st.sampled_from([-86400.0, -600.0, -1.0, 0.0, 1.0, 599.0, 600.0, 1e9])


def event_id(number: int) -> str:
    """Return an event id for the step at this position in the trace."""
    return str(uuid.UUID(int=0x5E55_0000_0000_4000_8000_0000_0000_0000 + number))


def _steps(names: st.SearchStrategy[str], max_size: int) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.tuples(GAPS, names, WALL_SHIFTS, GAPS), min_size=1, max_size=max_size).map(_build_trace)


def _build_trace(drawn: list[tuple[float, str, float, float]]) -> list[Step]:
    steps: list[Step] = []
    at = START
    for number, (gap, name, shift, timeout) in enumerate(drawn):
        at += timedelta(seconds=gap)
        steps.append(make_step(at, name, number, shift=shift, timeout=timeout))
    return steps


def make_step(at: datetime, name: str, number: int, *, shift: float = 0.0, timeout: float = 0.0) -> Step:
    """Build a step with this input. ``shift`` sets the wall clock relative to ``at``; ``timeout`` sets new timeouts."""
    match name:
        case "event" | "other":
            return Step(at, name, event_id=event_id(number))
        case "wall":
            return Step(at, name, to=at + timedelta(seconds=shift))
        case "timeouts":
            return Step(at, name, foreground_timeout=max(timeout, 0.25), background_timeout=max(timeout / 2, 0.25))
        case _:
            return Step(at, name)


def timelines(max_size: int = 30) -> st.SearchStrategy[list[Step]]:
    """Draw timelines, which consist of events and focus changes. To run a timeline, apply its steps with a `Driver`."""
    return _steps(st.sampled_from(["event", "event", "event", "background", "foreground"]), max_size)


def traces(max_size: int = 30, *, several_runs: bool = False) -> st.SearchStrategy[list[Step]]:
    """Draw traces with every kind of input, such as events, focus changes, ticks and new timeouts.

    With ``several_runs``, also draw restarts and events of other processes. After a restart, `Driver.session` is
    another object. The entities of other processes are returned by `Driver.apply`.
    """
    one_run = [given for given in ALL_INPUTS if given not in {External.RESTART, External.OTHER}]
    return _steps(st.sampled_from(ALL_INPUTS if several_runs else one_run), max_size)


ALL_INPUTS = (*INPUTS, Input.EVENT, Input.EVENT)
"""Every input that a trace can contain. Events appear three times, since events cause most decisions."""
