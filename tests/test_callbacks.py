"""Callbacks: what is told, when, in which order, on which thread; and what a failing one does."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_session import EndReason, Input, SessionState
from event_ids import event_id

if TYPE_CHECKING:
    from client_session import ClientSession, SessionContext, SessionSummary
    from client_session.testing import ManualClock
    from conftest import MakeSession

FOREGROUND = SessionState.FOREGROUND_ACTIVE
BACKGROUND = SessionState.BACKGROUND_ACTIVE
EXPIRED = SessionState.EXPIRED_CHECKER_STOPPED


def test_a_session_starts_at_its_first_event(make: MakeSession, clock: ManualClock) -> None:
    """on_session_start gets the entity of each session's first event, and of no other."""
    started: list[SessionContext] = []
    session = make(on_session_start=started.append)
    assert started == []
    first = session.get_session_context(event_id(1))
    session.get_session_context(event_id(2))
    clock.advance(600)
    session.tick()
    assert started == [first]
    second = session.get_session_context(event_id(3))
    assert started == [first, second]


def test_the_summary_says_what_the_session_was(make: MakeSession, clock: ManualClock) -> None:
    """Ids and index, first and last event time, event count, seconds in each focus, reason."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    session.get_session_context(event_id(1))
    session.start_new_session()
    start = clock.now()
    context = session.get_session_context(event_id(2))
    clock.advance(100)
    session.set_background(True)
    clock.advance(20)
    session.get_session_context(event_id(3))
    clock.advance(7)
    session.set_background(False)
    clock.advance(3)
    session.get_session_context(event_id(4))
    clock.advance(600)
    session.tick()
    summary = ended[1]
    assert summary.user_id == context.user_id
    assert summary.session_id == context.session_id
    assert summary.previous_session_id == context.previous_session_id == ended[0].session_id
    assert summary.session_index == 2
    assert summary.first_event_id == event_id(2)
    assert summary.first_event_time == start
    assert summary.last_event_time == start + timedelta(seconds=130)
    assert summary.event_count == 3
    assert (summary.foreground_seconds, summary.background_seconds) == (103.0, 27.0)
    assert summary.reason == "timeout"


def test_the_summarys_end_is_the_last_activity(make: MakeSession, clock: ManualClock) -> None:
    """What follows the last activity counts in neither focus: not the silence, nor toggles in it."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    start = clock.now()
    session.get_session_context(event_id(1))
    clock.advance(50)
    session.get_session_context(event_id(2))
    clock.advance(100)
    session.set_background(True)
    clock.advance(50)
    session.set_background(False)
    clock.advance(5000)
    session.tick()
    assert ended[0].last_event_time == start + timedelta(seconds=50)
    assert (ended[0].foreground_seconds, ended[0].background_seconds) == (50.0, 0.0)


def test_a_touch_lengthens_the_time_but_is_no_event(make: MakeSession, clock: ManualClock) -> None:
    """The seconds run to the last activity, the last event time is an event's."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    start = clock.now()
    session.get_session_context(event_id(1))
    clock.advance(50)
    session.touch()
    session.start_new_session()
    assert ended[0].last_event_time == start
    assert (ended[0].event_count, ended[0].foreground_seconds) == (1, 50.0)


def test_events_with_times_of_their_own_give_the_summary_theirs(make: MakeSession) -> None:
    """event_timestamp stamps the summary's first and last event."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    first, last = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 0, 5, tzinfo=UTC)
    session.get_session_context(event_id(1), first)
    session.get_session_context(event_id(2), last)
    session.start_new_session()
    assert (ended[0].first_event_time, ended[0].last_event_time) == (first, last)


@pytest.mark.parametrize("noticed_by", ["tick", "event", "toggle", "close"])
@pytest.mark.parametrize(("background", "reason"), [(False, EndReason.TIMEOUT), (True, EndReason.BACKGROUND_TIMEOUT)])
def test_the_reason_does_not_depend_on_who_noticed(
    make: MakeSession, clock: ManualClock, noticed_by: str, reason: EndReason, *, background: bool
) -> None:
    """A timeout is a timeout, of the state in which it happened, whatever noticed it."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    session.get_session_context(event_id(1))
    session.set_background(background)
    clock.advance(600)
    if noticed_by == "tick":
        session.tick()
    elif noticed_by == "event":
        session.get_session_context(event_id(2))
    elif noticed_by == "toggle":
        session.set_background(not background)
    else:
        session.close()
    assert [summary.reason for summary in ended] == [reason]


def test_new_session_and_close_are_reasons(make: MakeSession) -> None:
    """A session that the embedder ends says so."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    session.get_session_context(event_id(1))
    session.start_new_session()
    session.get_session_context(event_id(2))
    session.close()
    assert [summary.reason for summary in ended] == ["new-session", "close"]


def test_a_session_without_events_never_ends(make: MakeSession, clock: ManualClock) -> None:
    """No summary of a pending session, nor of an empty one that is counted."""
    for options in ({}, {"count_empty_sessions": True}):
        ended: list[SessionSummary] = []
        session = make(on_session_end=ended.append, **options)
        clock.advance(600)
        session.tick()
        session.start_new_session()
        session.close()
        assert ended == []


def test_a_close_that_may_be_continued_ends_nothing(make: MakeSession) -> None:
    """With continue_on_restart, the next start decides."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append, continue_on_restart=True)
    session.get_session_context(event_id(1))
    session.close()
    assert ended == []


def test_state_changes_are_told_with_their_input(make: MakeSession, clock: ManualClock) -> None:
    """on_state_change gets the state before, the input, and the state after; a state that stays is not told."""
    changes: list[tuple[SessionState, Input, SessionState]] = []
    session = make(on_state_change=lambda *change: changes.append(change))
    session.get_session_context(event_id(1))
    session.set_background(False)
    session.set_background(True)
    session.set_background(True)
    clock.advance(300)
    session.get_session_context(event_id(2))
    session.set_background(False)
    assert changes == [
        (FOREGROUND, Input.BACKGROUND, BACKGROUND),
        (BACKGROUND, Input.TICK, EXPIRED),
        (EXPIRED, Input.EVENT, BACKGROUND),
        (BACKGROUND, Input.FOREGROUND, FOREGROUND),
    ]


def test_callbacks_come_in_order(make: MakeSession, clock: ManualClock) -> None:
    """What one event causes is told as it happened: the old session's end before the new one's start."""
    told: list[str] = []
    session = make(
        on_session_start=lambda context: told.append(f"start {context.session_index}"),
        on_session_end=lambda summary: told.append(f"end {summary.session_index}"),
        on_state_change=lambda *change: told.append(f"{change[1]}"),
    )
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.get_session_context(event_id(2))
    assert told == ["start 1", "background", "end 1", "tick", "event", "start 2"]


def test_a_callback_may_call_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Calls from a callback work, and what they cause is told afterwards."""
    told: list[str] = []

    def on_end(summary: SessionSummary) -> None:
        told.append(f"end {summary.session_index}")
        if summary.session_index < 3:
            session.get_session_context(event_id(90 + summary.session_index))
            session.start_new_session()
        told.append(f"done {summary.session_index}")

    session = make(
        on_session_start=lambda context: told.append(f"start {context.session_index}"), on_session_end=on_end
    )
    session.get_session_context(event_id(1))
    clock.advance(600)
    session.tick()
    assert told == ["start 1", "end 1", "done 1", "start 2", "end 2", "done 2", "start 3", "end 3", "done 3"]


def test_the_lock_is_free_during_a_callback(make: MakeSession) -> None:
    """Another thread gets an entity while a callback is running."""
    answered = threading.Event()

    def event_elsewhere() -> None:
        session.get_session_context(event_id(2))
        answered.set()

    def on_start(_: SessionContext) -> None:
        thread = threading.Thread(target=event_elsewhere)
        thread.start()
        assert answered.wait(timeout=10)
        thread.join()

    session = make(on_session_start=on_start)
    session.get_session_context(event_id(1))
    assert answered.is_set()
    assert session.event_index == 2


def test_callbacks_run_on_the_thread_that_caused_them(make: MakeSession) -> None:
    """An event on a thread is told on that thread."""
    told_on: list[int] = []
    session = make(on_session_start=lambda _: told_on.append(threading.get_ident()))
    thread = threading.Thread(target=lambda: session.get_session_context(event_id(1)))
    thread.start()
    ident = thread.ident
    thread.join()
    assert told_on == [ident]


def test_a_failing_callback_is_logged_and_changes_nothing(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """The event gets its entity, and the callbacks after the failing one are called."""

    def fail(*_: object) -> None:
        message = "callback broke"
        raise RuntimeError(message)

    started: list[SessionContext] = []
    session = make(on_state_change=fail, on_session_end=fail, on_session_start=started.append)
    context = session.get_session_context(event_id(1))
    session.set_background(True)
    session.start_new_session()
    assert session.get_session_context(event_id(2)).session_index == 2
    assert len(started) == 2
    assert started[0] == context
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 2
    assert all("callback broke" in str(record.exc_info and record.exc_info[1]) for record in failures)


def test_a_logger_of_ones_own_is_used(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """What the session logs goes to the given logger."""

    def fail(_: SessionContext) -> None:
        raise RuntimeError

    make(logger=logging.getLogger("of.my.own"), on_session_start=fail).get_session_context(event_id(1))
    assert [record.name for record in caplog.records] == ["of.my.own"]


def test_a_logger_that_raises_is_not_in_the_way(make: MakeSession) -> None:
    """A broken logger costs no event."""

    class BrokenLogger:
        """Fails whatever it is asked to log."""

        def _fail(self, msg: str, /, *args: object) -> None:
            raise RuntimeError(msg, args)

        debug = info = warning = exception = _fail

    def fail(_: SessionContext) -> None:
        raise RuntimeError

    session: ClientSession = make(logger=BrokenLogger(), on_session_start=fail)
    assert session.get_session_context(event_id(1)).event_index == 1
