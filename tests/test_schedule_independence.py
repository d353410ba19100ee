"""Schedule independence: whether two events share a session depends only on events and focus changes, not on ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from hypothesis import given

from client_session.testing import timelines
from client_session.verify.schedules import OPTIONS, SCHEDULES, Schedule, check_schedules
from client_session.verify.tally import Tally

if TYPE_CHECKING:
    from client_session.testing import SessionOptions
    from client_session.testing.trace import Step


@given(timelines(), SCHEDULES, SCHEDULES, OPTIONS)
def test_any_two_tick_schedules_agree(
    timeline: list[Step], first: Schedule, second: Schedule, options: SessionOptions
) -> None:
    """With few, many, late or no ticks, the entities, the ends and the final save file are the same."""
    tally = Tally()
    check_schedules(timeline, first, second, attrs.evolve(options, count_empty_sessions=False), tally)
    assert tally.invariants["schedule independence"] == 1


@given(timelines(), SCHEDULES, SCHEDULES, OPTIONS)
def test_counting_empty_sessions_does_not_change_the_partition(
    timeline: list[Step], first: Schedule, second: Schedule, options: SessionOptions
) -> None:
    """With count_empty_sessions, ticks affect session indexes but not whether two events share a session."""
    tally = Tally()
    check_schedules(timeline, first, second, attrs.evolve(options, count_empty_sessions=True), tally)
    assert tally.invariants["same partition"] == 1
