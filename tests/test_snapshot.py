"""Snapshots: the values that can be saved."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session_persistence import Snapshot
from client_session_persistence.snapshot import as_utc, is_uuid, iso_time
from event_ids import event_id
from strategies import TIMES, UUID_TEXTS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USER = "0123456789abcdef"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("user_id", "", "a lowercase UUID"),
        ("user_id", event_id(1).replace("0", "A"), "a lowercase UUID"),
        ("user_id", USER + "\n", "a lowercase UUID"),
        ("user_id", USER[:-1], "a lowercase UUID"),
        ("user_id", None, "a lowercase UUID"),
        ("user_id", 7, "a lowercase UUID"),
        ("session_id", "x", "a UUID string or None"),
        ("session_id", event_id(1).replace("-", ""), "a UUID string or None"),
        ("previous_session_id", "", "a UUID string or None"),
        ("first_event_id", 7, "a UUID string or None"),
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
def test_values_outside_the_schema_are_rejected(field: str, value: Any, allowed: str) -> None:  # noqa: ANN401  # any type
    """The error message contains the field, the value and the allowed values."""
    with pytest.raises(ValueError, match=f"^{field} must be {allowed}") as caught:
        Snapshot(**{"user_id": USER, field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", ["first_event_timestamp", "last_activity", "session_start"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (datetime(2026, 1, 1), ValueError),  # noqa: DTZ001  # naive on purpose
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), ValueError),
        ("2026-01-01T00:00:00Z", TypeError),
        (7, TypeError),
    ],
)
def test_times_must_be_aware(field: str, value: Any, error: type[Exception]) -> None:  # noqa: ANN401  # any type
    """A naive time, a time whose UTC value is out of range, or a value of another type is rejected."""
    with pytest.raises(error, match=f"^{field} must"):
        Snapshot(**{"user_id": USER, field: value})


def test_limits_are_inclusive() -> None:
    """Indexes range from 0 to 2³¹ - 1, and a user id may consist of 16 hexadecimal digits."""
    assert Snapshot(user_id=USER, session_index=2**31 - 1, event_index=0).session_index == 2**31 - 1


def test_snapshot_is_immutable() -> None:
    """Assigning to a field raises an error."""
    snapshot = Snapshot(user_id=USER)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(snapshot, "user_id", "x")  # noqa: B010  # type checkers also reject it


@given(TIMES)
def test_times_become_utc(time: datetime) -> None:
    """A time is converted to the same instant in UTC."""
    converted = Snapshot(user_id=USER, last_activity=time).last_activity
    assert converted is not None
    assert converted - EPOCH == time - EPOCH
    assert converted.tzinfo is UTC


@given(TIMES)
def test_formatting_a_time_is_lossless(time: datetime) -> None:
    """A time is formatted as RFC 3339 in UTC, with milliseconds or, if needed, microseconds."""
    text = iso_time(as_utc(time))
    assert datetime.fromisoformat(text) - EPOCH == time - EPOCH
    assert len(text) == (24 if time.microsecond % 1000 == 0 else 27)


@given(UUID_TEXTS | st.text() | st.text("0aF-\u0660\ud800", min_size=36, max_size=36))
def test_uuid_string_is_recognized(text: str) -> None:
    """A UUID string consists of five hyphen-separated groups of ASCII hexadecimal digits in upper- or lowercase."""
    digit = "[0-9a-fA-F]"
    pattern = f"{digit}{{8}}-{digit}{{4}}-{digit}{{4}}-{digit}{{4}}-{digit}{{12}}"
    assert is_uuid(text) is bool(re.fullmatch(pattern, text))
