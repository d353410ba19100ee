"""The Snowplow tracker adapter with the sessions of visitors: one tracker per request, and failing stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft4Validator, FormatChecker

from client_session.testing import ManualClock, ManualStates
from client_session.visitors import AsyncVisitorSessions, VisitorSession, VisitorSessions, exchange
from client_session_persistence import MemoryStates, SqliteStates
from collector import Collector, entities_of, session_of
from rivals import ContendedStates

pytest.importorskip("snowplow_tracker", reason="snowplow-tracker is not installed (extra: snowplow)")

from snowplow_tracker.emitters import Emitter  # imported after the skip
from snowplow_tracker.events.page_view import PageView  # imported after the skip
from snowplow_tracker.events.structured_event import StructuredEvent  # imported after the skip

from client_session.trackers.snowplow import SessionTracker  # imported after the skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snowplow_tracker.events.event import Event

SCHEMA = json.loads((Path(__file__).parent / "data" / "iglu" / "client_session-1-0-2.json").read_text())
VALIDATOR = Draft4Validator(SCHEMA, format_checker=FormatChecker())


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Yield a running collector, and bypass any proxy configured on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Collector() as collector:
        yield collector


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make inputs give up at the first swap that fails, instead of after a second."""
    monkeypatch.setattr(exchange, "CONTENTION_SECONDS", 0.0)


@pytest.fixture
def emitter(collector: Collector) -> Emitter:
    """Return an emitter that sends each event to the collector at once."""
    return Emitter("127.0.0.1", protocol="http", port=collector.port, batch_size=1)


def is_page_view(event: Event) -> bool:
    """Return whether the event is a page view."""
    return isinstance(event, PageView)


def page_view() -> PageView:
    """Return an event that is activity."""
    return PageView("https://example.com")


def test_each_visitors_events_arrive_with_its_session(collector: Collector, emitter: Emitter, tmp_path: Path) -> None:
    """Trackers of single requests, in two processes' worth of sessions, number each visitor's events without gaps."""
    hosts = [VisitorSessions(SqliteStates(tmp_path / "visitors.db")) for _ in range(2)]
    event_ids = []
    for number in range(6):
        tracker = SessionTracker("ns", emitter, session=hosts[number % 2].of("anna" if number < 4 else "bert"))
        event_ids.append(tracker.track(page_view()))
    assert [event["eid"] for event in collector.events] == event_ids
    entities = [session_of(event) for event in collector.events]
    for entity in entities:
        VALIDATOR.validate(entity)
    assert [entity["eventIndex"] for entity in entities] == [1, 2, 3, 4, 1, 2]
    assert [entity["firstEventId"] for entity in entities] == 4 * [event_ids[0]] + 2 * [event_ids[4]]
    assert [entity["userId"] for entity in entities] == [hosts[0].of("anna").user_id] * 4 + [
        hosts[0].of("bert").user_id
    ] * 2


def test_passive_event_neither_begins_nor_extends_a_visitors_session(
    collector: Collector, emitter: Emitter, clock: ManualClock
) -> None:
    """A heartbeat has an entity only if the visitor has a session, which then ends when it would have anyway."""
    visitor = VisitorSessions(ManualStates(clock)).of("anna")
    tracker = SessionTracker("ns", emitter, session=visitor, is_activity=is_page_view)
    heartbeat = StructuredEvent("app", "heartbeat")
    tracker.track(heartbeat)
    tracker.track(page_view())
    clock.advance(400)
    tracker.track(heartbeat)
    clock.advance(200)
    tracker.track(heartbeat)
    tracker.track(page_view())
    sessions = [entities_of(event) and session_of(event) for event in collector.events]
    numbers = [session and (session["sessionIndex"], session["eventIndex"]) for session in sessions]
    assert numbers == [[], (1, 1), (1, 2), [], (2, 1)]


def test_anonymous_event_hides_the_visitor(collector: Collector, emitter: Emitter) -> None:
    """An anonymous event is counted in the visitor's session without the user id."""
    visitor = VisitorSessions(MemoryStates()).of("anna")
    for anonymous in (True, False):
        SessionTracker("ns", emitter, session=visitor, anonymous=anonymous).track(page_view())
    first, second = map(session_of, collector.events)
    assert first == {**second, "userId": "00000000-0000-0000-0000-000000000000", "eventIndex": 1}


def contended(_folder: Path) -> VisitorSession:
    """Return a session whose state another host always changes first."""
    return VisitorSessions(ContendedStates()).of("anna")


def with_a_file_that_is_not_a_database(folder: Path) -> VisitorSession:
    """Return a session whose store cannot be used."""
    (folder / "visitors.db").write_text("This is not a database. " * 100)
    return VisitorSessions(SqliteStates(folder / "visitors.db")).of("anna")


def with_a_folder_that_is_a_file(folder: Path) -> VisitorSession:
    """Return a session whose store cannot be created."""
    (folder / "file").touch()
    return VisitorSessions(SqliteStates(folder / "file" / "visitors.db")).of("anna")


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("make", [contended, with_a_file_that_is_not_a_database, with_a_folder_that_is_a_file])
def test_failing_store_does_not_lose_the_event(
    collector: Collector,
    emitter: Emitter,
    make: Callable[[Path], VisitorSession],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the store is contended or fails, events arrive without the entity, and the first failure is logged."""
    tracker = SessionTracker("ns", emitter, session=make(tmp_path))
    event_ids = [tracker.track(page_view()), tracker.track(page_view())]
    assert [event["eid"] for event in collector.events] == event_ids
    assert [entities_of(event) for event in collector.events] == [[], []]
    (logged,) = [record for record in caplog.records if record.name == "client_session.trackers.snowplow"]
    assert logged.getMessage() == "An event was sent without its session entity"


def test_asynchronous_session_is_refused(emitter: Emitter) -> None:
    """A tracker cannot await, so a session for asyncio is an error that says what to pass instead."""
    session: Any = AsyncVisitorSessions(MemoryStates()).of("anna")
    with pytest.raises(TypeError, match="session must have plain methods, like a ClientSession or a VisitorSession, n"):
        SessionTracker("ns", emitter, session=session)
