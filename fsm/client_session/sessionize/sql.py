"""Sessionizing in SQL: queries that equal `Fold`, for SQLite, DuckDB, PostgreSQL and Spark.

All engines get the same text, except for the functions that they name differently. It uses standard window functions;
only a maximum duration needs recursion. docs/explanation/sessionizing.md derives the query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from client_session import arguments
from client_session.graph import Command, Input
from client_session.sessionize.settings import EVENTS, INPUTS, NEVER, REMEMBERED_EVENTS, RESETS, Settings, column_names
from client_session.visitors.decision import CLOCK
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from client_session.arguments import Seconds


@attrs.frozen
class _Dialect:
    """What engines name differently. ``{}`` in a template is its argument."""

    microseconds: str
    """The microseconds since 1970 of a time."""
    time: str
    """The time of a number of microseconds since 1970."""
    position: str
    """The position, from 1, of a character in a text."""
    text: str = "VARCHAR"
    quote: str = '"'
    escaped: str = ""
    """The characters in literals that need a backslash; without any, quotes are doubled."""
    has_lambdas: bool = False
    """Whether a function can fold an array, which is used instead of recursion."""
    inline: str = " NOT MATERIALIZED"
    """The keywords for a table that is read more than once, but is not worth storing."""


DIALECTS: Mapping[str, _Dialect] = {
    "sqlite": _Dialect("client_session_microseconds({})", "client_session_time({})", "instr('{text}', {part})"),
    "duckdb": _Dialect("epoch_us({})", "make_timestamptz({})", "strpos('{text}', {part})"),
    "postgres": _Dialect(
        "CAST(EXTRACT(EPOCH FROM {}) * 1000000 AS BIGINT)",
        "TIMESTAMPTZ '1970-01-01 00:00:00+00' + ({}) * INTERVAL '1 microsecond'",
        "strpos('{text}', {part})",
    ),
    "spark": _Dialect(
        "unix_micros({})",
        "timestamp_micros({})",
        "instr('{text}', {part})",
        text="STRING",
        quote="`",
        escaped="\\'",
        has_lambdas=True,
        inline="",
    ),
}
_RECENT = tuple(f"recent_event_id_{number}" for number in range(1, REMEMBERED_EVENTS + 1))
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
    *_RECENT,
)
"""The columns of a table of carried states: those of `UserState`, with a column for each recent event id."""
_COLUMNS = "user_id, t, time, sequence, input, event_id"


def sessionize_sql(  # noqa: PLR0913  # the settings in the specification
    dialect: str,
    *,
    log: str = "log",
    columns: Mapping[str, str] | None = None,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    carried: str | None = None,
    drop_repeats: bool = True,
) -> str:
    """Return a query for the events of a log that belong to a session: the log's columns, then the entity's.

    ``dialect`` is ``sqlite`` (see `register`), ``duckdb``, ``postgres`` or ``spark``. ``log`` is inserted after ``FROM``
    as it is: a table, a subquery in parentheses, or a reference of dbt's. Ids are text; the time is a timestamp, in SQLite
    text in ISO 8601 or a number of microseconds since 1970; times without a time zone are UTC. ``columns`` renames the
    log's columns, for example ``{"user_id": "domain_userid"}``. ``carried`` is a table of states, which `carried_state_sql`
    returned for all earlier inputs. Without ``drop_repeats``, the query is faster, but counts repeated event ids again.

    Rows that break the rules of `problems_sql` give wrong sessions, so run that first.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a value is invalid.

    """
    settings = Settings.checked(
        foreground_timeout,
        background_timeout,
        max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
    )
    return _Query(dialect, log, columns, settings, carried, drop_repeats=drop_repeats).events()


def carried_state_sql(  # noqa: PLR0913  # the settings in the specification
    dialect: str,
    *,
    log: str = "log",
    columns: Mapping[str, str] | None = None,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    carried: str | None = None,
    drop_repeats: bool = True,
) -> str:
    """Return a query for each user's state after a log, with `STATE_COLUMNS`. Arguments are those of `sessionize_sql`.

    Users that are only in ``carried`` keep their state. The result is the ``carried`` table of the next log's query, which
    must have the same settings.
    """
    settings = Settings.checked(
        foreground_timeout,
        background_timeout,
        max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
    )
    return _Query(dialect, log, columns, settings, carried, drop_repeats=drop_repeats).states()


def problems_sql(
    dialect: str, *, log: str = "log", columns: Mapping[str, str] | None = None, carried: str | None = None
) -> str:
    """Return a query for what is wrong with a log: ``problem``, ``row_count`` and ``example``; no rows if nothing is.

    Arguments are those of `sessionize_sql`.
    """
    settings = Settings.checked(600, 300, None, extend_on_focus_change=False, namespace="default")
    return _Query(dialect, log, columns, settings, carried, drop_repeats=False).problems()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _case(*cases: tuple[str, object], otherwise: object = None) -> str:
    text = " ".join(f"WHEN {condition} THEN {value}" for condition, value in cases)
    return f"CASE {text}{'' if otherwise is None else f' ELSE {otherwise}'} END"


def _relation(argument: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        msg = f"{argument} must be the text of a table or a subquery, not {shown(value)}"
        raise (ValueError if isinstance(value, str) else TypeError)(msg)
    return value


_EVENT_LIST = _listed(EVENTS)
_BREAK_LIST = _listed([Command.NEW_SESSION, *RESETS])
# For each input that sets a flag, two times the row's number, plus the flag.
_BACKGROUND = _case(
    (f"input = '{Input.BACKGROUND}'", "2 * n + 1"), (f"input IN ({_listed([Input.FOREGROUND, *RESETS])})", "2 * n")
)
_STOPPED = _case(
    (f"input = '{Command.STOP_CHECKER}'", "2 * n + 1"),
    (f"input IN ({_listed([Input.EVENT, Input.FOREGROUND, Command.START_CHECKER, *RESETS])})", "2 * n"),
)
# Starting to check checks nothing by itself, and setting a clock back is not an input of the user.
_IS_CHECKED = f"is_stopped = 0 AND input NOT IN ({_listed([Command.START_CHECKER, CLOCK])})"


class _Query:
    """The text of a query, as a sequence of named tables."""

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
        if dialect not in DIALECTS:
            msg = f"dialect must be one of {', '.join(DIALECTS)}, not {shown(dialect)}"
            raise ValueError(msg)
        self._dialect = DIALECTS[dialect]
        self._log = _relation("log", log)
        self._columns = {column: self._quoted(name) for column, name in column_names(columns).items()}
        self._settings = settings
        # Read as one table, because a subquery would otherwise be repeated many times.
        self._carried_source = None if carried is None else _relation("carried", carried)
        self._carried = None if carried is None else "carried_states"
        self._drop_repeats = arguments.boolean("drop_repeats", drop_repeats)
        self._has_limit = settings.max_duration < NEVER
        # Rows of a carried state come before the log's, in the order of `part`, which is 0 for the log's rows.
        self._part = "" if carried is None else ", part"
        self._order = "t, sequence" if carried is None else "part, t, sequence"
        if carried is None:
            self._is_event = self._is_log_event = f"input IN ({_EVENT_LIST})"
        else:
            self._is_log_event = f"part = 0 AND input IN ({_EVENT_LIST})"
            self._is_event = f"input = 'seen' OR ({self._is_log_event})"

    def events(self) -> str:
        """Return the query for events."""
        columns = [
            *(column if column == name else f"{column} AS {name}" for column, name in self._columns.items()),
            f"{self._uuid('session_digits')} AS session_id",
            f"{self._previous_session_id()} AS previous_session_id",
            "session_index",
            "event_index",
            "first_event_id",
            "first_event_timestamp",
        ]
        where = "" if self._carried is None else "\nWHERE part = 0"
        return self._query([*self._tables(), self._hashed()], columns, f"FROM hashed{where}")

    def states(self) -> str:
        """Return the query for users' states."""
        last_limit = "MAX(last_limit)" if self._has_limit else "0"
        focus = f"""focus AS (  -- What each user's rows leave.
  SELECT user_id, MAX(n) AS last_n, MAX(lives) AS last_life,
         COALESCE(MAX({_BACKGROUND}) % 2, 0) AS in_background,
         COALESCE(MAX({_STOPPED}) % 2, 0) AS is_stopped,
         MAX({self._activity()}) AS last_activity,
         CASE WHEN MAX(last_event) >= MAX(last_break) AND MAX(last_event) >= {last_limit} THEN 1 ELSE 0 END AS is_current
  FROM {self._sessions_table}
  GROUP BY user_id
)"""
        ages = f"""ages AS (
  SELECT user_id, t, time, event_id, CASE WHEN {self._is_event} THEN 1 ELSE 0 END AS is_event,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY {self._descending}) AS age,
         ROW_NUMBER() OVER (PARTITION BY user_id, CASE WHEN {self._is_event} THEN 1 ELSE 0 END ORDER BY {self._descending}) AS event_age
  FROM ordered
)"""
        recent = ",\n         ".join(
            f"MAX(CASE WHEN is_event = 1 AND event_age = {age} THEN event_id END) AS {name}"
            for age, name in enumerate(_RECENT, 1)
        )
        latest = f"""latest AS (  -- The last row's time by the log's clock and by a clock that was never set back, and recent event ids.
  SELECT user_id, MAX(CASE WHEN age = 1 THEN time END) AS time, MAX(CASE WHEN age = 1 THEN t END) AS t,
         {recent}
  FROM ages
  GROUP BY user_id
)"""
        newest = """newest AS (  -- The last event of each user's newest session.
  SELECT h.*
  FROM hashed AS h
  JOIN (SELECT user_id, lives, MAX(n) AS n FROM hashed GROUP BY user_id, lives) AS m
    ON m.user_id = h.user_id AND m.lives = h.lives AND m.n = h.n
)"""
        shift = f"(l.t - {self._microseconds('l.time')})"
        carried = "" if self._carried is None else f"\nLEFT JOIN {self._carried} AS c ON c.user_id = f.user_id AND f.last_life = 0"
        newest_session = {
            "session_index": "COALESCE({}, 0)",
            "event_index": "COALESCE({}, 0)",
            "first_event_id": "{}",
            "first_event_timestamp": "{}",
            "previous_session_id": "{}",
        }
        columns = [
            "l.user_id",
            "l.time",
            "f.in_background = 1 AS in_background",
            "NOT (f.is_stopped = 1 AND f.is_current = 1) AS is_checking",
            "f.is_current = 0 AS is_over",
            f"CASE WHEN f.is_current = 1 THEN {self._time(f'f.last_activity - {shift}')} END AS last_activity",
            f"CASE WHEN f.is_current = 1 THEN {self._time(f'h.started - {shift}')} END AS session_start",
            *(template.format(self._newest(name)) + f" AS {name}" for name, template in newest_session.items()),
            *(f"l.{name}" for name in _RECENT),
        ]
        tables = [*self._tables(), self._hashed(), focus, ages, latest, newest]
        return self._query(
            tables,
            columns,
            "FROM latest AS l\nJOIN focus AS f ON f.user_id = l.user_id\n"
            f"LEFT JOIN newest AS h ON h.user_id = f.user_id AND h.lives = f.last_life{carried}",
        )
    def problems(self) -> str:
        """Return the query for problems."""
        text = f"AS {self._dialect.text})"
        late = "" if self._carried is None else "\n         LEFT JOIN carried_users AS c ON c.user_id = i.user_id"
        cases = [
            ("i.user_id IS NULL OR i.user_id = ''", "user_id is null or empty"),
            ("i.t IS NULL", "time is null or not a time"),
            ("i.sequence IS NULL", "sequence is null"),
            ("i.input IS NULL", "input is null"),
            (f"i.input NOT IN ({_listed(INPUTS)})", f"input is not one of {', '.join(INPUTS)}"),
            (f"i.input IN ({_EVENT_LIST}) AND COALESCE(i.event_id, '') = ''", "event_id of an event is null or empty"),
            (
                "i.previous_t = i.t AND i.previous_sequence = i.sequence AND (i.previous_input <> i.input OR "
                "COALESCE(i.previous_event_id, '') <> COALESCE(i.event_id, ''))",
                "rows that differ have the same user_id, time and sequence",
            ),
        ]
        carried_users = ""
        if self._carried is not None:
            cases.append((f"i.t < c.t AND i.input <> '{CLOCK}'", "time is before the end of the carried state"))
            carried_users = f""",
carried_users AS (
  SELECT user_id, {self._microseconds("time")} AS t FROM {self._carried_source}
)"""
        problem = _case(*((condition, self._literal(name)) for condition, name in cases))
        fields = " || ', ' || ".join(
            f"COALESCE(CAST(i.{column} {text}, 'null')" for column in ("user_id", "time", "sequence", "input", "event_id")
        )
        return f"""WITH {self._log_inputs()},
compared AS (
  SELECT {_COLUMNS},
         LAG(t) OVER rows AS previous_t, LAG(sequence) OVER rows AS previous_sequence,
         LAG(input) OVER rows AS previous_input, LAG(event_id) OVER rows AS previous_event_id
  FROM inputs
  WINDOW rows AS (PARTITION BY user_id ORDER BY t, sequence)
){carried_users},
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

    @property
    def _sessions_table(self) -> str:
        return "divided" if self._has_limit else "grouped"

    @property
    def _descending(self) -> str:
        return ", ".join(f"{column} DESC" for column in self._order.split(", "))

    def _newest(self, column: str) -> str:
        """Return a column of a user's newest session, which may be a carried one that is over."""
        value = self._previous_session_id("h.") if column == "previous_session_id" else f"h.{column}"
        return value if self._carried is None else f"CASE WHEN h.user_id IS NULL THEN c.{column} ELSE {value} END"

    def _query(self, tables: Iterable[str], columns: Iterable[str], source: str) -> str:
        recursive = " RECURSIVE" if self._has_limit and not self._dialect.has_lambdas else ""
        return f"WITH{recursive} " + ",\n".join(tables) + "\nSELECT " + ",\n       ".join(columns) + f"\n{source}\n"

    def _quoted(self, name: str) -> str:
        quote = self._dialect.quote
        return quote + name.replace(quote, quote * 2) + quote

    def _literal(self, text: str) -> str:
        for character in self._dialect.escaped:
            text = text.replace(character, f"\\{character}")
        return "'" + (text if self._dialect.escaped else text.replace("'", "''")) + "'"

    def _microseconds(self, time: str) -> str:
        return self._dialect.microseconds.format(time)

    def _time(self, microseconds: str) -> str:
        return self._dialect.time.format(microseconds)

    def _digits(self, first_event_id: str) -> str:
        """Return the hexadecimal MD5 hash from which a session's id is made, as `client_session.visitors.ids` does."""
        prefix = self._literal(f"client-session/1/{self._settings.namespace}/session/")
        return f"md5({prefix} || e.user_id || '/' || {first_event_id})"

    def _uuid(self, digits: str) -> str:
        """Return the UUIDv8 with these digits."""
        variant = self._dialect.position.format(text="0123456789abcdef", part=f"substr({digits}, 17, 1)")
        return (
            f"substr({digits}, 1, 8) || '-' || substr({digits}, 9, 4) || '-8' || substr({digits}, 14, 3) || '-' ||\n"
            f"         substr('89ab', ({variant} - 1) % 4 + 1, 1) || substr({digits}, 18, 3) || '-' || substr({digits}, 21, 12)"
        )

    def _previous_session_id(self, prefix: str = "") -> str:
        value = self._uuid(f"{prefix}previous_digits")
        return value if self._carried is None else f"COALESCE({prefix}carried_previous_session_id, {value})"

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
            previous = f"COALESCE({previous}, CASE WHEN e.session_index = 1 THEN c.first_event_id END)"
            more = f",\n         CASE WHEN {is_carried} THEN c.previous_session_id END AS carried_previous_session_id"
            previous = f"CASE WHEN {is_carried} THEN NULL ELSE {previous} END"
            join = f"\n  LEFT JOIN {self._carried} AS c ON c.user_id = e.user_id AND e.lives = 0"
        part = ", e.part" if self._part else ""
        return f"""hashed AS (  -- Session ids are made of hashes.
  SELECT e.user_id, e.time, e.sequence, e.input, e.event_id{part}, e.n, e.lives, e.first_event_id, e.first_event_timestamp, e.started,
         {index} AS session_index,
         {event_index} AS event_index,
         {self._digits("e.first_event_id")} AS session_digits,
         {self._digits(previous)} AS previous_digits{more}
  FROM linked AS e{join}
)"""

    def _tables(self) -> Iterator[str]:
        yield from self._inputs()
        if self._drop_repeats:
            yield self._marked()
        yield self._numbered()
        yield self._known()
        yield self._active()
        yield from self._grouped()
        if self._has_limit:
            yield from self._limits()
        yield from self._placed()

    def _log_inputs(self, carried: str = "", part: str = "") -> str:
        columns, inline = self._columns, self._dialect.inline
        return f"""inputs AS{inline} (  -- Times in microseconds since 1970.
  SELECT {columns["user_id"]} AS user_id, {self._microseconds(columns["time"])} AS t, {columns["time"]} AS time,
         {columns["sequence"]} AS sequence, {columns["input"]} AS input, {columns["event_id"]} AS event_id{part}
  FROM {self._log}{carried}
)"""

    def _inputs(self) -> Iterator[str]:
        """Yield the rows of the log and the carried states, with times that never go back."""
        part = self._part
        if self._carried is None:
            yield self._log_inputs()
        else:
            yield f"carried_states AS (SELECT * FROM {self._carried_source})"
            yield self._log_inputs(self._carried_inputs(self._carried), ", 0 AS part")
        yield f"""clock_inputs AS (  -- A visitor's clock was set back: times before and after it cannot be compared, but sequences can.
  SELECT {_COLUMNS}{part},
         SUM(CASE WHEN input = '{CLOCK}' THEN 1 ELSE 0 END)
           OVER (PARTITION BY user_id ORDER BY {"part, " if part else ""}sequence ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS clocks
  FROM inputs
  WHERE user_id IN (SELECT user_id FROM inputs WHERE input = '{CLOCK}')
)"""
        order = f"PARTITION BY user_id ORDER BY clocks, {self._order}"
        yield f"""clock_steps AS (
  SELECT {_COLUMNS}{part}, clocks,
         CASE WHEN input = '{CLOCK}' THEN COALESCE(LAG(t) OVER ({order}) - t, 0) ELSE 0 END AS step
  FROM clock_inputs
)"""
        yield f"""ordered AS (  -- (time, sequence) orders each user's inputs.
  SELECT {_COLUMNS}{part}
  FROM inputs AS i
  WHERE NOT EXISTS (SELECT 1 FROM clock_inputs AS c WHERE c.user_id = i.user_id)
  UNION ALL
  SELECT user_id,
         CAST(t + SUM(step) OVER ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS BIGINT),
         time, sequence, input, event_id{part}
  FROM clock_steps
)"""

    def _carried_inputs(self, carried: str) -> str:
        """Return rows for a log that leads to each carried state."""
        limits = ("session_start", "last_activity")
        start, activity = (self._microseconds(column) for column in limits)
        last = self._microseconds("time")
        steps = [
            *((f"COALESCE({start}, {last})", "time", "'seen'", name, f"{name} IS NOT NULL") for name in reversed(_RECENT)),
            (start, "first_event_timestamp", f"'{Input.EVENT}'", "first_event_id", "NOT is_over"),
            (start, "time", f"'{Command.STOP_CHECKER}'", "NULL", "NOT is_over"),
            (activity, "time", f"'{Command.TOUCH}'", "NULL", "NOT is_over"),
            (f"COALESCE({activity}, {last})", "time", f"'{Input.BACKGROUND}'", "NULL", "in_background"),
            (last, "time", "'carried'", "NULL", "1 = 1"),
            (last, "time", f"'{Command.START_CHECKER}'", "NULL", "is_checking"),
        ]
        selects = (
            f"\n  UNION ALL\n  SELECT user_id, {t}, {time}, 0, {given}, {event_id}, {part - len(steps)} FROM {carried} WHERE {condition}"
            for part, (t, time, given, event_id, condition) in enumerate(steps)
        )
        return "".join(selects)

    def _marked(self) -> str:
        """Return the rows, with the events marked that are sent again."""
        lags = ", ".join(f"LAG(event_id, {number}) OVER events" for number in range(1, REMEMBERED_EVENTS + 1))
        return f"""marked AS (  -- An event that is sent again within the user's next {REMEMBERED_EVENTS} events is dropped.
  SELECT {_COLUMNS}{self._part},
         CASE WHEN {self._is_log_event} AND event_id IN ({lags})
              THEN 1 ELSE 0 END AS is_repeated
  FROM ordered
  WINDOW events AS (PARTITION BY user_id, CASE WHEN {self._is_event} THEN 1 ELSE 0 END ORDER BY {self._order})
)"""

    def _numbered(self) -> str:
        """Return the rows that count, numbered in each user's order."""
        source, condition = ("marked", "\n  WHERE is_repeated = 0") if self._drop_repeats else ("ordered", "")
        return f"""numbered AS (
  SELECT {_COLUMNS}{self._part}, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY {self._order}) AS n
  FROM {source}{condition}
)"""

    def _known(self) -> str:
        """Return what was known before each row: the focus, and whether checking was stopped manually."""
        return f"""known AS (  -- Before each input: whether the app was in the background, and whether checking was stopped manually.
  -- MAX(2 * n + flag) % 2 is the flag of the latest row that sets it.
  SELECT {_COLUMNS}{self._part}, n,
         COALESCE(MAX({_BACKGROUND}) OVER earlier % 2, 0) AS in_background,
         COALESCE(MAX({_STOPPED}) OVER earlier % 2, 0) AS is_stopped
  FROM numbered
  WINDOW earlier AS (PARTITION BY user_id ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)"""

    def _active(self) -> str:
        return f"""active AS (  -- Before each input: the last event that is not passive, and the last activity.
  SELECT {_COLUMNS}{self._part}, n, in_background, is_stopped,
         MAX(CASE WHEN input = '{Input.EVENT}' THEN n END) OVER up_to_here AS last_event,
         MAX({self._activity()}) OVER earlier AS last_activity
  FROM known
  WINDOW earlier AS (PARTITION BY user_id ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
         up_to_here AS (PARTITION BY user_id ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)"""

    def _activity(self) -> str:
        """Return the time of an input that is activity."""
        cases = [(f"input IN ('{Input.EVENT}', '{Command.TOUCH}')", "t")]
        if self._settings.extend_on_focus_change:  # only if the focus changes
            cases += [
                (f"input = '{Input.BACKGROUND}' AND in_background = 0", "t"),
                (f"input = '{Input.FOREGROUND}' AND in_background = 1", "t"),
            ]
        return _case(*cases)

    def _grouped(self) -> Iterator[str]:
        settings = self._settings
        timeout = _case(("in_background = 1", str(settings.background_timeout)), otherwise=str(settings.foreground_timeout))
        is_break = _case(
            (f"input IN ({_BREAK_LIST})", "1"),
            (f"NOT ({_IS_CHECKED})", "0"),
            (f"t - last_activity >= {timeout}", "1"),
            otherwise="0",
        )
        yield f"""checked AS (  -- Check first: an input that comes too late ends the session. While checking is stopped, nothing expires.
  SELECT {_COLUMNS}{self._part}, n, in_background, last_event,
         CASE WHEN {_IS_CHECKED} THEN 1 ELSE 0 END AS is_checked,
         {is_break} AS is_break
  FROM active
)"""
        yield f"""grouped AS (  -- Breaks divide each user's inputs into groups, and forgotten users into lives.
  SELECT {_COLUMNS}{self._part}, n, in_background, last_event, is_checked,
         SUM(is_break) OVER up_to_here AS breaks,
         MAX(CASE WHEN is_break = 1 THEN n ELSE 0 END) OVER up_to_here AS last_break,
         SUM(CASE WHEN input = '{Command.FORGET}' THEN 1 ELSE 0 END) OVER up_to_here AS lives
  FROM checked
  WINDOW up_to_here AS (PARTITION BY user_id ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)"""

    def _limits(self) -> Iterator[str]:
        """Yield the groups divided further by the maximum duration."""
        limit = self._settings.max_duration
        columns = f"{_COLUMNS}{self._part}, n, in_background, last_event, is_checked, breaks, last_break, lives"
        prefixed = ", ".join(f"g.{column}" for column in columns.split(", "))
        yield f"""long_groups AS (  -- The groups in which a check reaches the maximum duration.
  SELECT user_id, breaks, MIN(CASE WHEN input = '{Input.EVENT}' THEN n END) AS first_event
  FROM grouped
  GROUP BY user_id, breaks
  HAVING MAX(CASE WHEN is_checked = 1 THEN t END) - MIN(CASE WHEN input = '{Input.EVENT}' THEN t END) >= {limit}
)"""
        if self._dialect.has_lambdas:
            yield from self._folded_limits(prefixed)
        else:
            yield from self._recursive_limits(prefixed)
        yield f"""divided AS (  -- The latest limit so far divides a long group. All other groups stay whole.
  SELECT {columns}, 0 AS last_limit
  FROM grouped AS g
  WHERE NOT EXISTS (SELECT 1 FROM long_groups AS l WHERE l.user_id = g.user_id AND l.breaks = g.breaks)
  UNION ALL
  SELECT {prefixed},
         COALESCE(MAX(l.over_at) OVER (PARTITION BY g.user_id, g.breaks ORDER BY g.n
                  ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), 0)
  FROM long_inputs AS g
  LEFT JOIN limits AS l ON l.user_id = g.user_id AND l.over_at = g.n
)"""

    def _recursive_limits(self, columns: str) -> Iterator[str]:
        yield f"""long_inputs AS (
  SELECT {columns},
         MIN(CASE WHEN g.input = '{Input.EVENT}' THEN g.n END) OVER (PARTITION BY g.user_id, g.breaks ORDER BY g.n
             ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next_event
  FROM grouped AS g
  JOIN long_groups AS l ON l.user_id = g.user_id AND l.breaks = g.breaks
)"""
        yield f"""pointers AS (  -- If a session begins at this row: the input that ends it, and the event that begins the next one.
  SELECT user_id, n,
         MIN(CASE WHEN is_checked = 1 THEN n END) OVER at_limit AS over_at,
         MIN(CASE WHEN is_checked = 1 THEN next_event END) OVER at_limit AS next_start
  FROM long_inputs
  WINDOW at_limit AS (PARTITION BY user_id, breaks ORDER BY t
                      RANGE BETWEEN {self._settings.max_duration} FOLLOWING AND UNBOUNDED FOLLOWING)
)"""
        yield """limits AS (  -- Follow the pointers from the first event of each long group.
  SELECT p.user_id, p.over_at, p.next_start
  FROM long_groups AS l
  JOIN pointers AS p ON p.user_id = l.user_id AND p.n = l.first_event
  UNION ALL
  SELECT p.user_id, p.over_at, p.next_start
  FROM limits AS l
  JOIN pointers AS p ON p.user_id = l.user_id AND p.n = l.next_start
)"""

    def _folded_limits(self, columns: str) -> Iterator[str]:
        limit = self._settings.max_duration
        yield f"""long_inputs AS (
  SELECT {columns}
  FROM grouped AS g
  JOIN long_groups AS l ON l.user_id = g.user_id AND l.breaks = g.breaks
)"""
        yield f"""long_lists AS (
  SELECT user_id, sort_array(collect_list(named_struct(
             'n', n, 't', t, 'is_checked', is_checked, 'is_event', input = '{Input.EVENT}'))) AS inputs
  FROM long_inputs
  GROUP BY user_id, breaks
)"""
        is_over = f"i.is_checked = 1 AND i.t - state.start >= {limit}"
        yield f"""limits AS (  -- Follow the inputs of each long group, and collect those that find the limit reached.
  SELECT user_id, explode(aggregate(
             inputs,
             named_struct('start', CAST(NULL AS BIGINT), 'over_at', CAST(array() AS ARRAY<INT>)),
             (state, i) -> named_struct(
                 'start', CASE WHEN i.is_event AND (state.start IS NULL OR {is_over}) THEN i.t WHEN {is_over} THEN NULL ELSE state.start END,
                 'over_at', CASE WHEN {is_over} THEN concat(state.over_at, array(i.n)) ELSE state.over_at END),
             state -> state.over_at)) AS over_at
  FROM long_lists
)"""

    def _placed(self) -> Iterator[str]:
        limit, session = (" AND last_event >= last_limit", "breaks, last_limit") if self._has_limit else ("", "breaks")
        yield f"""placed AS (  -- A passive event belongs only to a session that has begun with another event.
  SELECT {_COLUMNS}{self._part}, n, lives,
         DENSE_RANK() OVER (PARTITION BY user_id, lives ORDER BY {session}) AS session_index,
         ROW_NUMBER() OVER session AS event_index,
         FIRST_VALUE(event_id) OVER session AS first_event_id,
         FIRST_VALUE(time) OVER session AS first_event_timestamp,
         FIRST_VALUE(t) OVER session AS started
  FROM {"divided" if self._has_limit else "grouped"}
  WHERE input = '{Input.EVENT}' OR (input = '{Input.PASSIVE}' AND last_event >= last_break{limit})
  WINDOW session AS (PARTITION BY user_id, {session} ORDER BY n)
)"""
        yield f"""linked AS (
  SELECT user_id, time, sequence, input, event_id{self._part}, n, lives, session_index, event_index, first_event_id,
         first_event_timestamp, started,
         FIRST_VALUE(first_event_id) OVER (PARTITION BY user_id, lives ORDER BY session_index
             RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING) AS previous_first_event_id
  FROM placed
)"""
