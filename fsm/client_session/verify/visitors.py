"""Visitors: a visitor's session groups the same inputs into the same sessions as a `ClientSession` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from hypothesis import strategies as st

from client_session.graph import Command, Input
from client_session.testing.driver import Driver
from client_session.testing.invariants import require
from client_session.testing.manual import START, ManualClock
from client_session.testing.states import ManualStates
from client_session.testing.strategies import timelines
from client_session.verify.schedules import OPTIONS
from client_session.visitors import VisitorSessions
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_session.entity import SessionContext, SessionSummary
    from client_session.testing.driver import SessionOptions
    from client_session.testing.trace import Step
    from client_session.verify.tally import Tally
    from client_session.visitors import VisitorSession

INVARIANTS = {
    "visitors": "A visitor's entities and ends are those of a ClientSession with the same inputs, except for the ids; "
    "sessions that ended are reported at the visitor's next input.",
}

TIMELINES: st.SearchStrategy[tuple[list[Step], SessionOptions]] = st.tuples(
    timelines(manual_ends=True),
    OPTIONS.map(lambda options: attrs.evolve(options, count_empty_sessions=False, continue_on_restart=False)),
)
"""Timelines, and settings that visitors have, too."""

_SEEN = ("session_index", "event_index", "first_event_id", "first_event_timestamp")
_ENDED = ("session_index", "event_count", "reason", "first_event_time", "last_event_time", "last_activity_time")


def _values(source: object, names: tuple[str, ...]) -> tuple[object, ...] | None:
    return None if source is None else tuple(getattr(source, name) for name in names)


def _apply(session: VisitorSession, step: Step) -> SessionContext | None:
    match step.input:
        case Input.EVENT | Input.PASSIVE:
            return session.get_session_context(str(step.event_id), extend=step.input is Input.EVENT)
        case Input.BACKGROUND | Input.FOREGROUND:
            session.set_background(step.input is Input.BACKGROUND)
        case Command.TOUCH:
            session.touch()
        case _:
            session.start_new_session()
    return None


def check_visitors(timeline: Sequence[Step], options: SessionOptions, tally: Tally) -> None:
    """Check that a visitor and a `ClientSession` agree on a timeline, which may also start new sessions.

    Raises:
        InvariantError: they differ.

    """
    clock = ManualClock(START)
    ended: list[SessionSummary] = []
    session = VisitorSessions(
        ManualStates(clock),
        foreground_timeout=options.foreground_timeout,
        background_timeout=options.background_timeout,
        max_duration=options.max_duration,
        extend_on_focus_change=options.extend_on_focus_change,
        on_session_end=ended.append,
    ).of("visitor")
    driver = Driver(START, MemoryStore(), options)
    for step in timeline:
        clock.advance((step.at - clock.now()).total_seconds())
        theirs, ours = driver.apply(step), _apply(session, step)
        same = _values(theirs, _SEEN) == _values(ours, _SEEN)
        reported = [_values(summary, _ENDED) for summary in driver.ended] == [
            _values(summary, _ENDED) for summary in ended
        ]
        tally.invariants["visitors"] += 1
        require("visitors", same and reported, f"{step}: expected {theirs} {driver.ended}, got {ours} {ended}.")
        current = session.current()
        is_current = driver.session.expires_in != 0 and driver.session.event_index > 0
        require("visitors", (current is not None) == is_current, f"{step}: the current session is {current}.")
