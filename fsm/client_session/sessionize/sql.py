"""Sessionizing in SQL: queries that equal `Fold`, for SQLite, DuckDB, PostgreSQL and Spark.

All engines get the same text, except for the functions that they name differently. It uses standard window functions;
only a maximum duration needs recursion. docs/explanation/sessionizing.md derives the query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from client_session import arguments
from client_session.input_log import CLOCK
from client_session.sessionize.settings import (
    EVENTS,
    INPUTS,
    LOG_COLUMNS,
    RECENT,
    SessionSettings,
    Settings,
    column_names,
)
from client_session.sessionize.sql_dialects import case, dialect_named, listed, relation
from client_session.sessionize.sql_tables import BACKGROUND, CARRIED, STOPPED, Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def sessionize_sql(
    dialect: str,
    *,
    log: str = "log",
    columns: Mapping[str, str] | None = None,
    carried: str | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> str:
    """Return a query for the events of a log that belong to a session: the log's columns, then the entity's.

    ``dialect`` is ``sqlite`` (see `register`), ``duckdb``, ``postgres`` or ``spark``. ``log`` is inserted after
    ``FROM`` as it is: a table, a subquery in parentheses, or a reference of dbt's. Ids are text; the time is a
    timestamp, in SQLite text in ISO 8601 or a number of microseconds since 1970; times without a time zone are UTC.
    ``columns`` renames the log's columns, for example ``{"user_id": "domain_userid"}``. ``carried`` is a table of
    states, which `carried_state_sql` returned for all earlier inputs. Without ``drop_repeats``, the query is faster,
    but counts repeated event ids again.

    Rows that break the rules of `problems_sql` give wrong sessions, so run that first.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a value is invalid.

    Examples:
        >>> query = sessionize_sql("sqlite")
        >>> database.execute(f"SELECT event_id, session_index, event_index FROM ({query}) ORDER BY time").fetchall()
        [('e1', 1, 1), ('e2', 1, 2), ('e3', 2, 1)]

    """
    return _Query(dialect, log, columns, Settings.checked(**settings), carried, drop_repeats=drop_repeats).events()


def carried_state_sql(
    dialect: str,
    *,
    log: str = "log",
    columns: Mapping[str, str] | None = None,
    carried: str | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> str:
    """Return a query for each user's state after a log, with `STATE_COLUMNS`. Arguments are those of `sessionize_sql`.

    Users that are only in ``carried`` keep their state. The result is the ``carried`` table of the next log's query,
    which must have the same settings.

    Examples:
        >>> cursor = database.execute("CREATE TABLE states AS " + carried_state_sql("sqlite"))
        >>> database.execute("SELECT user_id, session_index, event_index FROM states").fetchall()
        [('anna', 2, 1)]
        >>> query = sessionize_sql("sqlite", log="next_log", carried="states")

    """
    return _Query(dialect, log, columns, Settings.checked(**settings), carried, drop_repeats=drop_repeats).states()


def problems_sql(
    dialect: str, *, log: str = "log", columns: Mapping[str, str] | None = None, carried: str | None = None
) -> str:
    """Return a query for what is wrong with a log: ``problem``, ``row_count`` and ``example``; no rows if nothing is.

    Arguments are those of `sessionize_sql`.

    Examples:
        >>> cursor = database.execute("INSERT INTO log VALUES (NULL, '2026-11-23T10:00:00Z', 4, 'event', 'e4')")
        >>> database.execute(problems_sql("sqlite")).fetchall()
        [('user_id is null or empty', 1, 'null, 2026-11-23T10:00:00Z, 4, event, e4')]

    """
    return _Query(dialect, log, columns, Settings.checked(), carried, drop_repeats=False).problems()


class _Query:
    """The queries, given the tables that they read."""

    def __init__(  # noqa: PLR0913  # the arguments of the public functions
        self,
        dialect: str,
        log: str,
        columns: Mapping[str, str] | None,
        settings: Settings,
        carried: str | None,
        *,
        drop_repeats: bool,
    ) -> None:
        self._dialect = dialect_named(dialect)
        self._namespace = settings.namespace
        self._columns = {column: self._dialect.name(name) for column, name in column_names(columns).items()}
        self._carried = None if carried is None else relation("carried", carried)
        self._tables = Tables(
            self._dialect,
            relation("log", log),
            self._columns,
            settings,
            self._carried,
            drop_repeats=arguments.boolean("drop_repeats", drop_repeats),
        )

    def events(self) -> str:
        """Return the query for events."""
        columns = [
            *(column if column == name else f"{column} AS {name}" for column, name in self._columns.items()),
            f"{self._dialect.uuid('session_digits')} AS session_id",
            f"{self._previous_session_id()} AS previous_session_id",
            "session_index",
            "event_index",
            "first_event_id",
            "first_event_timestamp",
        ]
        where = "" if self._carried is None else "\nWHERE part = 0"
        return self._query([*self._tables.all(), self._hashed()], columns, f"FROM hashed{where}")

    def states(self) -> str:
        """Return the query for users' states."""
        shift = f"(l.t - {self._dialect.microseconds.format('l.time')})"
        current = "f.is_current = 1"
        is_stopped = f"f.is_stopped = 1 AND {current}"
        columns = [
            "l.user_id",
            "l.time",
            "f.in_background = 1 AS in_background",
            f"NOT ({is_stopped}) AS is_checking",
            f"NOT ({current}) AS is_over",
            f"CASE WHEN {current} THEN {self._dialect.time.format(f'f.last_activity - {shift}')} END AS last_activity",
            f"CASE WHEN {current} THEN {self._dialect.time.format(f'h.started - {shift}')} END AS session_start",
            f"COALESCE({self._newest('h.session_index', 'session_index')}, 0) AS session_index",
            f"COALESCE({self._newest('h.event_index', 'event_index')}, 0) AS event_index",
            f"{self._newest('h.first_event_id', 'first_event_id')} AS first_event_id",
            f"{self._newest('h.first_event_timestamp', 'first_event_timestamp')} AS first_event_timestamp",
            f"{self._newest(self._previous_session_id('h.'), 'previous_session_id')} AS previous_session_id",
            *(f"l.{name}" for name in RECENT),
        ]
        source = """FROM latest AS l
JOIN focus AS f ON f.user_id = l.user_id
LEFT JOIN newest AS h ON h.user_id = f.user_id AND h.lives = f.lives"""
        if self._carried is not None:
            source += f"\nLEFT JOIN {CARRIED} AS c ON c.user_id = f.user_id AND f.lives = 0"
        return self._query([*self._tables.all(), self._hashed(), *self._last_rows()], columns, source)

    def problems(self) -> str:
        """Return the query for problems."""
        text = f"AS {self._dialect.text})"
        differs = "i.previous_input <> i.input OR COALESCE(i.previous_event_id, '') <> COALESCE(i.event_id, '')"
        cases = [
            ("i.user_id IS NULL OR i.user_id = ''", "user_id is null or empty"),
            ("i.t IS NULL", "time is null or not a time"),
            ("i.sequence IS NULL", "sequence is null"),
            ("i.input IS NULL", "input is null"),
            (f"i.input NOT IN ({listed(INPUTS)})", f"input is not one of {', '.join(INPUTS)}"),
            (
                f"i.input IN ({listed(EVENTS)}) AND COALESCE(i.event_id, '') = ''",
                "event_id of an event is null or empty",
            ),
            (
                f"i.previous_t = i.t AND i.previous_sequence = i.sequence AND ({differs})",
                "rows that differ have the same user_id, time and sequence",
            ),
        ]
        late = ""
        if self._carried is not None:
            last = self._dialect.microseconds.format("c.time")
            cases.append((f"i.t < {last} AND i.input <> '{CLOCK}'", "time is before the end of the carried state"))
            late = f"\n  LEFT JOIN {self._carried} AS c ON CAST(c.user_id {text} = i.user_id"
        problem = case(*((condition, self._dialect.literal(name)) for condition, name in cases))
        fields = " || ', ' || ".join(f"COALESCE(CAST(i.{column} {text}, 'null')" for column in LOG_COLUMNS)
        return f"""WITH {self._tables.log_inputs()},
compared AS (  -- Ids may be numbers.
  SELECT CAST(user_id {text} AS user_id, t, time, sequence, input, CAST(event_id {text} AS event_id,
         LAG(t) OVER in_order AS previous_t, LAG(sequence) OVER in_order AS previous_sequence,
         LAG(input) OVER in_order AS previous_input, LAG(CAST(event_id {text}) OVER in_order AS previous_event_id
  FROM inputs
  WINDOW in_order AS (PARTITION BY user_id ORDER BY t, sequence)
),
problems AS (
  SELECT {problem} AS problem,
         {fields} AS example
  FROM compared AS i{late}
)
SELECT problem, COUNT(*) AS row_count, MIN(example) AS example
FROM problems
WHERE problem IS NOT NULL
GROUP BY problem
ORDER BY problem
"""

    def _query(self, tables: Iterable[str], columns: Iterable[str], source: str) -> str:
        recursive = " RECURSIVE" if self._tables.has_limit and not self._dialect.has_lambdas else ""
        return f"WITH{recursive} " + ",\n".join(tables) + "\nSELECT " + ",\n       ".join(columns) + f"\n{source}\n"

    def _digits(self, first_event_id: str) -> str:
        """Return the hexadecimal hash from which a session's id is made, as `client_session.ids` does."""
        prefix = self._dialect.literal(f"client-session/1/{self._namespace}/session/")
        return f"md5({prefix} || e.user_id || '/' || {first_event_id})"

    def _previous_session_id(self, prefix: str = "") -> str:
        value = self._dialect.uuid(f"{prefix}previous_digits")
        return value if self._carried is None else f"COALESCE({prefix}carried_previous_session_id, {value})"

    def _newest(self, value: str, column: str) -> str:
        """Return a value of a user's newest session, which may be a carried one that is over."""
        return value if self._carried is None else f"CASE WHEN h.user_id IS NULL THEN c.{column} ELSE {value} END"

    def _hashed(self) -> str:
        """Return the table of all events with their entities' columns; of ids, their hashes."""
        index, event_index, previous, more, join = (
            "e.session_index",
            "e.event_index",
            "e.previous_first_event_id",
            "",
            "",
        )
        if self._carried is not None:
            is_carried = "c.user_id IS NOT NULL AND e.session_index = 1 AND NOT c.is_over"
            index += " + COALESCE(CASE WHEN c.is_over THEN c.session_index ELSE c.session_index - 1 END, 0)"
            event_index += f" + CASE WHEN {is_carried} THEN c.event_index - 1 ELSE 0 END"
            previous = f"""CASE WHEN {is_carried} THEN NULL
                  WHEN e.session_index = 1 THEN c.first_event_id
                  ELSE e.previous_first_event_id END"""
            more = f",\n         CASE WHEN {is_carried} THEN c.previous_session_id END AS carried_previous_session_id"
            join = f"\n  LEFT JOIN {CARRIED} AS c ON c.user_id = e.user_id AND e.lives = 0"
        part = ", e.part" if self._carried is not None else ""
        # Some engines add 64-bit integers to a wider type, which other programs may read as a floating-point number.
        return f"""hashed AS (  -- Session ids are made of hashes.
  SELECT e.user_id, e.time, e.sequence, e.input, e.event_id{part}, e.n, e.lives,
         e.first_event_id, e.first_event_timestamp, e.started,
         CAST({index} AS BIGINT) AS session_index,
         CAST({event_index} AS BIGINT) AS event_index,
         {self._digits("e.first_event_id")} AS session_digits,
         {self._digits(previous)} AS previous_digits{more}
  FROM linked AS e{join}
)"""

    def _last_rows(self) -> Iterator[str]:
        """Yield tables of what is last for each user."""
        tables = self._tables
        yield f"""focus AS (  -- What all inputs leave.
  SELECT user_id, MAX(lives) AS lives,
         COALESCE(MAX({BACKGROUND}) % 2, 0) AS in_background,
         COALESCE(MAX({STOPPED}) % 2, 0) AS is_stopped,
         MAX({tables.activity()}) AS last_activity,
         CASE WHEN MAX(events) > MAX(begin) THEN 1 ELSE 0 END AS is_current
  FROM {tables.sessions}
  GROUP BY user_id
)"""
        descending = ", ".join(f"{column} DESC" for column in tables.order.split(", "))
        is_event = f"CASE WHEN {tables.is_event} THEN 1 ELSE 0 END"
        yield f"""ages AS (  -- Dropped events, too.
  SELECT user_id, t, time, event_id, {is_event} AS is_event,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY {descending}) AS age,
         ROW_NUMBER() OVER (PARTITION BY user_id, {is_event} ORDER BY {descending}) AS event_age
  FROM ordered
)"""
        recent = ",\n         ".join(
            f"MAX(CASE WHEN is_event = 1 AND event_age = {age} THEN event_id END) AS {name}"
            for age, name in enumerate(RECENT, 1)
        )
        yield f"""latest AS (
  SELECT user_id, MAX(CASE WHEN age = 1 THEN time END) AS time, MAX(CASE WHEN age = 1 THEN t END) AS t,
         {recent}
  FROM ages
  GROUP BY user_id
)"""
        yield """newest AS (
  SELECT h.*
  FROM hashed AS h
  JOIN (SELECT user_id, lives, MAX(n) AS n FROM hashed GROUP BY user_id, lives) AS m
    ON m.user_id = h.user_id AND m.lives = h.lives AND m.n = h.n
)"""
