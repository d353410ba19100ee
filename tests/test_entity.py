"""The client_session entity: fields, schema and immutability."""

from __future__ import annotations

import json
import pickle
import re
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, FormatChecker

from client_session import ClientSession
from client_session.entity import SessionContext, SessionFacts
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import MemoryStore, Snapshot
from client_session_persistence.snapshot import MAX_INDEX
from event_ids import event_id

if TYPE_CHECKING:
    from conftest import MakeSession

SCHEMAS = Path(__file__).parent / "data" / "iglu"


def validator(version: str) -> Draft4Validator:
    """Return a validator for the real Iglu schema that also checks formats."""
    schema = json.loads((SCHEMAS / f"client_session-{version}.json").read_text())
    return Draft4Validator(schema, format_checker=FormatChecker())


VALIDATORS = {version: validator(version) for version in ("1-0-1", "1-0-2")}


def data_of(entity: dict[str, Any]) -> dict[str, Any]:
    """Check an entity's outer structure and return its data."""
    assert entity.keys() == {"schema", "data"}
    data: dict[str, Any] = entity["data"]
    return data


def test_entity_has_eight_fields(make: MakeSession, clock: ManualClock) -> None:
    """Each field has the right value, both as an attribute and in the data."""
    session = make()
    session.get_session_context(event_id(1))
    first = session.session_id
    clock.advance(600)
    session.get_session_context(event_id(2))
    clock.advance(1)
    context = session.get_session_context(event_id(3))
    assert context.data == {
        "userId": context.user_id,
        "sessionId": context.session_id,
        "sessionIndex": context.session_index,
        "eventIndex": context.event_index,
        "previousSessionId": context.previous_session_id,
        "storageMechanism": context.storage_mechanism,
        "firstEventId": context.first_event_id,
        "firstEventTimestamp": context.first_event_timestamp,
    }
    assert context.user_id == session.user_id
    assert context.session_id == session.session_id
    assert context.previous_session_id == first
    assert (context.session_index, context.event_index) == (2, 2)
    assert context.storage_mechanism == "LOCAL_STORAGE"
    assert context.first_event_id == event_id(2)
    assert context.first_event_timestamp == "2026-01-01T00:10:00.000Z"


def test_session_properties_match_the_last_entity(make: MakeSession) -> None:
    """The session's properties equal the fields of its last entity."""
    session = make()
    context = session.get_session_context(event_id(1))
    for name in (
        "user_id",
        "session_id",
        "previous_session_id",
        "session_index",
        "first_event_id",
        "first_event_timestamp",
        "event_index",
        "storage_mechanism",
    ):
        assert getattr(session, name) == getattr(context, name), name


def test_entity_is_self_describing_json(make: MakeSession) -> None:
    """to_dict() returns the schema and the data; to_json() returns the same as a string."""
    context = make().get_session_context(event_id(1))
    assert context.schema == "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"
    assert context.to_dict() == {"schema": context.schema, "data": context.data}
    assert json.loads(context.to_json()) == context.to_dict()


def test_to_dict_supports_the_dotnet_schema_version(make: MakeSession) -> None:
    """In schema version 1-0-1, an entity omits the two newer fields and is valid."""
    entity = make().get_session_context(event_id(1)).to_dict(version="1-0-1")
    assert entity["schema"] == "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-1"
    VALIDATORS["1-0-1"].validate(data_of(entity))


def test_unknown_schema_version_is_rejected(make: MakeSession) -> None:
    """The error message contains the rejected version and the allowed versions."""
    context = make().get_session_context(event_id(1))
    with pytest.raises(ValueError, match=r"version must be one of 1-0-2, 1-0-1, not '2-0-0'"):
        context.to_dict("2-0-0")
    with pytest.raises(TypeError, match=r"version must be a str, not \[1\]"):
        context.to_dict(cast("str", [1]))


def test_entity_is_immutable(make: MakeSession) -> None:
    """An entity is immutable, and changing a dict that it returned does not affect any entity."""
    session = make()
    context = session.get_session_context(event_id(1))
    with pytest.raises(AttributeError):
        setattr(context, "session_index", 7)  # noqa: B010  # type checkers also reject this
    context.data["sessionIndex"] = 7
    data_of(context.to_dict())["userId"] = "changed"
    assert context.data["sessionIndex"] == 1
    assert session.get_session_context(event_id(2)).data["sessionIndex"] == 1
    assert session.get_session_context(event_id(2)).data["userId"] == session.user_id


def test_entity_supports_equality_hash_pickle_and_repr(make: MakeSession) -> None:
    """Entities are value objects."""
    session = make()
    first, second = session.get_session_context(event_id(1)), session.get_session_context(event_id(2))
    copy = pickle.loads(pickle.dumps(first))  # noqa: S301  # our own bytes
    assert copy == first != second
    assert len({first, copy, second}) == 2
    assert copy.data == first.data
    assert re.fullmatch(r"SessionContext\(user_id='[^']+', .*, event_index=1, .*\)", repr(first))


@pytest.mark.parametrize("argument", [uuid.UUID(event_id(10)), event_id(10), "ABCDEF00-0000-4000-8000-00000000000A"])
def test_event_id_is_stored_as_a_lowercase_string(make: MakeSession, argument: uuid.UUID | str) -> None:
    """A UUID is accepted as an object or as a string in either case, and the entity stores it in lowercase."""
    assert make().get_session_context(argument).first_event_id == str(argument).lower()


def test_every_kind_of_event_id_is_counted(make: MakeSession) -> None:
    """Later events are also counted if their ids are strings, UUIDs, or instances of subclasses."""

    class StringId(str):
        """A subclass of str."""

        __slots__ = ()

    class UuidId(uuid.UUID):
        """A subclass of UUID."""

        def __str__(self) -> str:
            return "another format"

    session = make()
    ids: list[uuid.UUID | str] = [
        event_id(1),
        uuid.UUID(event_id(2)),
        event_id(3).upper(),
        StringId(event_id(4)),
        UuidId(event_id(5)),
        cast("uuid.UUID", SimpleNamespace(int=6, hex="0" * 31 + "6")),
    ]
    assert [session.get_session_context(each).event_index for each in ids] == [1, 2, 3, 4, 5, 6]
    for each in ids:
        session.start_new_session()
        assert session.get_session_context(each).first_event_id == str(
            uuid.UUID(each if isinstance(each, str) else each.hex)
        )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        event_id(1)[:-1],
        event_id(1) + "\n",
        event_id(1).replace("-", ""),
        "{" + event_id(1) + "}",
        "urn:uuid:" + event_id(1),
        "\u0660" * 8 + event_id(1)[8:],
        "\ud800" * 8 + event_id(1)[8:],
        "-" * 36,
        "0" * 36,
        SimpleNamespace(int=1 << 128, hex="0" * 33),
        SimpleNamespace(int=-1, hex="0" * 32),
        None,
        1,
        b"x",
        event_id(1).encode(),
        SimpleNamespace(int="1", hex="0" * 32),
    ],
)
def test_invalid_event_id_is_rejected(make: MakeSession, value: Any) -> None:  # noqa: ANN401  # any type
    """An id that is not a UUID raises ValueError, any other type TypeError, with the id; no event is counted."""
    session = make()
    session.get_session_context(event_id(1))
    is_id = isinstance(value, str) or type(getattr(value, "int", None)) is int
    with pytest.raises(ValueError if is_id else TypeError, match="event_id must be a uuid") as caught:
        session.get_session_context(value)
    assert repr(value) in str(caught.value)
    assert session.event_index == 1


def test_event_timestamp_is_converted_to_utc(make: MakeSession) -> None:
    """event_timestamp sets the time of the first event, in UTC with microsecond precision."""
    when = datetime(2025, 5, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    context = make().get_session_context(event_id(1), when)
    assert context.first_event_timestamp == "2025-05-01T12:30:00.123456Z"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (datetime(2025, 5, 1), ValueError),  # noqa: DTZ001  # naive on purpose
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), ValueError),
        ("2025-05-01T00:00:00Z", TypeError),
        (1.5, TypeError),
    ],
)
def test_invalid_event_timestamp_is_rejected(make: MakeSession, value: Any, error: type[Exception]) -> None:  # noqa: ANN401  # any type
    """A naive or out-of-range time raises ValueError, any other type raises TypeError, and no event is counted."""
    session = make()
    with pytest.raises(error, match=r"^event_timestamp must"):
        session.get_session_context(event_id(1), value)
    assert session.event_index == 0


def test_anonymous_event_does_not_identify_the_user(make: MakeSession, clock: ManualClock) -> None:
    """An anonymous event has the all-zero user id and no previous session, but is counted."""
    session = make()
    session.get_session_context(event_id(1))
    clock.advance(600)
    session.get_session_context(event_id(2))
    context = session.get_session_context(event_id(3), anonymous=True)
    assert context.user_id == "00000000-0000-0000-0000-000000000000"
    assert context.previous_session_id is None
    assert (context.session_id, context.session_index, context.event_index) == (session.session_id, 2, 2)
    named = session.get_session_context(event_id(4))
    assert named.user_id == session.user_id
    assert named.previous_session_id is not None
    VALIDATORS["1-0-2"].validate(context.data)


def test_first_event_can_be_anonymous(make: MakeSession) -> None:
    """If a session begins anonymously, its later events still contain the user id."""
    session = make()
    assert session.get_session_context(event_id(1), anonymous=True).user_id == "00000000-0000-0000-0000-000000000000"
    assert session.get_session_context(event_id(2)).user_id == session.user_id


def test_indexes_stop_at_the_schema_maximum() -> None:
    """Session and event indexes never exceed 2³¹ - 1, so entities and save files stay valid."""
    facts = SessionFacts.from_snapshot(Snapshot(user_id="0" * 16, session_id=event_id(1), session_index=MAX_INDEX))
    VALIDATORS["1-0-2"].validate(SessionContext(facts, MAX_INDEX + 5).data)
    store = MemoryStore()
    store.save(Snapshot(user_id="0" * 16, session_id=event_id(1), session_index=MAX_INDEX))
    session = ClientSession(store=store, clock=ManualClock(), scheduler=ManualScheduler())
    assert session.get_session_context(event_id(2)).session_index == MAX_INDEX
    assert session.save_error is None


def test_facts_of_a_snapshot_without_a_session_are_rejected() -> None:
    """SessionFacts.from_snapshot() raises ValueError if the snapshot contains only a user."""
    with pytest.raises(ValueError, match="the snapshot must have a session"):
        SessionFacts.from_snapshot(Snapshot(user_id="0" * 16))


TIMESTAMPS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  # Hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC) | st.timezones(),
)


@given(
    events=st.lists(
        st.tuples(
            st.uuids(),
            st.none() | TIMESTAMPS,
            st.booleans(),
            st.sampled_from([0.0, 1.0, 299.0, 300.0, 600.0, 1e6]),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    count_empty_sessions=st.booleans(),
)
def test_every_entity_is_valid(
    events: list[tuple[uuid.UUID, datetime | None, bool, float, bool | None]],
    count_empty_sessions: bool,  # noqa: FBT001  # Hypothesis passes it by name
) -> None:
    """Every entity validates against client_session 1-0-2 and, in its 1-0-1 form, against 1-0-1."""
    clock = ManualClock()
    session = ClientSession(
        store=MemoryStore(), clock=clock, scheduler=ManualScheduler(), count_empty_sessions=count_empty_sessions
    )
    for number, when, anonymous, wait, background in events:
        context = session.get_session_context(number, when, anonymous=anonymous)
        VALIDATORS["1-0-2"].validate(context.data)
        VALIDATORS["1-0-1"].validate(data_of(context.to_dict("1-0-1")))
        if background is not None:
            session.set_background(background)
        clock.advance(wait)
