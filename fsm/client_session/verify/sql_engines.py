"""SQL engines in this process that sessionize a log with the queries of `client_session.sessionize`."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from client_session.input_log import REMEMBERED_EVENTS
from client_session.sessionize.fold import SessionizedEvent, UserState
from client_session.sessionize.settings import ENTITY_COLUMNS, LOG_COLUMNS, STATE_COLUMNS
from client_session.sessionize.sqlite_functions import register

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client_session.input_log import InputRecord

_BOOLEANS = ("in_background", "is_checking", "is_over")
_TIMES = ("time", "last_activity", "session_start", "first_event_timestamp")
_NUMBERS = ("sequence", "session_index", "event_index")


class Engine(Protocol):
    """An engine that has the tables ``log`` and ``carried``. Times are ``datetime`` or their text in ISO 8601."""

    dialect: str

    def load(self, log: Iterable[Sequence[Any]], carried: Iterable[Sequence[Any]]) -> None:
        """Replace the rows of both tables."""
        ...

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query's result."""
        ...


def column_types(text: str, time: str, number: str, boolean: str) -> tuple[str, str]:
    """Return the definitions of the columns of ``log`` and of ``carried``, given the names of an engine's types."""

    def definition(column: str) -> str:
        types = {**dict.fromkeys(_TIMES, time), **dict.fromkeys(_NUMBERS, number), **dict.fromkeys(_BOOLEANS, boolean)}
        return f"{column} {types.get(column, text)}"

    return ", ".join(map(definition, LOG_COLUMNS)), ", ".join(map(definition, STATE_COLUMNS))


def load(engine: Engine, records: Iterable[InputRecord], carried: Iterable[UserState] = ()) -> None:
    """Replace an engine's log and carried states."""
    engine.load(map(attrs.astuple, records), map(_state_row, carried))


def events(engine: Engine, sql: str) -> list[SessionizedEvent]:
    """Return the events of a query of `sessionize_sql`, in each user's order."""
    columns = (*LOG_COLUMNS, *ENTITY_COLUMNS)
    found: list[SessionizedEvent] = []
    for row in engine.query(sql):
        values: dict[str, Any] = dict(zip(columns, row, strict=True))
        for name in ("time", "first_event_timestamp"):
            values[name] = _time(values[name])
        found.append(SessionizedEvent(**values))
    return sorted(found, key=lambda event: (event.user_id, event.sequence))


def states(engine: Engine, sql: str) -> list[UserState]:
    """Return the states of a query of `carried_state_sql`, in the order of users."""
    found: list[UserState] = []
    for row in engine.query(sql):
        values = dict(zip(STATE_COLUMNS, row, strict=True))
        recent = tuple(values.pop(name) for name in STATE_COLUMNS[-REMEMBERED_EVENTS:])
        values |= {name: bool(values[name]) for name in _BOOLEANS}
        values |= {name: None if values[name] is None else _time(values[name]) for name in _TIMES if name in values}
        found.append(UserState(**values, recent_event_ids=tuple(filter(None, recent))))
    return sorted(found, key=lambda state: state.user_id)


def _state_row(state: UserState) -> tuple[Any, ...]:
    *values, recent = attrs.astuple(state, recurse=False)
    return (*values, *recent, *[None] * (REMEMBERED_EVENTS - len(recent)))


def _time(value: datetime | str) -> datetime:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


class SqliteEngine:
    """SQLite, in memory."""

    dialect = "sqlite"

    def __init__(self) -> None:
        """Create the tables."""
        self._connection = sqlite3.connect(":memory:")
        register(self._connection)
        log, carried = column_types("TEXT", "TEXT", "INTEGER", "INTEGER")
        self._connection.execute(f"CREATE TABLE log ({log})")
        self._connection.execute(f"CREATE TABLE carried ({carried})")

    def load(self, log: Iterable[Sequence[Any]], carried: Iterable[Sequence[Any]]) -> None:
        """Replace the rows of both tables."""
        for table, rows in (("log", log), ("carried", carried)):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  # one of two names
            for row in rows:
                values = [value.isoformat() if isinstance(value, datetime) else value for value in row]
                marks = ", ".join("?" * len(values))
                self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608  # the same

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query's result."""
        return self._connection.execute(sql).fetchall()


class DuckDbEngine:
    """DuckDB, in memory."""

    dialect = "duckdb"

    def __init__(self) -> None:
        """Create the tables."""
        import duckdb  # noqa: PLC0415  # it may be missing

        self._connection = duckdb.connect()
        self._connection.execute("SET threads = 2")
        self._types = column_types("VARCHAR", "TIMESTAMPTZ", "BIGINT", "BOOLEAN")

    def load(self, log: Iterable[Sequence[Any]], carried: Iterable[Sequence[Any]]) -> None:
        """Replace the rows of both tables."""
        for table, types, rows in zip(("log", "carried"), self._types, (log, carried), strict=True):
            self._connection.execute(f"CREATE OR REPLACE TABLE {table} ({types})")
            columns = list(zip(*rows, strict=True))
            if columns:
                # One list for each column: far faster than a statement for each row.
                unnested = ", ".join("unnest(?)" for _ in columns)
                self._connection.execute(f"INSERT INTO {table} SELECT {unnested}", columns)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query's result."""
        return self._connection.execute(sql).fetchall()
