"""The main theorem: which events share a session depends on events and toggles alone, never on when ticks come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from client_session.testing import SessionOptions, timelines
from client_session.verify.schedules import SCHEDULES, Schedule, check_schedules
from client_session.verify.tally import Tally

if TYPE_CHECKING:
    from client_session.testing.trace import Step


@given(timelines(), SCHEDULES, SCHEDULES, st.booleans())
def test_any_two_schedules_of_ticks_give_the_same(
    timeline: list[Step],
    one: Schedule,
    two: Schedule,
    continue_on_restart: bool,  # noqa: FBT001  # Hypothesis passes by name
) -> None:
    """No ticks, few, many or late ones: the same entities, and the same save file at the end."""
    tally = Tally()
    check_schedules(timeline, one, two, SessionOptions(continue_on_restart=continue_on_restart), tally)
    assert tally.invariants["schedule independence"] == 1


@given(timelines(), SCHEDULES, SCHEDULES)
def test_counting_empty_sessions_keeps_the_partition(timeline: list[Step], one: Schedule, two: Schedule) -> None:
    """With count_empty_sessions ticks change the numbers, but not which events share a session."""
    tally = Tally()
    check_schedules(timeline, one, two, SessionOptions(count_empty_sessions=True), tally)
    assert tally.invariants["same partition"] == 1
