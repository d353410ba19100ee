"""Hypothesis strategies that generate the steps of a trace."""

from __future__ import annotations

import math
import uuid
from datetime import datetime, timedelta

from hypothesis import strategies as st

from client_session.graph import Command, Input
from client_session.testing.manual import START
from client_session.testing.trace import INPUTS, External, Step

TIMEOUTS = (600.0, 300.0)
_NEAR_TIMEOUTS = [base + offset for base in TIMEOUTS for offset in (-0.25, 0.0, 0.25)]
# Floats and the microseconds in a save file represent quarter seconds exactly, so equal times stay equal.
GAPS = st.sampled_from([0.0, 0.25, 15.0, *_NEAR_TIMEOUTS]) | st.integers(0, 8000).map(lambda quarters: quarters / 4)
"""Seconds between two steps, often at or near the default timeouts."""

MAX_DURATIONS = st.sampled_from([None, 0.25, 300.0, 600.0, 900.0, 1e9])
"""Maximum durations below, at and above the default timeouts."""

# Shifts are zero or at least one second: smaller shifts would be treated as slewing (see Anchor.adjusted).
WALL_SHIFTS = st.sampled_from([-86400.0, -600.0, -1.0, 0.0, 1.0, 599.0, 600.0, 1e9])


def event_id(number: int) -> str:
    """Return an event id for the step at this position in the trace."""
    return str(uuid.UUID(int=0x5E55_0000_0000_4000_8000_0000_0000_0000 + number))


def _steps(names: st.SearchStrategy[str], max_size: int) -> st.SearchStrategy[list[Step]]:
    drawn = st.tuples(GAPS, names, WALL_SHIFTS, GAPS, MAX_DURATIONS)
    return st.lists(drawn, min_size=1, max_size=max_size).map(_build_trace)


def _build_trace(drawn: list[tuple[float, str, float, float, float | None]]) -> list[Step]:
    steps: list[Step] = []
    at = START
    for number, (gap, name, shift, timeout, max_duration) in enumerate(drawn):
        at += timedelta(seconds=gap)
        steps.append(make_step(at, name, number, shift=shift, timeout=timeout, max_duration=max_duration))
    return steps


def make_step(  # noqa: PLR0913  # the values that inputs can have
    at: datetime,
    name: str,
    number: int,
    *,
    shift: float = 0.0,
    timeout: float = 0.0,
    max_duration: float | None = None,
) -> Step:
    """Build a step with this input.

    ``shift`` sets the wall clock relative to ``at``; ``timeout`` and ``max_duration`` set new limits.
    """
    match name:
        case "event" | "passive" | "other":
            return Step(at, name, event_id=event_id(number))
        case "wall":
            return Step(at, name, to=at + timedelta(seconds=shift))
        case "timeouts":
            timeouts = max(timeout, 0.25), max(timeout / 2, 0.25)
            return Step(at, name, None, *timeouts, math.inf if max_duration is None else max_duration)
        case _:
            return Step(at, name)


def timelines(max_size: int = 30, *, manual_ends: bool = False) -> st.SearchStrategy[list[Step]]:
    """Draw timelines, which consist of events, passive events, touches and focus changes.

    With ``manual_ends``, sessions are also ended manually. To run a timeline, apply its steps with a `Driver`, which
    returns the events' entities.
    """
    names = ["event", "event", "event", "passive", "touch", "background", "foreground"]
    names += ["new-session"] if manual_ends else []
    return _steps(st.sampled_from(names), max_size)


def traces(
    max_size: int = 30, *, several_runs: bool = False, several_users: bool = False
) -> st.SearchStrategy[list[Step]]:
    """Draw traces with every kind of input, such as events, focus changes, ticks and new timeouts.

    With ``several_runs``, also draw restarts and events of other processes. After a restart, `Driver.session` is
    another object. The entities of other processes are returned by `Driver.apply`.

    With ``several_users``, also forget the user. Then check the entities of each user separately.
    """
    unwanted: set[str] = set() if several_runs else {External.RESTART, External.OTHER}
    unwanted |= set() if several_users else {Command.FORGET}
    return _steps(st.sampled_from([given for given in ALL_INPUTS if given not in unwanted]), max_size)


ALL_INPUTS = (*(given for given in INPUTS if given is not External.START), Input.EVENT, Input.EVENT)
"""Every input that can follow another. Events appear three times, since events cause most decisions."""
