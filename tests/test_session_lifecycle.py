"""Which events share a session: the graph's rows and the two rules, seen from outside."""

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


def test_starts_in_focus_with_the_checker_running(make: MakeSession, scheduler: ManualScheduler) -> None:
    """A new session is in the foreground, pending, and ticked."""
    session = make()
    assert session.state is FOREGROUND
    assert not session.background
    assert session.checker_running
    assert session in scheduler
    assert session.session_index is None
    assert session.event_index == 0


def test_an_event_is_activity_in_focus(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, event: the timeout starts anew."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(599)
    session.get_session_context(event_id(2))
    clock.advance(599)
    assert session.get_session_context(event_id(3)).session_id == first.session_id


def test_a_tick_in_time_changes_nothing(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, tick, in time: no row, no change, and a tick is no activity."""
    session = make()
    session.get_session_context(event_id(1))
    before = session.session_id
    clock.advance(599.5)
    session.tick()
    assert session.session_id == before
    assert session.expires_in == 0.5


def test_a_tick_renews_a_session_that_timed_out_in_focus(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, tick, timed out: a pending session follows, and the checker runs on."""
    session = make()
    session.get_session_context(event_id(1))
    before = session.session_id
    clock.advance(600)
    session.tick()
    assert session.session_id != before
    assert session.state is FOREGROUND
    assert session.checker_running
    assert session.first_event_id is None


def test_losing_the_focus_is_no_activity(make: MakeSession, clock: ManualClock) -> None:
    """foreground-active, background: the state changes, and the timeout runs on from the last event."""
    session = make()
    session.get_session_context(event_id(1))
    clock.advance(100)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.background
    assert session.expires_in == 200


def test_foreground_always_starts_the_checker(make: MakeSession, scheduler: ManualScheduler) -> None:
    """foreground-active, foreground: the state stays, and a checker stopped by hand runs again."""
    session = make()
    session.stop_checker()
    assert session not in scheduler
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.checker_running
    assert session in scheduler


def test_an_event_is_activity_out_of_focus(make: MakeSession, clock: ManualClock) -> None:
    """background-active, event: the session goes on, still in the background."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(299)
    session.get_session_context(event_id(2))
    clock.advance(299)
    assert session.get_session_context(event_id(3)).session_id == first.session_id
    assert session.state is BACKGROUND


def test_expires_once_out_of_focus(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """background-active, tick, timed out: the session is renewed and the checker stops."""
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


def test_winning_the_focus_back_in_time_goes_on(make: MakeSession, clock: ManualClock) -> None:
    """background-active, foreground: the same session, under the foreground timeout."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(299)
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.expires_in == 301
    clock.advance(300)
    assert session.get_session_context(event_id(2)).session_id == first.session_id


def test_background_twice_changes_nothing(make: MakeSession, clock: ManualClock) -> None:
    """background-active, background: nothing changes."""
    session = make()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(100)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.expires_in == 200


def test_an_event_after_expiry_begins_the_pending_session_in_the_background(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, event: background-active, the checker runs, the pending session has its first event."""
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


def test_the_focus_after_expiry_starts_the_checker(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, foreground: foreground-active, and the pending session waits on."""
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


def test_starting_the_checker_after_expiry_resumes(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """expired-checker-stopped, resume: start_checker() leads back to background-active."""
    session = make()
    session.set_background(True)
    clock.advance(300)
    session.tick()
    assert session.state is EXPIRED
    session.start_checker()
    assert session.state is BACKGROUND
    assert session in scheduler


def test_ticks_and_background_after_expiry_change_nothing(make: MakeSession, clock: ManualClock) -> None:
    """expired-checker-stopped, tick or background: nothing changes, however long it lasts."""
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
def test_equal_counts_as_timed_out(make: MakeSession, clock: ManualClock, timeout: float, *, background: bool) -> None:
    """At exactly the timeout an event begins a new session; an instant before, it does not."""
    session = make()
    session.set_background(background)
    first = session.get_session_context(event_id(1))
    clock.advance(timeout - 2**-20)
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    clock.advance(timeout)
    assert session.get_session_context(event_id(3)).session_id != first.session_id


# Rule 1: check first


def test_an_event_after_the_timeout_begins_a_new_session_without_any_tick(
    make: MakeSession, clock: ManualClock
) -> None:
    """Check first: an event never revives a session by beating the timer."""
    session = make(check_interval=3600)
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    second = session.get_session_context(event_id(2))
    assert second.session_id != first.session_id
    assert second.previous_session_id == first.session_id
    assert (second.session_index, second.event_index) == (2, 1)


def test_a_toggle_is_judged_by_the_timeout_of_the_state_that_is_left(make: MakeSession, clock: ManualClock) -> None:
    """A background stay of 300 s ends the session although the foreground timeout would let it live."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(300)
    session.set_background(False)
    assert session.state is FOREGROUND
    assert session.get_session_context(event_id(2)).session_id != first.session_id


def test_losing_the_focus_is_judged_by_the_foreground_timeout(make: MakeSession, clock: ManualClock) -> None:
    """After 400 s in focus a session lives on when the focus is lost, although 300 s would be over."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(400)
    session.set_background(True)
    assert session.session_id == first.session_id
    assert session.expires_in == 0.0


def test_a_late_toggle_ends_the_session_first(make: MakeSession, clock: ManualClock) -> None:
    """A session that timed out in focus ends when the focus is lost, without any tick in between."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    session.set_background(True)
    assert session.state is BACKGROUND
    assert session.session_id != first.session_id


@pytest.mark.parametrize("revive", ["touch", "timeout", "stop"])
def test_nothing_revives_a_session_that_timed_out_unnoticed(make: MakeSession, clock: ManualClock, revive: str) -> None:
    """A touch, a longer timeout or a stopped checker after the timeout come too late, as after a tick."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(600)
    if revive == "touch":
        session.touch()
    elif revive == "timeout":
        session.foreground_timeout = 10_000
    else:
        session.stop_checker()
    assert session.get_session_context(event_id(2)).session_id != first.session_id


# Rule 2: a session is numbered at its first event


def test_an_idle_session_uses_up_no_number(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """A long silence counts once: eight idle hours in focus leave one pending session and no gap in the index."""
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


def test_background_stays_use_up_no_number(make: MakeSession, clock: ManualClock) -> None:
    """Going to and fro without events makes no sessions."""
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


def test_a_pending_session_cannot_expire(make: MakeSession, clock: ManualClock) -> None:
    """A pending session is never replaced, and expires_in says so."""
    session = make()
    pending = session.session_id
    assert session.expires_in is None
    clock.advance(10_000)
    session.tick()
    assert session.session_id == pending


def test_counting_empty_sessions_numbers_every_expiry(make: MakeSession, clock: ManualClock) -> None:
    """With count_empty_sessions, construction and each idle timeout make, count and save a session."""
    session = make(count_empty_sessions=True)
    assert session.session_index == 1
    assert session.expires_in == 600
    for expected in (2, 3, 4):
        before = session.session_id
        clock.advance(600)
        session.tick()
        assert session.session_index == expected
        assert session.previous_session_id == before


# By hand


def test_a_new_session_on_demand_can_be_read_at_once(make: MakeSession) -> None:
    """start_new_session: the next id is there before the next event, which carries it."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.start_new_session()
    pending = session.session_id
    assert pending != first.session_id
    second = session.get_session_context(event_id(2))
    assert second.session_id == pending
    assert second.session_index == 2


def test_a_new_session_on_demand_needs_events_to_end(make: MakeSession) -> None:
    """start_new_session leaves a pending session alone."""
    session = make()
    pending = session.session_id
    session.start_new_session()
    assert session.session_id == pending


def test_touch_starts_the_timeout_anew(make: MakeSession, clock: ManualClock) -> None:
    """What is not tracked can still be activity, and is no event."""
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
    """While a film is playing nothing expires: not by a tick, not at the next event, which starts the checker again."""
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


def test_an_event_that_starts_the_checker_again_is_no_first_event(make: MakeSession, clock: ManualClock) -> None:
    """A session has one first event, however often its checker was stopped."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.advance(5)
    session.stop_checker()
    second = session.get_session_context(event_id(2))
    assert second.data == {**first.data, "eventIndex": 2}


def test_starting_the_checker_ends_the_suspension(make: MakeSession, clock: ManualClock) -> None:
    """After start_checker the time since the last activity counts again."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(7200)
    session.start_checker()
    assert session.expires_in == 0.0
    assert session.get_session_context(event_id(2)).session_id != first.session_id


def test_settings_take_effect_at_once(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """Timeouts and interval can be changed at any time."""
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


def test_reading_never_extends_the_session(make: MakeSession, clock: ManualClock) -> None:
    """No property is activity."""
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


def test_the_wall_clock_never_rotates_a_session(make: MakeSession, clock: ManualClock) -> None:
    """Setting the wall clock a day back or forth neither ends a session nor keeps it alive."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.set_wall(clock.now().replace(year=2030))
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    clock.set_wall(clock.now().replace(year=2001))
    assert session.get_session_context(event_id(3)).session_id == first.session_id
    clock.advance(600)
    assert session.get_session_context(event_id(4)).session_id != first.session_id


def test_a_laptops_sleep_counts(make: MakeSession, clock: ManualClock) -> None:
    """A machine that slept for the timeout ends the session, though no tick came."""
    session = make()
    first = session.get_session_context(event_id(1))
    clock.suspend(3600)
    assert session.get_session_context(event_id(2)).session_id != first.session_id
