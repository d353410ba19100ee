"""Passive events, focus changes as activity, and the maximum duration of a session."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

import pytest

from client_session import ClientSession, SessionContext, SessionState
from client_session.graph import EndReason
from event_ids import event_id

if TYPE_CHECKING:
    from client_session import SessionSummary
    from client_session.testing import ManualClock
    from conftest import MakeSession


def passive(session: ClientSession, number: int) -> SessionContext | None:
    """Track a passive event."""
    return session.get_session_context(event_id(number), extend=False)


# Passive events.


def test_passive_event_is_counted_in_the_current_session(session: ClientSession, clock: ManualClock) -> None:
    """A passive event gets the session's entity with the next event index, but does not restart the timeout."""
    first = session.get_session_context(event_id(1))
    clock.advance(400)
    second = passive(session, 2)
    assert second is not None
    assert (second.session_id, second.event_index) == (first.session_id, 2)
    assert session.expires_in == 200
    assert session.get_session_context(event_id(3)).event_index == 3


def test_passive_event_checks_first(session: ClientSession, clock: ManualClock) -> None:
    """A passive event at the timeout ends the session, and does not belong to it."""
    session.get_session_context(event_id(1))
    clock.advance(600)
    assert passive(session, 2) is None
    assert session.event_index == 0


@pytest.mark.parametrize("count_empty_sessions", [False, True])
def test_passive_event_never_begins_a_session(make: MakeSession, *, count_empty_sessions: bool) -> None:
    """Without a session that has a first event, a passive event gets no entity and changes nothing."""
    started: list[SessionContext] = []
    session = make(on_session_start=started.append, count_empty_sessions=count_empty_sessions)
    before = session.session_id
    assert passive(session, 1) is None
    assert (session.session_id, session.event_index, session.first_event_id) == (before, 0, None)
    assert started == []
    assert session.get_session_context(event_id(2)).first_event_id == event_id(2)


def test_passive_event_in_the_expired_state_changes_nothing(session: ClientSession, clock: ManualClock) -> None:
    """After the session expired in the background, a passive event neither begins one nor starts the checker."""
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    assert passive(session, 2) is None
    assert session.state is SessionState.EXPIRED_CHECKER_STOPPED
    assert not session.checker_running


def test_passive_event_while_checking_is_stopped_belongs_to_the_session(
    session: ClientSession, clock: ManualClock
) -> None:
    """While checking is stopped manually, even an old session counts passive events, and checking stays stopped."""
    session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(5000)
    context = passive(session, 2)
    assert context is not None
    assert context.event_index == 2
    assert not session.checker_running


def test_summary_shows_passive_events_only_in_the_count(make: MakeSession, clock: ManualClock) -> None:
    """A passive event is counted, but is neither the last event nor the last activity."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    start = clock.now()
    session.get_session_context(event_id(1))
    clock.advance(100)
    passive(session, 2)
    session.start_new_session()
    assert ended[0].event_count == 2
    assert ended[0].last_event_time == ended[0].last_activity_time == start


def test_passive_event_may_be_anonymous(session: ClientSession) -> None:
    """The options ``anonymous`` and ``extend`` are independent of each other."""
    session.get_session_context(event_id(1))
    context = session.get_session_context(event_id(2), anonymous=True, extend=False)
    assert context is not None
    assert context.user_id != session.user_id


def test_only_passive_events_may_return_none(session: ClientSession) -> None:
    """The types say that an ordinary event always gets an entity."""
    assert_type(session.get_session_context(event_id(1)), SessionContext)
    assert_type(session.get_session_context(event_id(1), extend=True), SessionContext)
    assert_type(session.get_session_context(event_id(1), extend=False), SessionContext | None)
    with pytest.raises(TypeError, match=r"^extend must be True or False, not 'no'$"):
        session.get_session_context(event_id(1), extend="no")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


# Focus changes as activity.


@pytest.mark.parametrize(("extend", "sessions"), [(True, 1), (False, 2)])
def test_focus_changes_extend_the_session_if_configured(
    make: MakeSession, clock: ManualClock, *, extend: bool, sessions: int
) -> None:
    """Reading for nine minutes and switching away for a second is one session only with extend_on_focus_change."""
    session = make(extend_on_focus_change=extend)
    session.get_session_context(event_id(1))
    clock.advance(540)
    session.set_background(True)
    clock.advance(1)
    session.set_background(False)
    clock.advance(1)
    assert session.get_session_context(event_id(2)).session_index == sessions


def test_repeated_focus_reports_are_not_activity(make: MakeSession, clock: ManualClock) -> None:
    """Only a change of focus extends the session, not another report of the same focus."""
    session = make(extend_on_focus_change=True)
    session.get_session_context(event_id(1))
    for background in (False, True, True):
        clock.advance(100)
        session.set_background(background)
    assert session.expires_in == 200


def test_focus_change_does_not_revive_a_session(make: MakeSession, clock: ManualClock) -> None:
    """A focus change at the timeout ends the session; coming back from the expired state is not activity."""
    session = make(extend_on_focus_change=True)
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.set_background(False)
    assert (session.state, session.event_index) == (SessionState.FOREGROUND_ACTIVE, 0)


def test_focus_change_is_activity_while_checking_is_stopped(make: MakeSession, clock: ManualClock) -> None:
    """A focus change extends the session even while checking is stopped manually."""
    session = make(extend_on_focus_change=True)
    session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(400)
    session.set_background(True)
    session.start_checker()
    assert session.expires_in == 300


def test_focus_change_counts_as_the_last_activity(make: MakeSession, clock: ManualClock) -> None:
    """A session that a focus change extended lasts until that change, partly in the background."""
    ended: list[SessionSummary] = []
    session = make(extend_on_focus_change=True, on_session_end=ended.append)
    start = clock.now()
    session.get_session_context(event_id(1))
    for background in (True, False):
        clock.advance(100)
        session.set_background(background)
    session.start_new_session()
    assert ended[0].last_event_time == start
    assert ended[0].last_activity_time == start + timedelta(seconds=200)
    assert (ended[0].foreground_seconds, ended[0].background_seconds) == (100, 100)


# The maximum duration.


def test_busy_session_ends_at_the_maximum_duration(make: MakeSession, clock: ManualClock) -> None:
    """However busy a session is, an event at its maximum duration begins the next one."""
    ended: list[SessionSummary] = []
    session = make(max_duration=timedelta(minutes=15), on_session_end=ended.append)
    indexes = []
    for number in range(30):
        indexes.append(session.get_session_context(event_id(number)).session_index)
        clock.advance(60)
    assert indexes == [1] * 15 + [2] * 15
    assert [(summary.reason, summary.event_count) for summary in ended] == [(EndReason.MAX_DURATION, 15)]


def test_touch_does_not_postpone_the_maximum_duration(make: MakeSession, clock: ManualClock) -> None:
    """`touch` restarts only the timeout."""
    session = make(max_duration=900)
    session.get_session_context(event_id(1))
    clock.advance(500)
    session.touch()
    assert session.expires_in == 400
    clock.advance(400)
    session.tick()
    assert session.event_index == 0


@pytest.mark.parametrize(
    ("max_duration", "reason"),
    [(599, EndReason.MAX_DURATION), (600, EndReason.TIMEOUT), (601, EndReason.TIMEOUT)],
)
def test_reason_is_the_limit_that_was_reached_first(
    make: MakeSession, clock: ManualClock, max_duration: float, reason: EndReason
) -> None:
    """If both limits have been reached when the end is noticed, the earlier one is the reason; a tie is the timeout."""
    ended: list[SessionSummary] = []
    session = make(max_duration=max_duration, on_session_end=ended.append)
    session.get_session_context(event_id(1))
    clock.advance(5000)
    session.tick()
    assert [summary.reason for summary in ended] == [reason]


def test_stopped_checker_suspends_the_maximum_duration(make: MakeSession, clock: ManualClock) -> None:
    """While checking is stopped, no limit applies; an event joins the session, and the next input ends it."""
    session = make(max_duration=900)
    session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(1000)
    assert session.expires_in is None
    assert session.get_session_context(event_id(2)).session_index == 1
    assert session.expires_in == 0
    assert session.get_session_context(event_id(3)).session_index == 2


def test_maximum_duration_in_the_background_stops_checking(make: MakeSession, clock: ManualClock) -> None:
    """A session that reaches its maximum duration in the background expires like one that timed out there."""
    session = make(max_duration=900, background_timeout=math.inf)
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(900)
    session.tick()
    assert session.state is SessionState.EXPIRED_CHECKER_STOPPED


def test_maximum_duration_can_be_set(make: MakeSession, clock: ManualClock) -> None:
    """The property can be read and set; a session that is already over under the old limit ends."""
    session = make()
    assert session.max_duration is None
    session.get_session_context(event_id(1))
    session.max_duration = timedelta(hours=1)
    assert session.max_duration == 3600
    clock.advance(100)
    session.max_duration = 100
    assert session.expires_in == 0
    session.max_duration = math.inf
    assert session.max_duration is None
    assert session.event_index == 0


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, r"^max_duration must be greater than 0 seconds \(math\.inf: never\), not 0$"),
        ("1h", TypeError, r"^max_duration must be a number of seconds or a timedelta, not '1h'$"),
    ],
)
def test_invalid_maximum_duration_is_rejected(
    make: MakeSession, value: object, error: type[Exception], message: str
) -> None:
    """The error names the argument, its value, and what is allowed, in the constructor and in the property."""
    with pytest.raises(error, match=message):
        make(max_duration=value)
    session = make()
    with pytest.raises(error, match=message):
        session.max_duration = value  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
