"""The snapshot: what can be saved, and what cannot."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session_persistence import Snapshot
from client_session_persistence.snapshot import as_utc, is_uuid_text, iso_time
from event_ids import event_id
from strategies import TIMES, UUID_TEXTS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USER = "0123456789abcdef"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("user_id", "", "a lower-case UUID"),
        ("user_id", event_id(1).replace("0", "A"), "a lower-case UUID"),
        ("user_id", USER + "\n", "a lower-case UUID"),
        ("user_id", USER[:-1], "a lower-case UUID"),
        ("user_id", None, "a lower-case UUID"),
        ("user_id", 7, "a lower-case UUID"),
        ("session_id", "x", "the text of a UUID or None"),
        ("session_id", event_id(1).replace("-", ""), "the text of a UUID or None"),
        ("previous_session_id", "", "the text of a UUID or None"),
        ("first_event_id", 7, "the text of a UUID or None"),
        ("session_index", -1, "an int from 0 to 2147483647"),
        ("session_index", 2**31, "an int from 0 to 2147483647"),
        ("session_index", True, "an int from 0 to 2147483647"),
        ("session_index", 1.0, "an int from 0 to 2147483647"),
        ("session_index", None, "an int from 0 to 2147483647"),
        ("event_index", -1, "an int from 0 to 2147483647"),
        ("event_index", 2**31, "an int from 0 to 2147483647"),
        ("storage_mechanism", "DISK", "one of SQLITE, COOKIE_1"),
        ("storage_mechanism", None, "one of SQLITE, COOKIE_1"),
    ],
)
def test_what_the_schema_would_refuse_is_refused(field: str, value: Any, allowed: str) -> None:  # noqa: ANN401  # of any type
    """The error names field, value and what is allowed."""
    with pytest.raises(ValueError, match=f"^{field} must be {allowed}") as caught:
        Snapshot(**{"user_id": USER, field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", ["first_event_timestamp", "last_activity"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (datetime(2026, 1, 1), ValueError),  # noqa: DTZ001  # naive is the point
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), ValueError),
        ("2026-01-01T00:00:00Z", TypeError),
        (7, TypeError),
    ],
)
def test_times_are_aware(field: str, value: Any, error: type[Exception]) -> None:  # noqa: ANN401  # of any type
    """A naive time, one outside the calendar, or what is no time at all is refused."""
    with pytest.raises(error, match="a time must"):
        Snapshot(**{"user_id": USER, field: value})


def test_limits_are_inclusive() -> None:
    """0 and 2³¹ - 1 are indexes, 16 hexadecimal digits are a user."""
    assert Snapshot(user_id=USER, session_index=2**31 - 1, event_index=0).session_index == 2**31 - 1


def test_is_immutable() -> None:
    """A snapshot cannot be changed."""
    snapshot = Snapshot(user_id=USER)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(snapshot, "user_id", "x")  # noqa: B010  # a type checker refuses it too


@given(TIMES)
def test_times_become_utc(time: datetime) -> None:
    """The same moment, in UTC."""
    kept = Snapshot(user_id=USER, last_activity=time).last_activity
    assert kept is not None
    assert kept - EPOCH == time - EPOCH
    assert kept.tzinfo is UTC


@given(TIMES)
def test_text_of_a_time_loses_nothing(time: datetime) -> None:
    """RFC 3339 text in UTC, with as many digits as the time needs, milliseconds at least."""
    text = iso_time(as_utc(time))
    assert datetime.fromisoformat(text) - EPOCH == time - EPOCH
    assert len(text) == (24 if time.microsecond % 1000 == 0 else 27)


@given(UUID_TEXTS | st.text() | st.text("0aF-\u0660\ud800", min_size=36, max_size=36))
def test_a_uuids_text_is_told_from_all_others(text: str) -> None:
    """36 characters, hexadecimal digits of ASCII in five groups, in any case; nothing else."""
    digit = "[0-9a-fA-F]"
    pattern = f"{digit}{{8}}-{digit}{{4}}-{digit}{{4}}-{digit}{{4}}-{digit}{{12}}"
    assert is_uuid_text(text) is bool(re.fullmatch(pattern, text))
