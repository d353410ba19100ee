"""The snapshot: the state of a session that is saved."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

MAX_INDEX = 2**31 - 1
"""The largest ``sessionIndex`` and ``eventIndex`` that the schema and .NET's ``int`` allow."""

STORAGE_MECHANISM = "LOCAL_STORAGE"
"""The storage mechanism of save files, as in the .NET tracker."""

STORAGE_MECHANISMS = ("SQLITE", "COOKIE_1", "COOKIE_3", "LOCAL_STORAGE", "FLASH_LSO")

_USER_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16}")

UUID_SHAPE = b"00000000-0000-0000-0000-000000000000"
SHAPE = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
"""Translates every hexadecimal digit to 0, so that only the canonical text of a UUID becomes `UUID_SHAPE`.

Twice as fast as a regular expression.
"""


def is_uuid_text(text: str) -> bool:
    """Return whether the text is a UUID in canonical form, 36 characters in any case."""
    return text.encode("ascii", "replace").translate(SHAPE) == UUID_SHAPE


def _refuse(attribute: attrs.Attribute[Any], value: object, allowed: str) -> ValueError:
    return ValueError(f"{attribute.name} must be {allowed}, not {value!r}")


def _user_id(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not _USER_ID.fullmatch(value):
        raise _refuse(attribute, value, "a lower-case UUID or 16 lower-case hexadecimal digits")


def _uuid_or_none(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, str) or not is_uuid_text(value)):
        raise _refuse(attribute, value, "the text of a UUID or None")


def _index(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or not 0 <= value <= MAX_INDEX:
        raise _refuse(attribute, value, f"an int from 0 to {MAX_INDEX}")


def _index_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _index(instance, attribute, value)


def _storage_mechanism(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in STORAGE_MECHANISMS:
        raise _refuse(attribute, value, f"one of {', '.join(STORAGE_MECHANISMS)}")


def as_utc(value: datetime) -> datetime:
    """Convert an aware time to UTC.

    Raises:
        TypeError: the value is not a ``datetime``.
        ValueError: the time is naive, or outside the years 1 to 9999 in UTC.

    """
    if not isinstance(value, datetime):
        msg = f"a time must be an aware datetime, not {value!r}"
        raise TypeError(msg)
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        msg = f"a time must have a time zone, not {value!r}"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        msg = f"a time must be in the years 1 to 9999 in UTC, not {value!r}"
        raise ValueError(msg) from error


def iso_time(value: datetime) -> str:
    """Format a UTC time as RFC 3339 text.

    It has milliseconds, as in the mobile trackers, or microseconds if the time has them.
    """
    timespec = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


@attrs.frozen(kw_only=True)
class Snapshot:
    """The contents of a save file: the user and the newest numbered session.

    Values are validated by the ``client_session`` schema 1-0-2, and times are converted to UTC. Every snapshot that can
    be constructed can be saved, and loads as an equal one.

    Raises:
        ValueError: the schema does not allow a value; the message names the field, its value, and what is allowed.
        TypeError: a time is not a ``datetime``.

    """

    user_id: str = attrs.field(validator=_user_id)
    session_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    previous_session_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    session_index: int = attrs.field(default=0, validator=_index)
    storage_mechanism: str = attrs.field(default=STORAGE_MECHANISM, validator=_storage_mechanism)
    first_event_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    first_event_timestamp: datetime | None = attrs.field(default=None, converter=attrs.converters.optional(as_utc))
    event_index: int | None = attrs.field(default=None, validator=_index_or_none)
    last_activity: datetime | None = attrs.field(default=None, converter=attrs.converters.optional(as_utc))


def idle_time(saved: Snapshot, now: datetime) -> timedelta | None:
    """Return the time since the last activity of a saved session, negative if the activity is in the future.

    ``None`` if there is nothing to resume: there is no session, it has ended, or it has no events.
    """
    if not (saved.session_id and saved.event_index and saved.last_activity):
        return None
    return now - saved.last_activity
