"""The Snowplow tracker adapter: events reach a real collector with their entity, or without it if the session fails."""

from __future__ import annotations

import base64
import copy
import inspect
import json
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, FormatChecker

from client_session import ClientSession, MemoryStore
from client_session.testing import ManualClock, ManualScheduler
from collector import Collector, RecordingEmitter, entities_of, session_of

pytest.importorskip("snowplow_tracker", reason="snowplow-tracker is not installed (extra: snowplow)")

from snowplow_tracker.constants import CONTEXT_SCHEMA  # imported after the skip
from snowplow_tracker.emitters import AsyncEmitter, Emitter  # imported after the skip
from snowplow_tracker.events.event import Event  # imported after the skip
from snowplow_tracker.events.page_ping import PagePing  # imported after the skip
from snowplow_tracker.events.page_view import PageView  # imported after the skip
from snowplow_tracker.events.screen_view import ScreenView  # imported after the skip
from snowplow_tracker.events.self_describing import SelfDescribing  # imported after the skip
from snowplow_tracker.events.structured_event import StructuredEvent  # imported after the skip
from snowplow_tracker.self_describing_json import SelfDescribingJson  # imported after the skip
from snowplow_tracker.snowplow import Snowplow  # imported after the skip
from snowplow_tracker.subject import Subject  # imported after the skip
from snowplow_tracker.tracker import Tracker  # imported after the skip

from client_session.trackers.snowplow import SessionTracker  # imported after the skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Method = Literal["get", "post"]

SCHEMA = json.loads((Path(__file__).parent / "data" / "iglu" / "client_session-1-0-2.json").read_text())
VALIDATOR = Draft4Validator(SCHEMA, format_checker=FormatChecker())

PLACE: dict[str, Any] = {"schema": "iglu:com.example/place/jsonschema/1-0-0", "data": {"name": "Zürich ☕", "floor": 3}}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Yield a running collector, and bypass any proxy configured on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Collector() as collector:
        yield collector


def place() -> SelfDescribingJson:
    """Return a custom entity that a caller attaches to an event."""
    return SelfDescribingJson(**PLACE)


def milliseconds(text: str) -> int:
    """Convert an entity's timestamp to milliseconds, the payload's unit."""
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


@pytest.mark.parametrize("encode_base64", [True, False])
@pytest.mark.parametrize("method", ["post", "get"])
def test_every_event_arrives_with_a_valid_entity(
    collector: Collector, session: ClientSession, method: Method, *, encode_base64: bool
) -> None:
    """Over GET or POST, with or without base64, every event has a valid session entity after the caller's entities."""
    emitter = Emitter("127.0.0.1", protocol="http", port=collector.port, method=method, batch_size=4)
    tracker = SessionTracker("ns", emitter, app_id="app", encode_base64=encode_base64, session=session)
    events = [
        PageView("https://example.com", context=[place()]),
        PagePing("https://example.com"),
        StructuredEvent("shop", "add", value=2.5, context=[place(), place()]),
        SelfDescribing(SelfDescribingJson("iglu:com.example/spun/jsonschema/1-0-0", {"turns": 7})),
        ScreenView(str(uuid.uuid4()), "home", context=[place()]),
    ]
    event_ids = [tracker.track(event) for event in events]
    tracker.flush()
    assert [event["eid"] for event in collector.events] == event_ids
    assert [event["e"] for event in collector.events] == ["pv", "pp", "se", "ue", "ue"]
    assert all(("cx" in event) == encode_base64 and event["aid"] == "app" for event in collector.events)
    entities = [session_of(event) for event in collector.events]
    for entity in entities:
        VALIDATOR.validate(entity)
    assert [entity["eventIndex"] for entity in entities] == [1, 2, 3, 4, 5]
    assert {entity["sessionId"] for entity in entities} == {session.session_id}
    assert {entity["firstEventId"] for entity in entities} == {event_ids[0]}
    assert milliseconds(entities[0]["firstEventTimestamp"]) == int(collector.events[0]["dtm"])
    assert [entities_of(event)[:-1] for event in collector.events] == [[PLACE], [], [PLACE, PLACE], [], [PLACE]]


def test_event_after_the_timeout_names_the_previous_session(session: ClientSession, clock: ManualClock) -> None:
    """The first event after the timeout begins a session whose entity contains the previous session's id."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session)
    tracker.track(PageView("https://example.com"))
    clock.advance(600)
    event_id = tracker.track(PageView("https://example.com"))
    first, second = map(session_of, emitter.events)
    assert second["previousSessionId"] == first["sessionId"] != second["sessionId"]
    assert (second["sessionIndex"], second["eventIndex"], second["firstEventId"]) == (2, 1, event_id)


@pytest.mark.parametrize(
    "event",
    [
        PageView("https://example.com", true_timestamp=1577934245678.9),
        Event({"e": "pv", "url": "https://example.com", "ttm": "1577934245678"}),
    ],
)
def test_first_event_time_is_the_true_timestamp(session: ClientSession, event: Event) -> None:
    """The first event's true timestamp (ttm), if any, becomes the session's first event time, to the millisecond."""
    emitter = RecordingEmitter()
    SessionTracker("ns", emitter, session=session).track(event)
    assert int(emitter.events[0]["ttm"]) == 1577934245678
    assert session_of(emitter.events[0])["firstEventTimestamp"] == "2020-01-02T03:04:05.678Z"


DEPRECATED_METHODS: dict[str, Callable[[Tracker], Tracker]] = {
    "page_view": lambda tracker: tracker.track_page_view("https://example.com", "title", context=[place()]),
    "page_ping": lambda tracker: tracker.track_page_ping("https://example.com", context=[place()]),
    "link_click": lambda tracker: tracker.track_link_click("https://example.com", context=[place()]),
    "add_to_cart": lambda tracker: tracker.track_add_to_cart("sku", 2, context=[place()]),
    "remove_from_cart": lambda tracker: tracker.track_remove_from_cart("sku", 1, context=[place()]),
    "form_change": lambda tracker: tracker.track_form_change("form", "id", "INPUT", "on", context=[place()]),
    "form_submit": lambda tracker: tracker.track_form_submit("form", context=[place()]),
    "site_search": lambda tracker: tracker.track_site_search(["tea"], context=[place()]),
    "screen_view": lambda tracker: tracker.track_screen_view("home", context=[place()]),
    "mobile_screen_view": lambda tracker: tracker.track_mobile_screen_view("home", context=[place()]),
    "struct_event": lambda tracker: tracker.track_struct_event("shop", "add", context=[place()]),
    "self_describing_event": lambda tracker: tracker.track_self_describing_event(place(), context=[place()]),
    "unstruct_event": lambda tracker: tracker.track_unstruct_event(place(), context=[place()]),
    "ecommerce_transaction_item": lambda tracker: tracker.track_ecommerce_transaction_item(
        "order", "sku", 9.5, 1, context=[place()]
    ),
    "ecommerce_transaction": lambda tracker: tracker.track_ecommerce_transaction("order", 9.5, context=[place()]),
}


def test_every_deprecated_method_is_covered() -> None:
    """DEPRECATED_METHODS lists every track_ method of the installed tracker."""
    assert {f"track_{name}" for name in DEPRECATED_METHODS} == {
        name for name in vars(Tracker) if name.startswith("track_")
    }


@pytest.mark.parametrize("name", DEPRECATED_METHODS)
def test_deprecated_method_attaches_the_entity(session: ClientSession, name: str) -> None:
    """A deprecated method warns, returns the tracker, and sends both the caller's entity and the session entity."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session)
    with pytest.warns(DeprecationWarning, match=r"^track_\w+ will be") as warned:
        assert DEPRECATED_METHODS[name](tracker) is tracker
    assert str(warned[0].message).startswith(f"track_{name} will be")
    (event,) = emitter.events
    assert entities_of(event)[0] == PLACE
    VALIDATOR.validate(session_of(event))
    assert session_of(event)["firstEventId"] == event["eid"]


def test_transaction_items_are_separate_events(session: ClientSession) -> None:
    """A transaction with two items is sent as three events, each with its own event index."""
    emitter = RecordingEmitter()
    items = [{"sku": "tea", "price": 3, "quantity": 1}, {"sku": "cup", "price": 6, "quantity": 2}]
    with pytest.warns(DeprecationWarning, match="^track_ecommerce_transaction"):
        SessionTracker("ns", emitter, session=session).track_ecommerce_transaction("order", 15, items=items)
    assert [event["e"] for event in emitter.events] == ["tr", "ti", "ti"]
    assert [session_of(event)["eventIndex"] for event in emitter.events] == [1, 2, 3]


def test_several_emitters_share_one_event(collector: Collector, session: ClientSession) -> None:
    """All emitters send the event with the same id and entity, and it is counted only once."""
    get_emitter = Emitter("127.0.0.1", protocol="http", port=collector.port, method="get")
    post_emitter = Emitter("127.0.0.1", protocol="http", port=collector.port, method="post", batch_size=1)
    recorder = RecordingEmitter()
    tracker = SessionTracker("ns", [get_emitter, post_emitter], session=session)
    tracker.add_emitter(recorder)
    tracker.track(PageView("https://example.com"))
    events = [*collector.events, *recorder.events]
    assert len(events) == 3
    assert len({event["eid"] for event in events}) == 1
    assert [session_of(event) for event in events] == 3 * [session_of(recorder.events[0])]
    assert session.event_index == 1


def test_callers_event_is_not_modified(session: ClientSession) -> None:
    """Tracking modifies neither the caller's event nor the event's list of contexts."""
    contexts = [place()]
    event = StructuredEvent("shop", "add", context=contexts)
    before = copy.deepcopy(event.payload.get())
    SessionTracker("ns", RecordingEmitter(), session=session).track(event)
    assert event.payload.get() == before
    assert event.context is contexts
    assert [context.to_json() for context in contexts] == [PLACE]


def test_event_tracked_twice_is_two_events(collector: Collector, session: ClientSession) -> None:
    """An event tracked twice gets a new id and entity each time, even if both copies are sent in one GET batch."""
    emitter = Emitter("127.0.0.1", protocol="http", port=collector.port, method="get", batch_size=2)
    tracker = SessionTracker("ns", emitter, session=session)
    event = PageView("https://example.com", context=[place()])
    event_ids = [tracker.track(event), tracker.track(event)]
    assert event_ids[0] != event_ids[1]
    assert [event["eid"] for event in collector.events] == event_ids
    assert [entities_of(event)[:-1] for event in collector.events] == [[PLACE], [PLACE]]
    assert [session_of(event)["eventIndex"] for event in collector.events] == [1, 2]


@pytest.mark.parametrize("encode_base64", [True, False])
def test_entities_added_by_an_event_class_are_kept(session: ClientSession, *, encode_base64: bool) -> None:
    """Entities that an event subclass adds while building its payload are sent and use the tracker's encoder."""

    class PlacedPageView(PageView):
        """A page view that adds a place entity to its payload."""

        def build_payload(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the base class's signature
            """Add the place."""
            inner = PageView(
                "https://example.com/place", context=[*self.context, SelfDescribingJson(PLACE["schema"], {"at": {1}})]
            )
            return inner.build_payload(*args, **kwargs)

    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, None, None, encode_base64, list, session=session)
    tracker.track(PlacedPageView("https://example.com", context=[place()]))
    callers_entity, added, _ = entities_of(emitter.events[0])
    assert callers_entity == PLACE
    assert added["data"] == {"at": [1]}
    VALIDATOR.validate(session_of(emitter.events[0]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)
ENTITIES = st.lists(st.builds(SelfDescribingJson, st.text(min_size=1), st.dictionaries(st.text(), JSON)), max_size=3)


class SlottedPageView(PageView):
    """A page view with an attribute in a slot."""

    __slots__ = ("fragment",)

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401  # the base class's arguments
        """Set the attribute."""
        super().__init__("https://example.com", **arguments)
        self.fragment = "top"

    def build_payload(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the base class's signature
        """Add the attribute to the payload."""
        self.payload.add("url", f"https://example.com#{self.fragment}")
        return super().build_payload(*args, **kwargs)


EVENTS: dict[str, Callable[..., Event]] = {
    "event": lambda **arguments: Event({"e": "pv", "url": "https://example.com"}, **arguments),
    "page view": lambda **arguments: PageView("https://example.com", "Zürich ☕", **arguments),
    "page ping": lambda **arguments: PagePing("https://example.com", **arguments),
    "structured event": lambda **arguments: StructuredEvent("shop", "add", value=2.5, **arguments),
    "self-describing event": lambda **arguments: SelfDescribing(place(), **arguments),
    "screen view": lambda **arguments: ScreenView("an id", "home", **arguments),
    "subclass with slots": SlottedPageView,
}


@given(
    kind=st.sampled_from(sorted(EVENTS)),
    contexts=ENTITIES,
    true_timestamp=st.none() | st.integers(0, 2**41),
    encode_base64=st.booleans(),
)
def test_payload_equals_that_of_a_plain_tracker_with_the_entity(
    kind: str, contexts: list[SelfDescribingJson], true_timestamp: int | None, *, encode_base64: bool
) -> None:
    """A payload is the one that `Tracker` builds if the caller adds the session's entity to the event's contexts."""
    session = ClientSession(store=MemoryStore(), clock=ManualClock(), scheduler=ManualScheduler())
    emitter, subject = RecordingEmitter(), Subject().set_user_id("zoë")
    event = EVENTS[kind](context=contexts, true_timestamp=true_timestamp)
    SessionTracker("ns", emitter, subject, "app", encode_base64, session=session).track(event)
    entity: dict[str, Any] = session.get_session_context(str(uuid.uuid4())).to_dict()
    entity["data"]["eventIndex"] = 1
    event = EVENTS[kind](context=[*contexts, SelfDescribingJson(**entity)], true_timestamp=true_timestamp)
    Tracker("ns", emitter, subject, "app", encode_base64).track(event)
    ours, plain = emitter.events
    key = "cx" if encode_base64 else "co"
    assert {**ours, "eid": "", "dtm": "", key: ""} == {**plain, "eid": "", "dtm": "", key: ""}
    assert entities_of(ours) == entities_of(plain)


@pytest.mark.parametrize("encode_base64", [True, False])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ('{"schema":"%s","data":[%s]}', [PLACE]),
        ('{"data": [%s], "schema": "%s"}', [PLACE]),
        ('{"schema": "%s", "data": [%s, %s]}\n', [PLACE, PLACE]),
        ('{"schema": "%s", "data": []}', []),
    ],
)
def test_entities_written_in_another_form_are_kept(
    session: ClientSession, form: str, expected: list[object], *, encode_base64: bool
) -> None:
    """Entities that a caller wrote into the payload in another form than `Tracker`'s are kept, before the session's."""
    schema, entity = CONTEXT_SCHEMA, json.dumps(PLACE)
    text = form % ((entity, schema) if form.startswith('{"data"') else (schema, *len(expected) * [entity]))
    pairs = {"cx": base64.urlsafe_b64encode(text.encode()).decode()} if encode_base64 else {"co": text}
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, encode_base64=encode_base64, session=session)
    tracker.track(Event({"e": "pv", **pairs}))
    assert entities_of(emitter.events[0])[:-1] == expected
    VALIDATOR.validate(session_of(emitter.events[0]))


def test_event_that_cannot_be_built_is_not_counted(session: ClientSession) -> None:
    """An event that cannot be built raises the same error as in the plain tracker and does not use an index."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session)
    for each_tracker in (Tracker("ns", emitter), tracker):
        with pytest.raises(TypeError, match="not JSON serializable"):
            each_tracker.track(SelfDescribing(SelfDescribingJson("iglu:a/b/jsonschema/1-0-0", {"at": object()})))
    assert emitter.events == []
    assert session.event_index == 0


def is_page_view(event: Event) -> bool:
    """Return whether the event is a page view."""
    return isinstance(event, PageView)


def test_passive_event_is_counted_without_extending(session: ClientSession, clock: ManualClock) -> None:
    """An event that is not activity gets the session's entity and an event index, but does not extend the session."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session, is_activity=is_page_view)
    tracker.track(PageView("https://example.com"))
    clock.advance(400)
    tracker.track(StructuredEvent("app", "heartbeat"))
    assert session.expires_in == 200.0
    first, heartbeat = map(session_of, emitter.events)
    assert heartbeat == {**first, "eventIndex": 2}


@pytest.mark.parametrize("has_ended", [False, True])
def test_passive_event_without_a_session_has_no_entity(
    session: ClientSession, clock: ManualClock, caplog: pytest.LogCaptureFixture, *, has_ended: bool
) -> None:
    """Before the first event or after a timeout, a passive event is sent without our entity and begins no session."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session, is_activity=is_page_view)
    if has_ended:
        tracker.track(PageView("https://example.com"))
        clock.advance(600)
    tracker.track(StructuredEvent("app", "heartbeat", context=[place()]))
    assert entities_of(emitter.events[-1]) == [PLACE]
    assert not caplog.records
    assert session.session_index is None
    tracker.track(PageView("https://example.com"))
    assert session_of(emitter.events[-1])["sessionIndex"] == 1 + has_ended
    assert session_of(emitter.events[-1])["eventIndex"] == 1


def test_predicates_are_called_once_with_the_callers_event(session: ClientSession) -> None:
    """Each predicate is called once per event, with the tracked event itself, even if there are several emitters."""
    seen: list[tuple[str, Event]] = []

    def see(predicate: str, event: Event) -> bool:
        seen.append((predicate, event))
        return True

    tracker = SessionTracker(
        "ns",
        [RecordingEmitter(), RecordingEmitter()],
        session=session,
        is_activity=lambda event: see("is_activity", event),
        anonymous=lambda event: see("anonymous", event),
    )
    event = PageView("https://example.com")
    tracker.track(event)
    assert sorted(name for name, _ in seen) == ["anonymous", "is_activity"]
    assert all(given is event for _, given in seen)


@pytest.mark.parametrize("anonymous", [True, lambda event: not isinstance(event, StructuredEvent)])
def test_anonymous_event_has_no_user_and_no_previous_session(
    session: ClientSession, *, anonymous: bool | Callable[[Event], bool]
) -> None:
    """An anonymous event's entity is valid and has neither the user nor the previous session, only the session."""
    session.get_session_context(str(uuid.uuid4()))
    previous_id = session.session_id
    session.start_new_session()
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session, anonymous=anonymous)
    tracker.track(PageView("https://example.com"))
    entity = session_of(emitter.events[0])
    VALIDATOR.validate(entity)
    assert entity["userId"] == "00000000-0000-0000-0000-000000000000"
    assert entity["previousSessionId"] is None
    assert (entity["sessionId"], entity["sessionIndex"], entity["eventIndex"]) == (session.session_id, 2, 1)
    tracker.track(StructuredEvent("shop", "add"))
    purchase = session_of(emitter.events[1])
    shown = (session.user_id, previous_id) if callable(anonymous) else (entity["userId"], None)
    assert (purchase["userId"], purchase["previousSessionId"]) == shown


def test_anonymous_tracking_keeps_the_subjects_identifiers(session: ClientSession) -> None:
    """Identifiers that the program sets on the subject are sent even with an anonymous entity, as documented."""
    emitter = RecordingEmitter()
    subject = Subject().set_user_id("alice")
    SessionTracker("ns", emitter, subject, session=session, anonymous=True).track(PageView("https://example.com"))
    assert emitter.events[0]["uid"] == "alice"


def fail(event: Event) -> bool:
    """Raise an error, as a broken predicate would."""
    raise KeyError(event)


@pytest.mark.parametrize(
    "predicate", [{"is_activity": fail}, {"anonymous": fail}, {"anonymous": lambda _: None}, {"anonymous": lambda _: 1}]
)
def test_failing_predicate_does_not_lose_the_event(
    session: ClientSession, predicate: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """If a predicate fails, events are sent without our entity and are not counted; the first failure is logged."""
    emitter = RecordingEmitter()
    tracker = SessionTracker("ns", emitter, session=session, **predicate)
    for _ in range(2):
        tracker.track(PageView("https://example.com", context=[place()]))
    assert [entities_of(event) for event in emitter.events] == [[PLACE], [PLACE]]
    assert session.event_index == 0
    (logged,) = [record for record in caplog.records if record.name == "client_session.trackers.snowplow"]
    assert logged.getMessage() == "An event was sent without its session entity"
    assert logged.exc_info


@pytest.mark.parametrize("cause", ["the session is closed", "the timestamp is out of range"])
def test_failing_session_does_not_lose_the_event(
    collector: Collector, session: ClientSession, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If the session fails, the event arrives with only the caller's entities; a series of failures is logged once."""
    true_timestamp = None
    if cause == "the session is closed":
        session.close()
    else:
        true_timestamp = 1e18
    emitter = Emitter("127.0.0.1", protocol="http", port=collector.port, batch_size=2)
    tracker = SessionTracker("ns", emitter, session=session)
    event = PageView("https://example.com", context=[place()], true_timestamp=true_timestamp)
    event_ids = [tracker.track(event), tracker.track(event)]
    assert [event["eid"] for event in collector.events] == event_ids
    assert [entities_of(event) for event in collector.events] == [[PLACE], [PLACE]]
    (logged,) = [record for record in caplog.records if record.name == "client_session.trackers.snowplow"]
    assert logged.getMessage() == "An event was sent without its session entity"
    assert logged.exc_info


def test_new_failure_after_a_success_is_logged_again(session: ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """A success ends a series of failures, so the next failure is logged again."""
    tracker = SessionTracker("ns", RecordingEmitter(), session=session)
    for true_timestamp in (1e18, 1e18, 0, 1e18):
        tracker.track(PageView("https://example.com", true_timestamp=true_timestamp))
    assert len([record for record in caplog.records if record.name == "client_session.trackers.snowplow"]) == 2
    assert session.event_index == 1


@pytest.mark.usefixtures("fast_thread_switching")
def test_threads_share_a_tracker(collector: Collector, session: ClientSession) -> None:
    """When eight threads track the same event through a two-threaded emitter, events are not lost or duplicated."""
    emitter = AsyncEmitter("127.0.0.1", protocol="http", port=collector.port, thread_count=2)
    tracker = SessionTracker("ns", emitter, session=session)
    event = PageView("https://example.com", context=[place()])
    event_ids: list[str | None] = []

    def track() -> None:
        event_ids.extend([tracker.track(event) for _ in range(25)])

    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.flush()
    assert len(set(event_ids)) == 200
    assert {event["eid"] for event in collector.events} == set(event_ids)
    entities = {session_of(event)["eventIndex"]: session_of(event) for event in collector.events}
    assert sorted(entities) == list(range(1, 201))
    assert {entity["sessionId"] for entity in entities.values()} == {session.session_id}
    (first,) = {entity["firstEventId"] for entity in entities.values()}
    assert [event["eid"] for event in collector.events if session_of(event)["eventIndex"] == 1] == [first]
    for entity in entities.values():
        VALIDATOR.validate(entity)


def test_constructor_adds_keyword_arguments_to_the_plain_tracker() -> None:
    """The arguments are those of the plain tracker, in order and with the same defaults, then keyword-only ones."""
    parameters = list(inspect.signature(SessionTracker).parameters.values())
    plain = list(inspect.signature(Tracker).parameters.values())
    arguments, added = parameters[: len(plain)], parameters[len(plain) :]
    assert [(parameter.name, parameter.kind, parameter.default) for parameter in arguments] == [
        (parameter.name, parameter.kind, parameter.default) for parameter in plain
    ]
    keyword, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    assert [(parameter.name, parameter.kind, parameter.default) for parameter in added] == [
        ("session", keyword, required),
        ("is_activity", keyword, None),
        ("anonymous", keyword, False),
    ]


def test_tracker_can_be_registered_with_snowplow(session: ClientSession) -> None:
    """Snowplow's registry accepts the tracker like any other tracker."""
    tracker = SessionTracker("another namespace", RecordingEmitter(), session=session)
    assert Snowplow.add_tracker(tracker) is tracker
    Snowplow.remove_tracker(tracker)


async def later(event: Event) -> bool:
    """Return a coroutine, which a predicate must not do."""
    return event is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"session": "session.xml"}, r"session must have the methods get_session_context; 'session\.xml' lacks"),
        ({"session": "session.xml"}, r"; did you mean ClientSession\('session\.xml'\)\?$"),
        ({"session": None}, "session must have the methods get_session_context; it is None"),
        ({"is_activity": True}, "is_activity must be callable or None, not True"),
        ({"is_activity": later}, "is_activity must be a plain function, not the coroutine function <function later"),
        ({"anonymous": "yes"}, "anonymous must be True, False or callable, not 'yes'"),
        ({"anonymous": None}, "anonymous must be True, False or callable, not None"),
        ({"anonymous": later}, "anonymous must be a plain function, not the coroutine function <function later"),
    ],
)
def test_invalid_argument_is_named_in_the_error(
    session: ClientSession, arguments: dict[str, Any], message: str
) -> None:
    """The error names the invalid argument, its value, and what is allowed."""
    with pytest.raises(TypeError, match=message):
        SessionTracker("ns", RecordingEmitter(), **{"session": session, **arguments})


def test_example_program_sends_the_session(collector: Collector, tmp_path: Path) -> None:
    """The example program's events arrive with a session entity, and its next run begins the next session."""
    program = f"""
from snowplow_tracker import Emitter, PageView
from client_session import ClientSession
from client_session.trackers.snowplow import SessionTracker

session = ClientSession("session.xml")
tracker = SessionTracker("my-app", Emitter("http://127.0.0.1:{collector.port}"), session=session)
tracker.track(PageView("https://example.com"))
tracker.flush()
"""
    for _ in range(2):
        subprocess.run(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, check=True, timeout=60
        )
    first, second = map(session_of, collector.events)
    assert (first["sessionIndex"], second["sessionIndex"]) == (1, 2)
    assert second["previousSessionId"] == first["sessionId"]
