"""The session test cases from the .NET and Android trackers' own suites, on a manual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session_persistence import MemoryStore, Snapshot, loads
from event_ids import event_id

if TYPE_CHECKING:
    from pathlib import Path

    from client_session.testing import ManualClock, ManualScheduler
    from conftest import MakeSession


def test_new_installation_has_a_user_and_a_session_id(make: MakeSession) -> None:
    """.NET testClientSession: a first session has no previous session and uses the given timeouts."""
    session = make(foreground_timeout=10, background_timeout=5, check_interval=2)
    assert (session.foreground_timeout, session.background_timeout, session.check_interval) == (10.0, 5.0, 2.0)
    assert len(session.user_id) == len(session.session_id) == 36
    assert session.previous_session_id is None
    assert not session.background


def test_first_event_begins_session_1(make: MakeSession) -> None:
    """Android testFirstSession: the first event of a new installation begins session 1."""
    context = make().get_session_context(event_id(1))
    assert (context.session_index, context.event_index) == (1, 1)
    assert context.previous_session_id is None
    assert context.first_event_id == event_id(1)


def test_later_events_share_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testForegroundEventsOnSameSession: events have the same session and first event, and are numbered."""
    session = make()
    first = session.get_session_context(event_id(1))
    for number in range(2, 8):
        clock.advance(500)
        context = session.get_session_context(event_id(number))
        assert context.session_id == first.session_id
        assert context.first_event_id == event_id(1)
        assert context.first_event_timestamp == first.first_event_timestamp
        assert context.event_index == number


def test_foreground_timeout_begins_session_2(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """.NET testForegroundTimeout: after the timeout, the next event begins session 2, which refers to session 1."""
    session = make(foreground_timeout=10, check_interval=1)
    first = session.get_session_context(event_id(1))
    for _ in range(12):
        clock.advance(1)
        scheduler.run_due(clock)
    second = session.get_session_context(event_id(2))
    assert second.session_index == 2
    assert second.previous_session_id == first.session_id
    assert second.first_event_id == event_id(2)


def test_background_timeout_stops_the_checker(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """.NET testBackgroundTimeout: the checker stops in the background and restarts in the foreground."""
    session = make(background_timeout=10, check_interval=1)
    session.get_session_context(event_id(1))
    session.set_background(True)
    for _ in range(12):
        clock.advance(1)
        scheduler.run_due(clock)
    assert not session.checker_running
    session.set_background(False)
    assert session.checker_running
    assert session.get_session_context(event_id(2)).session_index == 2


def test_background_events_share_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testBackgroundEventsOnSameSession: events within the background timeout share a session."""
    session = make()
    session.set_background(True)
    first = session.get_session_context(event_id(1))
    for number in (2, 3, 4):
        clock.advance(299)
        assert session.get_session_context(event_id(number)).session_id == first.session_id


def test_alternating_late_events_begin_sessions(make: MakeSession, clock: ManualClock) -> None:
    """Android testMixedEventsOnManySessions: each event comes after the timeout and begins a new session."""
    session = make()
    contexts = []
    for number, background in enumerate((False, True, False, True), start=1):
        session.set_background(background)
        contexts.append(session.get_session_context(event_id(number)))
        clock.advance(601)
    assert [context.session_index for context in contexts] == [1, 2, 3, 4]
    assert [context.previous_session_id for context in contexts[1:]] == [c.session_id for c in contexts[:-1]]
    assert [context.first_event_id for context in contexts] == [event_id(number) for number in (1, 2, 3, 4)]


def test_stopped_checker_keeps_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testTimeoutSessionWhenPauseAndResume: expiry is suspended while the checker is stopped."""
    session = make(foreground_timeout=1, background_timeout=1)
    first = session.get_session_context(event_id(1))
    session.stop_checker()
    clock.advance(2)
    assert session.get_session_context(event_id(2)).session_id == first.session_id
    session.stop_checker()
    session.start_checker()
    clock.advance(2)
    third = session.get_session_context(event_id(3))
    assert third.session_index == 2
    assert third.previous_session_id == first.session_id


def test_long_idle_time_uses_one_index(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """Android testNoEventsForLongTimeDontIncreaseSessionIndexMultipleTimes: idle time increases the index only once."""
    session = make(foreground_timeout=1, background_timeout=1, check_interval=0.5)
    session.get_session_context(event_id(1))
    for _ in range(20):
        clock.advance(0.5)
        scheduler.run_due(clock)
    assert session.get_session_context(event_id(2)).session_index == 2


def test_long_background_time_ends_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testBackgroundTimeBiggerThanBackgroundTimeoutCausesNewSession: the next event begins a new session."""
    session = make(foreground_timeout=8, background_timeout=4)
    first = session.get_session_context(event_id(1))
    clock.advance(3)
    session.set_background(True)
    clock.advance(5)
    session.set_background(False)
    second = session.get_session_context(event_id(2))
    assert (second.session_index, second.previous_session_id) == (2, first.session_id)


def test_short_background_time_keeps_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testBackgroundTimeSmallerThanBackgroundTimeoutDoesntCauseNewSession: the session continues."""
    session = make(foreground_timeout=20, background_timeout=8)
    first = session.get_session_context(event_id(1))
    clock.advance(2)
    session.set_background(True)
    clock.advance(5)
    session.set_background(False)
    clock.advance(10)
    assert session.get_session_context(event_id(2)).session_id == first.session_id


def test_start_new_session_renews_the_session(make: MakeSession) -> None:
    """Android testStartNewSessionRenewTheSession: the next event has a new session id and the next index."""
    session = make()
    first = session.get_session_context(event_id(1))
    session.start_new_session()
    second = session.get_session_context(event_id(2))
    assert second.session_id != first.session_id
    assert second.session_index == first.session_index + 1


def test_numbering_continues_from_an_incomplete_save_file(make: MakeSession) -> None:
    """The user and index are kept even if the save file has only a user, or only a user and an index."""
    store = MemoryStore()
    store.save(Snapshot(user_id=event_id(7)))
    context = make(store=store).get_session_context(event_id(1))
    assert (context.user_id, context.session_index, context.previous_session_id) == (event_id(7), 1, None)
    store.save(Snapshot(user_id=event_id(7), session_index=20))
    context = make(store=store).get_session_context(event_id(2))
    assert (context.user_id, context.session_index, context.previous_session_id) == (event_id(7), 21, None)


def test_restart_begins_a_new_session(make: MakeSession) -> None:
    """Android testStartsNewSessionOnRestartByDefault: a restart begins session 2 for the same user."""
    with make() as before:
        first = before.get_session_context(event_id(1))
    second = make().get_session_context(event_id(2))
    assert second.user_id == first.user_id
    assert second.session_index == 2
    assert second.previous_session_id == first.session_id


def test_restart_in_time_resumes_the_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testResumesPreviousSessionOnRestartWhenEnabled: the session continues; only its event index changes."""
    with make(continue_on_restart=True) as before:
        before.get_session_context(event_id(1))
        last = before.get_session_context(event_id(2))
    clock.advance(599)
    after = make(continue_on_restart=True)
    assert after.session_id == last.session_id
    context = after.get_session_context(event_id(3))
    assert context.data == {**last.data, "eventIndex": 3}


def test_late_restart_begins_a_new_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testStartsNewSessionOnRestartOnTimeout: after the timeout, a restart begins a new session."""
    with make(continue_on_restart=True) as before:
        last = before.get_session_context(event_id(1))
    clock.advance(600)
    context = make(continue_on_restart=True).get_session_context(event_id(2))
    assert (context.session_index, context.previous_session_id) == (2, last.session_id)


def test_session_is_saved_at_its_first_event(make: MakeSession, save_path: Path) -> None:
    """Android testUpdatesPersistedSessionOnSessionUpdate: each session is saved at its first event."""
    session = make(save_path=save_path)
    assert loads(save_path.read_bytes()) == Snapshot(user_id=session.user_id)
    context = session.get_session_context(event_id(1))
    saved = loads(save_path.read_bytes())
    assert (saved.session_id, saved.session_index, saved.first_event_id) == (context.session_id, 1, event_id(1))


def test_sessions_with_different_files_are_independent(make: MakeSession, tmp_path: Path) -> None:
    """Android testMultipleTrackersUpdateDifferentSessions: each save file has its own user and session."""
    one, two = make(save_path=tmp_path / "one.xml"), make(save_path=tmp_path / "two.xml")
    first, second = one.get_session_context(event_id(1)), two.get_session_context(event_id(2))
    assert first.user_id != second.user_id
    assert (first.session_index, second.session_index) == (1, 1)


def test_anonymous_event_hides_user_and_previous_session(make: MakeSession, clock: ManualClock) -> None:
    """Android testAnonymisesUserAndPreviousSessionIdentifiers: the session index is kept."""
    session = make()
    session.get_session_context(event_id(1))
    clock.advance(600)
    context = session.get_session_context(event_id(2), anonymous=True)
    assert context.user_id == "00000000-0000-0000-0000-000000000000"
    assert context.previous_session_id is None
    assert context.session_index == 2
