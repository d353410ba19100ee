"""The log of inputs that ``on_input`` receives."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from client_session import ClientSession, InputRecord, MemoryStore
from client_session.input_log import LOGGED
from client_session.testing import ManualClock, ManualScheduler
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence import SnapshotStore
    from conftest import MakeSession


def inputs(records: list[InputRecord]) -> list[str]:
    """Return the records' inputs."""
    return [record.input for record in records]


def test_each_input_that_matters_is_logged(make: MakeSession, clock: ManualClock) -> None:
    """Inputs are logged in order, with their times; ticks, settings, reading and close are not."""
    records: list[InputRecord] = []
    session = make(on_input=records.append)
    start = clock.now()
    calls: list[Callable[[], Any]] = [
        lambda: session.get_session_context(event_id(1)),
        lambda: session.get_session_context(event_id(2)),
        lambda: session.get_session_context(event_id(3), extend=False),
        session.tick,
        lambda: session.set_background(True),
        session.touch,
        session.stop_checker,
        session.start_checker,
        lambda: session.set_background(False),
        session.start_new_session,
        session.save,
        lambda: session.expires_in,
        session.close,
    ]
    for call in calls:
        clock.advance(1)
        call()
    assert [(record.input, record.event_id, (record.time - start).total_seconds()) for record in records] == [
        ("start", None, 0),
        ("event", event_id(1), 1),
        ("event", event_id(2), 2),
        ("passive", event_id(3), 3),
        ("background", None, 5),
        ("touch", None, 6),
        ("stop-checker", None, 7),
        ("start-checker", None, 8),
        ("foreground", None, 9),
        ("new-session", None, 10),
    ]
    assert [record.sequence for record in records] == list(range(10))
    assert {record.user_id for record in records} == {session.user_id}
    assert set(inputs(records)) == set(LOGGED) - {"forget"}


def test_record_can_be_written_as_json(make: MakeSession) -> None:
    """A record's JSON has the columns of a log."""
    records: list[InputRecord] = []
    session = make(on_input=records.append)
    session.get_session_context(event_id(1))
    assert json.loads(records[1].to_json()) == {
        "user_id": session.user_id,
        "time": "2026-01-01T00:00:00.000Z",
        "sequence": 1,
        "input": "event",
        "event_id": event_id(1),
    }


def test_times_follow_the_monotonic_clock(make: MakeSession, clock: ManualClock) -> None:
    """If the wall clock is set, the times in a run's log still have the distances that decided the sessions."""
    records: list[InputRecord] = []
    session = make(on_input=records.append)
    clock.set_wall(clock.now() - timedelta(days=1))
    clock.advance(10)
    session.get_session_context(event_id(1))
    assert records[1].time - records[0].time == timedelta(seconds=10)


def test_restart_is_logged_as_a_start_unless_the_session_continues(make: MakeSession, clock: ManualClock) -> None:
    """A run that resumes the saved session logs that the app is in the foreground; any other run logs a start."""
    records: list[InputRecord] = []
    for gap, expected in ((0, "start"), (10, "foreground"), (600, "start")):
        clock.advance(gap)
        records.clear()
        with make(continue_on_restart=True, on_input=records.append) as session:
            session.get_session_context(event_id(1))
        assert inputs(records) == [expected, "event"]


def test_forgetting_is_logged_for_the_old_user(make: MakeSession) -> None:
    """The new user's records begin with the state in which the app is."""
    records: list[InputRecord] = []
    session = make(on_input=records.append)
    session.get_session_context(event_id(1))
    old = session.user_id
    session.set_background(True)
    session.stop_checker()
    session.forget_user()
    session.get_session_context(event_id(2))
    assert [(record.input, record.user_id == old) for record in records[4:]] == [
        ("forget", True),
        ("background", False),
        ("stop-checker", False),
        ("event", False),
    ]


def test_adopted_user_gets_a_log_of_its_own(store: SnapshotStore, clock: ManualClock) -> None:
    """After another process forgets the user, the next session's records have the new user and the app's state."""
    records: list[InputRecord] = []
    session = ClientSession(store=store, clock=clock, scheduler=ManualScheduler(), on_input=records.append)
    session.get_session_context(event_id(1))
    session.set_background(True)
    ClientSession(store=store, clock=clock, scheduler=ManualScheduler()).forget_user()
    clock.advance(300)
    context = session.get_session_context(event_id(2))
    assert context.session_index == 1
    assert [(record.input, record.user_id) for record in records[-2:]] == [
        ("background", context.user_id),
        ("event", context.user_id),
    ]


def test_refused_event_is_not_logged(make: MakeSession) -> None:
    """An event with an invalid id is not an input."""
    records: list[InputRecord] = []
    session = make(on_input=records.append)
    for bad in ("x", None):
        try:
            session.get_session_context(bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        except (TypeError, ValueError):
            continue
    assert inputs(records) == ["start"]


def test_forked_child_begins_its_own_log() -> None:
    """A forked child's first record is a start, followed by the state that it inherited."""
    records: list[InputRecord] = []
    clock = ManualClock()
    session = ClientSession(store=MemoryStore(), clock=clock, scheduler=ManualScheduler(), on_input=records.append)
    session.get_session_context(event_id(1))
    session.set_background(True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        records.clear()
        session.get_session_context(event_id(2))
        os.write(write, json.dumps([(record.input, record.sequence) for record in records]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as result:
        assert json.load(result) == [["start", 0], ["background", 1], ["event", 2]]
