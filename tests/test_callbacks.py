"""Callbacks: arguments, order and thread, and what happens when one raises."""

from __future__ import annotations

import logging
import os
import re
import threading
from datetime import timedelta
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


def test_session_starts_at_its_first_event(make: MakeSession, clock: ManualClock) -> None:
    """on_session_start is called once per session, with the entity of the session's first event."""
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


def test_summary_describes_the_session_that_ended(make: MakeSession, clock: ManualClock) -> None:
    """The summary has ids, index, times, event count, foreground and background seconds, and the reason."""
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
    assert summary.last_event_time == summary.last_activity_time == start + timedelta(seconds=130)
    assert summary.event_count == 3
    assert (summary.foreground_seconds, summary.background_seconds) == (103.0, 27.0)
    assert summary.reason == "timeout"


def test_summary_durations_end_at_the_last_activity(make: MakeSession, clock: ManualClock) -> None:
    """Idle time after the last activity is neither foreground nor background time, even if the focus changes."""
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


def test_touch_extends_the_durations_but_not_the_last_event_time(make: MakeSession, clock: ManualClock) -> None:
    """The durations include time up to the last activity, but last_event_time is always the time of an event."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    start = clock.now()
    session.get_session_context(event_id(1))
    clock.advance(50)
    session.touch()
    session.start_new_session()
    assert (ended[0].last_event_time, ended[0].last_activity_time) == (start, start + timedelta(seconds=50))
    assert (ended[0].event_count, ended[0].foreground_seconds) == (1, 50.0)


@pytest.mark.parametrize("noticed_by", ["tick", "event", "toggle", "close"])
@pytest.mark.parametrize(("background", "reason"), [(False, EndReason.TIMEOUT), (True, EndReason.BACKGROUND_TIMEOUT)])
def test_reason_does_not_depend_on_which_call_notices_the_timeout(
    make: MakeSession, clock: ManualClock, noticed_by: str, reason: EndReason, *, background: bool
) -> None:
    """The reason is the timeout of the state the session was in, whichever call notices the timeout."""
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


def test_new_session_and_close_are_end_reasons(make: MakeSession) -> None:
    """Ending a session explicitly sets the reason to new-session or close."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append)
    session.get_session_context(event_id(1))
    session.start_new_session()
    session.get_session_context(event_id(2))
    session.close()
    assert [summary.reason for summary in ended] == ["new-session", "close"]


def test_session_without_events_has_no_summary(make: MakeSession, clock: ManualClock) -> None:
    """on_session_end is not called for pending sessions or for empty sessions that were counted."""
    for options in ({}, {"count_empty_sessions": True}):
        ended: list[SessionSummary] = []
        session = make(on_session_end=ended.append, **options)
        clock.advance(600)
        session.tick()
        session.start_new_session()
        session.close()
        assert ended == []


def test_close_does_not_end_a_resumable_session(make: MakeSession) -> None:
    """With continue_on_restart, the next start decides whether the session has ended."""
    ended: list[SessionSummary] = []
    session = make(on_session_end=ended.append, continue_on_restart=True)
    session.get_session_context(event_id(1))
    session.close()
    assert ended == []


def test_state_change_callback_gets_the_input(make: MakeSession, clock: ManualClock) -> None:
    """on_state_change gets the old state, the input and the new state; it is called only if the state changes."""
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


def test_callbacks_run_in_order(make: MakeSession, clock: ManualClock) -> None:
    """The old session's end is reported before the new session's start."""
    calls: list[str] = []
    session = make(
        on_session_start=lambda context: calls.append(f"start {context.session_index}"),
        on_session_end=lambda summary: calls.append(f"end {summary.session_index}"),
        on_state_change=lambda *change: calls.append(f"{change[1]}"),
    )
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.get_session_context(event_id(2))
    assert calls == ["start 1", "background", "end 1", "tick", "event", "start 2"]


def test_callback_may_call_the_session(make: MakeSession, clock: ManualClock) -> None:
    """A callback can call the session; that call's callbacks run after the first callback returns."""
    calls: list[str] = []

    def on_end(summary: SessionSummary) -> None:
        calls.append(f"end {summary.session_index}")
        if summary.session_index < 3:
            session.get_session_context(event_id(90 + summary.session_index))
            session.start_new_session()
        calls.append(f"done {summary.session_index}")

    session = make(
        on_session_start=lambda context: calls.append(f"start {context.session_index}"), on_session_end=on_end
    )
    session.get_session_context(event_id(1))
    clock.advance(600)
    session.tick()
    assert calls == ["start 1", "end 1", "done 1", "start 2", "end 2", "done 2", "start 3", "end 3", "done 3"]


def test_callbacks_run_without_the_lock(make: MakeSession) -> None:
    """Another thread can get an entity while a callback is running."""
    recorded = threading.Event()

    def event_on_another_thread() -> None:
        session.get_session_context(event_id(2))
        recorded.set()

    def on_start(_: SessionContext) -> None:
        thread = threading.Thread(target=event_on_another_thread)
        thread.start()
        assert recorded.wait(timeout=10)
        thread.join()

    session = make(on_session_start=on_start)
    session.get_session_context(event_id(1))
    assert recorded.is_set()
    assert session.event_index == 2


def test_callbacks_run_on_the_thread_that_caused_them(make: MakeSession) -> None:
    """A callback for an event on a worker thread runs on that thread."""
    calling_threads: list[int] = []
    session = make(on_session_start=lambda _: calling_threads.append(threading.get_ident()))
    thread = threading.Thread(target=lambda: session.get_session_context(event_id(1)))
    thread.start()
    ident = thread.ident
    thread.join()
    assert calling_threads == [ident]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork() is not available")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_forked_child_leaves_remaining_callbacks_to_the_parent(make: MakeSession, clock: ManualClock) -> None:
    """If a callback forks, the remaining callbacks run only once, in the parent."""
    children: list[int] = []
    started: list[int] = []
    session = make(
        on_session_end=lambda _: children.append(os.fork()),
        on_session_start=lambda context: started.append(context.session_index),
    )
    session.get_session_context(event_id(1))
    clock.advance(600)
    session.get_session_context(event_id(2))
    if children == [0]:
        os._exit(started != [1])
    assert os.waitpid(children[0], 0)[1] == 0
    assert started == [1, 2]


def test_failing_callback_is_logged_and_does_not_affect_the_session(
    make: MakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    """After a callback raises, the event still gets its entity, and the remaining callbacks run."""

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


def test_custom_logger_is_used(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """The session logs everything to the logger that was passed to it."""

    def fail(_: SessionContext) -> None:
        raise RuntimeError

    make(logger=logging.getLogger("custom"), on_session_start=fail).get_session_context(event_id(1))
    assert [record.name for record in caplog.records] == ["custom"]


def test_logger_that_raises_does_not_break_an_event(make: MakeSession) -> None:
    """With a broken logger, an event still gets its entity."""

    class BrokenLogger:
        """A logger whose methods all raise."""

        def _fail(self, msg: str, /, *args: object) -> None:
            raise RuntimeError(msg, args)

        debug = info = warning = exception = _fail

    def fail(_: SessionContext) -> None:
        raise RuntimeError

    session: ClientSession = make(logger=BrokenLogger(), on_session_start=fail)
    assert session.get_session_context(event_id(1)).event_index == 1


def test_failing_callback_is_logged_by_name(make: MakeSession, caplog: pytest.LogCaptureFixture) -> None:
    """The log line names the argument and the callable, and the event is counted."""

    def raise_key_error(_: SessionContext) -> None:
        raise KeyError("x")  # noqa: EM101  # a key, not a message

    session = make(on_session_start=raise_key_error)
    assert session.get_session_context(event_id(1)).event_index == 1
    (record,) = caplog.records
    assert re.match(r"on_session_start failed: <function .*raise_key_error", record.getMessage())
    assert record.exc_info


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_in_a_callback_reaches_the_caller_after_the_other_callbacks(
    make: MakeSession, error: type[BaseException]
) -> None:
    """SystemExit and KeyboardInterrupt propagate after the remaining callbacks have run; the event is counted."""
    ended: list[SessionSummary] = []

    def exit_program(*_: object) -> None:
        raise error

    session = make(on_session_start=exit_program, on_session_end=ended.append, on_state_change=exit_program)
    with pytest.raises(error):
        session.get_session_context(event_id(1))
    assert session.event_index == 1
    session.set_background(False)
    with pytest.raises(error):
        session.set_background(True)
    session.start_new_session()
    assert [summary.event_count for summary in ended] == [1]
