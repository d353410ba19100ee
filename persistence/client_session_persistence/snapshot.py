"""The snapshot (a session's saved state), and the error for a file that does not contain a valid snapshot."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_INDEX = 2**31 - 1
"""The largest ``sessionIndex`` and ``eventIndex`` that the schema and .NET's ``int`` allow."""

STORAGE_MECHANISM = "LOCAL_STORAGE"
"""The storage mechanism that is recorded in save files, the same as in the .NET tracker."""

STORAGE_MECHANISMS = ("SQLITE", "COOKIE_1", "COOKIE_3", "LOCAL_STORAGE", "FLASH_LSO")

_MAX_SHOWN = 500

_USER_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16}")

UUID_SHAPE = b"00000000-0000-0000-0000-000000000000"
HEX_TO_ZERO = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
"""Translates every hexadecimal digit to 0, so that only a canonical UUID string becomes `UUID_SHAPE`.
This is twice as fast as a regular expression."""


def is_uuid(text: str) -> bool:
    """Return whether the string is a UUID in canonical form: 36 characters, in upper or lower case."""
    return text.encode("ascii", "replace").translate(HEX_TO_ZERO) == UUID_SHAPE


def shown(value: object) -> str:
    """Return a value's ``repr`` for an error message: shortened, and without failing if the ``repr`` fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # such as ValueError for an int of more than 4300 digits
        text = f"<{type(value).__name__} object>"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _must_be(allowed: str, is_allowed: Callable[[Any], object]) -> Callable[..., None]:
    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not is_allowed(value):
            msg = f"{attribute.name} must be {allowed}, not {shown(value)}"
            raise ValueError(msg)

    return validate


_user_id = _must_be(
    "a lowercase UUID or 16 lowercase hexadecimal digits",
    lambda value: isinstance(value, str) and _USER_ID.fullmatch(value),
)
_uuid_or_none = _must_be(
    "a UUID string or None", lambda value: value is None or (isinstance(value, str) and is_uuid(value))
)
_index = _must_be(f"an int from 0 to {MAX_INDEX}", lambda value: type(value) is int and 0 <= value <= MAX_INDEX)
_boolean_or_none = _must_be("True, False or None", lambda value: value is None or isinstance(value, bool))
_storage_mechanism = _must_be(f"one of {', '.join(STORAGE_MECHANISMS)}", STORAGE_MECHANISMS.__contains__)


def as_utc(value: datetime, argument: str = "a time") -> datetime:
    """Convert an aware time to a plain ``datetime`` in UTC. What a subclass adds, such as nanoseconds, is dropped.

    Raise `TypeError` if it is not a ``datetime``, and `ValueError` if it is naive or not in the years 1 to 9999 in UTC.
    The message names the ``argument``.
    """
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if not isinstance(value, datetime):
        msg = f"{argument} must be an aware datetime, not {shown(value)}"
        raise TypeError(msg)
    try:
        # A subclass's own conversions may return anything, but its fields are those of a datetime.
        offset = value.utcoffset()
        utc = datetime(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, UTC
        )
        if offset is not None:
            return utc - offset
    except OverflowError as error:
        msg = f"{argument} must be in the years 1 to 9999 in UTC, not {shown(value)}"
        raise ValueError(msg) from error
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:  # such as pandas.NaT
        msg = f"{argument} must be an aware datetime, not {shown(value)}: {error}"
        raise ValueError(msg) from error
    msg = f"{argument} must have a time zone, not {shown(value)}"
    raise ValueError(msg)


def _first_event_timestamp(value: datetime | None) -> datetime | None:
    return None if value is None else as_utc(value, "first_event_timestamp")


def _last_activity(value: datetime | None) -> datetime | None:
    return None if value is None else as_utc(value, "last_activity")


def _session_start(value: datetime | None) -> datetime | None:
    return None if value is None else as_utc(value, "session_start")


_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def shifted(time: datetime, seconds: float) -> datetime:
    """Add seconds to a time in UTC. A result outside the years 1 to 9999 becomes the first or last possible time."""
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:
        return _FIRST if seconds < 0 else _LAST


def iso_time(value: datetime) -> str:
    """Format a UTC time as RFC 3339, with milliseconds (like the mobile trackers) or, if necessary, microseconds."""
    timespec = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


@attrs.frozen(kw_only=True)
class Snapshot:
    """The contents of a save file: the user and the newest session that has an index.

    Values are validated against the ``client_session`` schema 1-0-2, and times are converted to UTC. Every valid
    snapshot can be saved, and compares equal when it is loaded again.

    ``first_event_timestamp`` is the event's own timestamp; the other times are times of recording. ``background`` is
    the app's focus, and is set only while a later run may resume the session (see `is_resumable`).

    Raises:
        ValueError: a value violates the schema; the message names the field, its value, and what is allowed.
        TypeError: a time is not a ``datetime``.

    """

    user_id: str = attrs.field(validator=_user_id)
    session_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    previous_session_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    session_index: int = attrs.field(default=0, validator=_index)
    storage_mechanism: str = attrs.field(default=STORAGE_MECHANISM, validator=_storage_mechanism)
    first_event_id: str | None = attrs.field(default=None, validator=_uuid_or_none)
    first_event_timestamp: datetime | None = attrs.field(default=None, converter=_first_event_timestamp)
    event_index: int | None = attrs.field(default=None, validator=attrs.validators.optional(_index))
    last_activity: datetime | None = attrs.field(default=None, converter=_last_activity)
    session_start: datetime | None = attrs.field(default=None, converter=_session_start)
    background: bool | None = attrs.field(default=None, validator=_boolean_or_none)


def printable(text: str) -> str:
    """Escape everything in a text that is not printable: control characters, line breaks, bidi controls, surrogates."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def is_resumable(saved: Snapshot) -> bool:
    """Return whether a later run may resume the session.

    It must have events, must not have ended, and must belong to a run that allows this. Earlier versions of this
    package, which always allowed it, saved neither ``session_start`` nor ``background``.
    """
    is_allowed = saved.background is not None or saved.session_start is None
    return bool(saved.session_id and saved.event_index and saved.last_activity and is_allowed)


def idle_time(saved: Snapshot, now: datetime) -> timedelta | None:
    """Return the time since a resumable session's last activity; it is negative if the activity is in the future.

    Return ``None`` if there is nothing to resume.
    """
    return now - saved.last_activity if saved.last_activity and is_resumable(saved) else None


class StoreError(Exception):
    """A store's failure that is not an `OSError`. A session that sees either continues in memory."""


@attrs.define(repr=False, slots=False)  # with slots, pickling would lose the exception's notes
class CorruptSaveFileError(StoreError, ValueError):
    """A file or a byte string is not a valid save file.

    Attributes:
        reason: what is wrong with it.
        path: the file, or ``None`` if the bytes did not come from a file.
        recovered: the snapshot recovered from the backup or from what is still readable, or ``None``.

    """

    reason: str
    path: str | None = None
    recovered: Snapshot | None = None

    def __str__(self) -> str:
        """Return the file and the reason."""
        return printable(f"{self.path or 'save file'} is corrupt: {self.reason}")
