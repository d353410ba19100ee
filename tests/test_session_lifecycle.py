"""Which events share a session: every row of the graph and both rules, tested through the public API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_session import SessionState
from event_ids import event_id

if TYPE_CHECKING:
    from client_session.testing import ManualClock, ManualScheduler
    from conftest import MakeSession

FOREGROUND = SessionState.FOREGROUND_ACTIVE
BACKGROUND = SessionState.BACKGROUND_ACTIVE
EXPIRED = SessionState.EXPIRED_CHECKER_STOPPED


def test_session_starts_in_the_foreground_with_the_checker_running(
    make: MakeSession, scheduler: ManualScheduler
) -> None:
    """A new session is pending, in the foreground, and checked for expiry."""
    session = make()
    assert session.state is FOREGROUND
    assert not session.background
    assert session.checker_running
    assert session in scheduler
    assert session.session_index is None
    assert session.event_index == 0


def test_event_in_the_foreground_restarts_the_timeout(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, event: the event counts as activity."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(599)
    session.get_session_context(event_id(2))
    clock.advance(599)
    assert session.get_session_context(event_id(3)).session_id == first.session_id


def test_tick_before_the_timeout_changes_nothing(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, tick before the timeout: nothing changes, and the tick does not count as activity."""
    session = make()
    session.get_session_context(event_id(1))
    before = session.session_id
    clock.advance(599.5)
    session.tick()
    assert session.session_id == before
    assert session.expires_in == 0.5


def test_tick_after_the_foreground_timeout_starts_a_pending_session(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, tick after the timeout: the next session is pending, and the checker keeps running."""
    session = make()
    session.get_session_context(event_id(1))
    before = session.session_id
    clock.advance(600)
    session.tick()
    assert session.session_id != before
    assert session.state is FOREGROUND
    assert session.checker_running
    assert session.first_event_id is None


def test_going_to_the_background_does_not_extend_the_session(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, background: the state changes, and the timeout is still measured from the last event."""
    session = make()
    session.get_session_context(event_id(1))
    clock.advance(100)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.background
    assert session.expires_in == 200


def test_foreground_restarts_a_stopped_checker(make: MakeSession, scheduler: ManualScheduler) -> None:
    """foreground-active, foreground: the state stays the same, and a manually stopped checker runs again."""
    session = make()
    session.stop_checker()
    assert session not in scheduler
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.checker_running
    assert session in scheduler


def test_event_in_the_background_restarts_the_timeout(make: MakeSession, clock: ManualClock) -> None:
    """background-active, event: the session continues in the background."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(299)
    session.get_session_context(event_id(2))
    clock.advance(299)
    assert session.get_session_context(event_id(3)).session_id == first.session_id
    assert session.state is BACKGROUND


def test_tick_after_the_background_timeout_stops_the_checker(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """background-active, tick after the timeout: the session is renewed and the checker stops."""
    session = make()
    session.get_session_context(event_id(1))
    before = session.session_id
    session.set_background(True)
    clock.advance(300)
    session.tick()
    assert session.session_id != before
    assert session.state is EXPIRED
    assert session.background
    assert not session.checker_running
    assert session not in scheduler


def test_returning_to_the_foreground_in_time_continues_the_session(make: MakeSession, clock: ManualClock) -> None:
    """background-active, foreground: the same session continues under the foreground timeout."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(299)
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.expires_in == 301
    clock.advance(300)
    assert session.get_session_context(event_id(2)).session_id == first.session_id


def test_repeated_background_changes_nothing(make: MakeSession, clock: ManualClock) -> None:
    """background-active, background: nothing changes."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(100)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.expires_in == 200


def test_event_after_expiry_begins_the_pending_session_in_the_background(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, event: the pending session gets its first event, and the checker runs again."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.tick()
    pending = session.session_id
    context = session.get_session_context(event_id(2))
    assert context.session_id == pending
    assert context.first_event_id == event_id(2)
    assert session.state is BACKGROUND
    assert session in scheduler
    assert session.expires_in == 300


def test_foreground_after_expiry_starts_the_checker(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, foreground: the state becomes foreground-active, and the session is still pending."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.tick()
    pending = session.session_id
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session in scheduler
    assert session.session_id == pending
    assert session.session_index is None


def test_start_checker_after_expiry_resumes_checking(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, resume: start_checker() returns to background-active."""
    session = make()
    session.set_background(True)
    clock.advance(300)
    session.tick()
    assert session.state is EXPIRED
    session.start_checker()
    assert session.state is BACKGROUND
    assert session in scheduler


def test_ticks_and_background_after_expiry_change_nothing(make: MakeSession, clock: ManualClock) -> None:
    """expired-checker-stopped, tick or background: nothing changes, no matter how much time passes."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.tick()
    pending = session.session_id
    clock.advance(100_000)
    session.tick()
    session.set_background(True)
    assert session.state is EXPIRED
    assert session.session_id == pending
    assert not session.checker_running


@pytest.mark.parametrize(("background", "timeout"), [(False, 600.0), (True, 300.0)])
def test_session_is_over_at_exactly_the_timeout(
    make: MakeSession, clock: ManualClock, timeout: float, *, background: bool
) -> None:
    """An event exactly at the timeout begins a new session; an event an instant earlier does not."""
    session = make()
    session.set_background(background)
    first = session.get_session_context(event_id(1))
    clock.advance(timeout - 2**-20)
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    clock.advance(timeout)
    assert session.get_session_context(event_id(3)).session_id != first.session_id


# Rule 1: check first.


def test_event_after_the_timeout_begins_a_new_session_without_a_tick(make: MakeSession, clock: ManualClock) -> None:
    """An event that arrives before the next tick does not revive a session that has timed out."""
    session = make(check_interval=3600)
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    second = session.get_session_context(event_id(2))
    assert second.session_id != first.session_id
    assert second.previous_session_id == first.session_id
    assert (second.session_index, second.event_index) == (2, 1)


def test_returning_to_the_foreground_uses_the_background_timeout(make: MakeSession, clock: ManualClock) -> None:
    """After 300 s in the background the session is over, even though the foreground timeout is longer."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.get_session_context(event_id(2)).session_id != first.session_id


def test_going_to_the_background_uses_the_foreground_timeout(make: MakeSession, clock: ManualClock) -> None:
    """After 400 s in the foreground the session survives, even though the background timeout is 300 s."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(400)
    session.set_background(True)
    assert session.session_id == first.session_id
    assert session.expires_in == 0.0


def test_late_toggle_ends_the_session_first(make: MakeSession, clock: ManualClock) -> None:
    """A session that timed out in the foreground ends when the program goes to the background, even without a tick."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.session_id != first.session_id


@pytest.mark.parametrize("action", ["touch", "timeout", "stop"])
def test_session_past_its_timeout_cannot_be_revived(make: MakeSession, clock: ManualClock, action: str) -> None:
    """After the timeout, a touch, a longer timeout, or stopping the checker does not revive the session."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    if action == "touch":
        session.touch()
    elif action == "timeout":
        session.foreground_timeout = 10_000
    else:
        session.stop_checker()
    assert session.get_session_context(event_id(2)).session_id != first.session_id


# Rule 2: a session is numbered at its first event.


def test_idle_time_does_not_use_session_indexes(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """After eight idle hours in the foreground, there is one pending session, and the indexes have no gaps."""
    session = make()
    first = session.get_session_context(event_id(1))
    ids = set()
    for _ in range(8 * 240):
        clock.advance(15)
        scheduler.run_due(clock)
        ids.add(session.session_id)
    assert len(ids) == 2
    second = session.get_session_context(event_id(2))
    assert second.session_index == first.session_index + 1
    assert second.previous_session_id == first.session_id


def test_background_toggles_do_not_use_session_indexes(make: MakeSession, clock: ManualClock) -> None:
    """Focus changes without events do not create sessions."""
    session = make()
    first = session.get_session_context(event_id(1))
    for _ in range(10):
        session.set_background(True)
        clock.advance(1000)
        session.tick()
        session.set_background(False)
        clock.advance(1000)
        session.tick()
    assert session.get_session_context(event_id(2)).session_index == first.session_index + 1


def test_pending_session_does_not_expire(make: MakeSession, clock: ManualClock) -> None:
    """A pending session is never replaced, and its expires_in is None."""
    session = make()
    pending = session.session_id
    assert session.expires_in is None
    clock.advance(10_000)
    session.tick()
    assert session.session_id == pending


def test_count_empty_sessions_numbers_every_expiry(make: MakeSession, clock: ManualClock) -> None:
    """With count_empty_sessions, a session is created and numbered at construction and at each idle timeout."""
    session = make(count_empty_sessions=True)
    assert session.session_index == 1
    assert session.expires_in == 600
    for expected in (2, 3, 4):
        before = session.session_id
        clock.advance(600)
        session.tick()
        assert session.session_index == expected
        assert session.previous_session_id == before


# Calls that control the session explicitly.


def test_start_new_session_assigns_the_next_id_at_once(make: MakeSession) -> None:
    """After start_new_session, the next session's id can be read at once, and the next event uses that id."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.start_new_session()
    pending = session.session_id
    assert pending != first.session_id
    second = session.get_session_context(event_id(2))
    assert second.session_id == pending
    assert second.session_index == 2


def test_start_new_session_renews_a_pending_id(make: MakeSession, clock: ManualClock) -> None:
    """A pending session's id can be renewed, so that clones of a process do not begin the same session."""
    session = make()
    pending = session.session_id
    session.start_new_session()
    renewed = session.session_id
    first = session.get_session_context(event_id(1))
    assert (first.session_id, first.session_index) == (renewed, 1)
    assert renewed != pending
    clock.advance(600)
    session.start_new_session()
    session.start_new_session()
    second = session.get_session_context(event_id(2))
    assert (second.session_index, second.previous_session_id) == (2, renewed)


def test_touch_restarts_the_timeout(make: MakeSession, clock: ManualClock) -> None:
    """A touch counts as activity but not as an event."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(599)
    session.touch()
    assert session.expires_in == 600
    clock.advance(599)
    second = session.get_session_context(event_id(2))
    assert second.session_id == first.session_id
    assert second.event_index == 2


def test_stopping_the_checker_suspends_expiry(make: MakeSession, clock: ManualClock) -> None:
    """With the checker stopped, the session does not expire; the next event belongs to it and restarts the checker."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.stop_checker()
    assert session.expires_in is None
    clock.advance(7200)
    session.tick()
    assert session.session_id == first.session_id
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    assert session.checker_running
    assert session.expires_in == 600


def test_event_that_restarts_the_checker_is_not_a_first_event(make: MakeSession, clock: ManualClock) -> None:
    """A session has only one first event, no matter how often its checker is stopped."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(5)
    session.stop_checker()
    second = session.get_session_context(event_id(2))
    assert second.data == {**first.data, "eventIndex": 2}


def test_starting_the_checker_resumes_expiry(make: MakeSession, clock: ManualClock) -> None:
    """After start_checker, the time since the last activity counts toward the timeout again."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(7200)
    session.start_checker()
    assert session.expires_in == 0.0
    assert session.get_session_context(event_id(2)).session_id != first.session_id


def test_settings_take_effect_at_once(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """The timeouts and the check interval can be changed at any time."""
    session = make()
    session.get_session_context(event_id(1))
    clock.advance(100)
    session.foreground_timeout = 120
    assert (session.foreground_timeout, session.expires_in) == (120.0, 20.0)
    session.background_timeout = 110
    session.set_background(True)
    assert session.expires_in == 10
    session.check_interval = 5
    assert scheduler.next_due() == 105.0


def test_check_interval_set_while_stopped_applies_at_the_next_start(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """Setting the interval while the checker is stopped does not start it."""
    session = make()
    session.stop_checker()
    session.check_interval = 5
    assert session not in scheduler
    session.start_checker()
    assert scheduler.next_due() == clock.monotonic() + 5


def test_reading_does_not_extend_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Reading a property does not count as activity."""
    session = make()
    first = session.get_session_context(event_id(1))
    for _ in range(6):
        clock.advance(100)
        names = [name for name in dir(type(session)) if isinstance(getattr(type(session), name), property)]
        assert len(names) >= 16
        for name in names:
            getattr(session, name)
    assert session.expires_in == 0.0
    assert session.get_session_context(event_id(2)).session_id != first.session_id


def test_wall_clock_changes_do_not_affect_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Setting the wall clock back or forward neither ends a session nor keeps it alive."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now().replace(year=2030))
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    clock.set_wall(clock.now().replace(year=2001))
    assert session.get_session_context(event_id(3)).session_id == first.session_id
    clock.advance(600)
    assert session.get_session_context(event_id(4)).session_id != first.session_id


def test_system_sleep_counts_toward_the_timeout(make: MakeSession, clock: ManualClock) -> None:
    """A session ends if the machine sleeps for the timeout or longer, even without a tick."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.suspend(3600)
    assert session.get_session_context(event_id(2)).session_id != first.session_id
