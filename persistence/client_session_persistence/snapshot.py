"""The snapshot: everything of a session that outlives its process."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

MAX_INDEX = 2**31 - 1
"""The largest ``sessionIndex`` and ``eventIndex`` that the schema and .NET's ``int`` allow."""

STORAGE_MECHANISM = "LOCAL_STORAGE"
"""What the .NET tracker says of a file, and so do we."""

STORAGE_MECHANISMS = ("SQLITE", "COOKIE_1", "COOKIE_3", "LOCAL_STORAGE", "FLASH_LSO")

_USER_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16}")

UUID_SHAPE = b"00000000-0000-0000-0000-000000000000"
SHAPE = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
"""Makes a 0 of every hexadecimal digit, so that just the canonical text of a UUID becomes `UUID_SHAPE`.

Twice as fast as a regular expression.
"""


def is_uuid_text(text: str) -> bool:
    """Tell whether this is a UUID's canonical text of 36 characters, in any case."""
    return text.encode("ascii", "replace").translate(SHAPE) == UUID_SHAPE


def _refuse(attribute: attrs.Attribute[Any], value: object, allowed: str) -> ValueError:
    return ValueError(f"{attribute.name} must be {allowed}, not {value!r}")


def _user_id(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not _USER_ID.fullmatch(value):
        raise _refuse(attribute, value, "a UUID in lower case or 16 hexadecimal digits in lower case")


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
    """Return an aware time in UTC.

    Raises:
        TypeError: it is no ``datetime``.
        ValueError: it is naive, or its UTC time lies outside the years 1 to 9999.

    """
    if not isinstance(value, datetime):
        msg = f"a time must be an aware datetime, not {value!r}"
        raise TypeError(msg)
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        msg = f"a time must be aware (have a time zone), not naive: {value!r}"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        msg = f"a time must lie in the years 1 to 9999 in UTC, not {value!r}"
        raise ValueError(msg) from error


def iso_time(value: datetime) -> str:
    """Write a UTC time as RFC 3339 text.

    Milliseconds, as the mobile trackers send them; microseconds where the time has them, so that nothing is lost.
    """
    timespec = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


@attrs.frozen(kw_only=True)
class Snapshot:
    """What a save file holds: the user, and the newest numbered session.

    Validated: whatever can be constructed can be saved and reads back equal. Times are converted to UTC. The limits
    are those of the ``client_session`` schema 1-0-2.

    Raises:
        ValueError: a value that the schema would refuse; the message names field, value and what is allowed.
        TypeError: a time that is no ``datetime``.

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
    """Return the time since a saved session's last activity, negative if that lies in the future.

    ``None``: there is no session, it has ended, or it has no event, so there is nothing to resume.
    """
    if not (saved.session_id and saved.event_index and saved.last_activity):
        return None
    return now - saved.last_activity
