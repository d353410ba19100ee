"""The functions that the queries for SQLite call, since SQLite has no MD5 and no type for times."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client_session.microseconds import microseconds, time_at
from client_session_persistence.snapshot import iso_time

if TYPE_CHECKING:
    import sqlite3


def register(connection: sqlite3.Connection) -> None:
    """Register the functions that `sessionize_sql("sqlite")` and the other queries call on a connection.

    Examples:
        >>> connection = sqlite3.connect(":memory:")
        >>> register(connection)

    """
    for name, function in (
        ("md5", _md5),
        ("client_session_microseconds", _microseconds),
        ("client_session_time", _time),
    ):
        connection.create_function(name, 1, function, deterministic=True)


def _md5(text: str | None) -> str | None:
    return None if text is None else hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _microseconds(time: str | float | None) -> int | None:
    """Return a time in microseconds, or ``None`` if it is not one."""
    if isinstance(time, int):
        return time
    try:
        parsed = datetime.fromisoformat(str(time))
    except ValueError:
        return None
    return microseconds(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))


def _time(at: int | None) -> str | None:
    return None if at is None else iso_time(time_at(at))
