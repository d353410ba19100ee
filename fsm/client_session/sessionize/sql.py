"""Sessionizing in SQL: one query that equals `fold`, for SQLite, DuckDB, PostgreSQL and Spark.

docs/explanation/sessionizing.md derives the query. Every engine gets the same text, except for the functions that engines
name differently. It uses standard window functions; only a maximum duration needs recursion.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from client_session.sessionize.settings import (
    EVENTS,
    INPUTS,
    NEVER,
    REMEMBERED_EVENTS,
    RESETS,
    Settings,
    column_names,
)
from client_session.visitors.decision import microseconds
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from client_session.arguments import Seconds


@attrs.frozen
class _Dialect:
    """The text that differs between engines. In each template, ``{}`` is the argument."""

    microseconds: str
    """The microseconds since 1970 of a time."""
    time: str
    """The time of microseconds since 1970."""
    position: str = "strpos({text}, {part})"
    quote: str = '"'
    inline: str = "NOT MATERIALIZED "
    """Prevents that a table that is used more than once is stored."""


DIALECTS: Mapping[str, _Dialect] = {
    "sqlite": _Dialect("client_session_microseconds({})", "client_session_time({})", "instr({text}, {part})"),
    "duckdb": _Dialect("epoch_us({})", "make_timestamptz({})"),
    "postgres": _Dialect(
        "CAST(EXTRACT(EPOCH FROM {}) * 1000000 AS BIGINT)",
        "(TIMESTAMPTZ '1970-01-01 00:00:00+00' + {} * INTERVAL '1 microsecond')",
    ),
    "spark": _Dialect("unix_micros({})", "timestamp_micros({})", "instr({text}, {part})", "`", ""),
}
STATE_COLUMNS = (
    "user_id",
    "time",
    "in_background",
    "is_checking",
    "is_over",
    "last_activity",
    "session_start",
    "session_index",
    "event_index",
    "first_event_id",
    "first_event_timestamp",
    "previous_session_id",
    *(f"recent_event_id_{number}" for number in range(1, REMEMBERED_EVENTS + 1)),
)
"""The columns of the table that carries a `UserState` of each user."""
