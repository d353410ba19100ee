"""The tables of the query, from the log to the place of each event in its session.

Each table is read by the next one. docs/explanation/sessionizing.md derives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.graph import Command, Input
from client_session.input_log import CLOCK, REMEMBERED_EVENTS
from client_session.sessionize.settings import EVENTS, NEVER, RECENT, RESETS
from client_session.sessionize.sql_dialects import case, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client_session.sessionize.settings import Settings
    from client_session.sessionize.sql_dialects import Dialect

CARRIED = "carried_states"
"""The name under which a query reads carried states."""
_BEFORE = "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
_SO_FAR = "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
_EVENT_LIST = listed(EVENTS)
_BREAK_LIST = listed([Command.NEW_SESSION, *RESETS])
_TO_FOREGROUND = listed([Input.FOREGROUND, *RESETS])
_CHECKING = listed([Input.EVENT, Input.FOREGROUND, Command.START_CHECKER, *RESETS])
# Starting to check checks nothing by itself, and setting a clock back is not an input of the user.
_IS_CHECKED = f"is_stopped = 0 AND input NOT IN ({listed([Command.START_CHECKER, CLOCK])})"
_IS_EVENT = f"CASE WHEN input = '{Input.EVENT}' THEN 1 ELSE 0 END"


class Tables:
    """The named tables of a query."""

    def __init__(  # noqa: PLR0913  # what `sessionize_sql` was given
        self,
        dialect: Dialect,
        log: str,
        columns: Mapping[str, str],
        settings: Settings,
        carried: str | None,
        *,
        drop_repeats: bool,
    ) -> None:
        """Take the log and the carried states as texts that can follow ``FROM``, and the names of the log's columns."""
        self.dialect = dialect
        self._carried = carried
        self.has_limit = settings.max_duration < NEVER
        self.sessions = "divided" if self.has_limit else "grouped"
        """The name of the table of all inputs with the session that each belongs to."""
        self._log = log
        self._columns = columns
        self._settings = settings
        self._drop_repeats = drop_repeats
        # Rows of a carried state come before the log's, in the order of `part`, which is 0 for the log's rows.
        self.part = "" if carried is None else ", part"
        self.order = "t, sequence" if carried is None else "part, t, sequence"
        # Some engines need not sort again if the order is the same.
        self._by = self.order if dialect.ignoring_nulls else "n"
        self._rows = f"user_id, t, time, sequence, input, event_id{self.part}"
        self._is_own_event = f"input IN ({_EVENT_LIST})"
        self.is_event = self._is_own_event
        if carried is not None:
            self._is_own_event = f"part = 0 AND input IN ({_EVENT_LIST})"
            self.is_event = f"input = 'seen' OR (part = 0 AND input IN ({_EVENT_LIST}))"

    def all(self) -> Iterator[str]:
        """Yield each table."""
        yield from self.inputs()
        if self._drop_repeats:
            yield self._marked()
        if not self.dialect.ignoring_nulls:
            yield self._numbered()
        yield self._known()
        if self._settings.extend_on_focus_change:
            yield self._active()
        yield from self._grouped()
        if self.has_limit:
            yield from self._limits()
        yield from self._placed()

    def inputs(self) -> Iterator[str]:
        """Yield the inputs in an order in which times never go back."""
        if self._carried is None:
            yield self.log_inputs()
        else:
            yield f"{CARRIED} AS (SELECT * FROM {self._carried})"  # once, since it may be a subquery
            yield self.log_inputs(self._carried_inputs())
        first = "part, " if self.part else ""
        yield f"""clock_inputs AS (  -- A visitor's clock was set back, so times cannot be compared, but sequences can.
  SELECT user_id, t, sequence, input{self.part},
         SUM(CASE WHEN input = '{CLOCK}' THEN 1 ELSE 0 END)
           OVER (PARTITION BY user_id ORDER BY {first}sequence {_SO_FAR}) AS clocks
  FROM inputs
  WHERE user_id IN (SELECT {self.dialect.few.format("inputs")}user_id FROM inputs WHERE input = '{CLOCK}')
)"""
        yield f"""clock_steps AS (
  SELECT user_id, sequence, input,
         COALESCE(LAG(t) OVER (PARTITION BY user_id ORDER BY clocks, {self.order}) - t, 0) AS step
  FROM clock_inputs
)"""
        yield f"""clock_shifts AS (
  SELECT user_id, sequence,
         SUM(step) OVER (PARTITION BY user_id ORDER BY sequence {_SO_FAR}) AS shift,
         LEAD(sequence) OVER (PARTITION BY user_id ORDER BY sequence) AS next_sequence
  FROM clock_steps
  WHERE input = '{CLOCK}'
)"""
        part = ", i.part" if self.part else ""
        yield f"""ordered AS (  -- From now on, (t, sequence) orders each user's inputs.
  SELECT i.user_id, CAST(i.t + COALESCE(c.shift, 0) AS BIGINT) AS t, i.time, i.sequence, i.input, i.event_id{part}
  FROM inputs AS i
  LEFT JOIN clock_shifts AS c
    ON c.user_id = i.user_id AND i.sequence >= c.sequence
    AND (i.sequence < c.next_sequence OR c.next_sequence IS NULL){" AND i.part = 0" if self.part else ""}
)"""

    def log_inputs(self, more: str = "") -> str:
        """Return the log under fixed names."""
        columns = self._columns
        return f"""inputs AS{self.dialect.inline} (  -- Times in microseconds since 1970.
  SELECT {columns["user_id"]} AS user_id,
         {self.dialect.microseconds.format(columns["time"])} AS t,
         {columns["time"]} AS time,
         {columns["sequence"]} AS sequence,
         {columns["input"]} AS input,
         {columns["event_id"]} AS event_id{", 0 AS part" if self.part else ""}
  FROM {self._log}{more}
)"""

    def _carried_inputs(self) -> str:
        """Return, for each carried state, a log that leads to it."""
        start, activity, last = map(self.dialect.microseconds.format, ("session_start", "last_activity", "time"))
        steps = [
            *((f"COALESCE({start}, {last})", "time", "'seen'", name, f"{name} IS NOT NULL") for name in RECENT[::-1]),
            (start, "first_event_timestamp", f"'{Input.EVENT}'", "first_event_id", "NOT is_over"),
            (start, "time", f"'{Command.STOP_CHECKER}'", "NULL", "NOT is_over"),
            (activity, "time", f"'{Command.TOUCH}'", "NULL", "NOT is_over"),
            (f"COALESCE({activity}, {last})", "time", f"'{Input.BACKGROUND}'", "NULL", "in_background"),
            (last, "time", "'carried'", "NULL", "1 = 1"),
            (last, "time", f"'{Command.START_CHECKER}'", "NULL", "is_checking"),
        ]
        selects = (
            f"\n  UNION ALL\n  SELECT user_id, {t}, {time}, 0, {given}, {event_id}, {part - len(steps)}\n"
            f"  FROM {CARRIED} WHERE {condition}"
            for part, (t, time, given, event_id, condition) in enumerate(steps)
        )
        return "".join(selects)

    def _marked(self) -> str:
        ignoring_nulls = self.dialect.ignoring_nulls
        event_id = f"CASE WHEN {self.is_event} THEN event_id END" if ignoring_nulls else "event_id"
        lag = ignoring_nulls or "{}({})"
        lags = ",\n                ".join(
            f"{lag.format('LAG', f'{event_id}, {number}')} OVER events" for number in range(1, REMEMBERED_EVENTS + 1)
        )
        # Without other events' nulls, the order is that of later tables, so some engines need not sort again.
        kinds = "" if ignoring_nulls else f", CASE WHEN {self.is_event} THEN 1 ELSE 0 END"
        return f"""marked AS (  -- Events that are sent again within the user's next {REMEMBERED_EVENTS} events.
  SELECT {self._rows},
         CASE WHEN {self._is_own_event} AND event_id IN (
                {lags})
              THEN 1 ELSE 0 END AS is_repeated
  FROM ordered
  WINDOW events AS (PARTITION BY user_id{kinds} ORDER BY {self.order})
)"""

    @property
    def _kept(self) -> str:
        return "marked\n  WHERE is_repeated = 0" if self._drop_repeats else "ordered"

    def _numbered(self) -> str:
        return f"""numbered AS (
  SELECT {self._rows},
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY {self.order}) AS n
  FROM {self._kept}
)"""

    def _known(self) -> str:
        if self.dialect.ignoring_nulls:
            source, order, comment = self._kept, self.order, ""
            number = f"ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY {order}) AS n"
            last = self.dialect.ignoring_nulls
            in_background, is_stopped = (
                f"COALESCE({last.format('LAST_VALUE', _flag(sets, clears, '1', '0'))} OVER before, 0)"
                for sets, clears in ((Input.BACKGROUND, _TO_FOREGROUND), (Command.STOP_CHECKER, _CHECKING))
            )
        else:
            source, order, number = "numbered", "n", "n"
            comment = "\n  -- MAX(2 * n + flag) % 2 is the flag of the latest row that sets it."
            in_background, is_stopped = (f"COALESCE(MAX({flag}) OVER before % 2, 0)" for flag in (BACKGROUND, STOPPED))
        activity = "" if self._settings.extend_on_focus_change else f",\n         {self._last_activity()}"
        return f"""known AS (  -- Before each input: whether the app was in the background, whether checking was stopped
  -- manually, and the last activity. Up to each input: how many events, passive events and forgotten users.{comment}
  SELECT {self._rows},
         {number},
         {in_background} AS in_background,
         {is_stopped} AS is_stopped{activity},
         COUNT(CASE WHEN input = '{Input.EVENT}' THEN 1 END) OVER so_far AS events,
         COUNT(CASE WHEN input = '{Input.PASSIVE}' THEN 1 END) OVER so_far AS passive_events,
         COUNT(CASE WHEN input = '{Command.FORGET}' THEN 1 END) OVER so_far AS lives
  FROM {source}
  WINDOW before AS (PARTITION BY user_id ORDER BY {order} {_BEFORE}),
         so_far AS (PARTITION BY user_id ORDER BY {order} {_SO_FAR})
)"""

    def _active(self) -> str:
        return f"""active AS (  -- A change of focus is activity.
  SELECT {self._rows}, n, in_background, is_stopped, events, passive_events, lives,
         {self._last_activity()}
  FROM known
  WINDOW before AS (PARTITION BY user_id ORDER BY {self._by} {_BEFORE})
)"""

    def _last_activity(self) -> str:
        return f"MAX({self.activity()}) OVER before AS last_activity"

    def activity(self) -> str:
        """Return the time of an input that is activity."""
        cases = [(f"input IN ('{Input.EVENT}', '{Command.TOUCH}')", "t")]
        if self._settings.extend_on_focus_change:
            cases.append(
                (f"input = CASE WHEN in_background = 1 THEN '{Input.FOREGROUND}' ELSE '{Input.BACKGROUND}' END", "t")
            )
        return case(*cases)

    def _grouped(self) -> Iterator[str]:
        settings = self._settings
        timeout = case(("in_background = 1", settings.background_timeout), otherwise=settings.foreground_timeout)
        columns = f"{self._rows}, n, in_background, events, passive_events, lives"
        source = "active" if settings.extend_on_focus_change else "known"
        yield f"""checked AS (  -- Check first: a late input ends the session, unless checking is stopped.
  SELECT {columns},
         CASE WHEN {_IS_CHECKED} THEN 1 ELSE 0 END AS is_checked,
         CASE WHEN input IN ({_BREAK_LIST}) THEN 1
              WHEN {_IS_CHECKED} AND t - last_activity >= {timeout} THEN 1
              ELSE 0 END AS is_break
  FROM {source}
)"""
        yield f"""grouped AS (  -- A break divides the inputs; `begin` is the number of events before the division.
  SELECT {columns}, is_checked,
         MAX(CASE WHEN is_break = 1 THEN events - {_IS_EVENT} ELSE 0 END) OVER so_far AS begin
  FROM checked
  WINDOW so_far AS (PARTITION BY user_id ORDER BY {self._by} {_SO_FAR})
)"""

    def _limits(self) -> Iterator[str]:
        """Yield the divisions that the maximum duration divides further."""
        names = f"{self._rows}, n, in_background, events, passive_events, lives, is_checked".split(", ")
        columns = ", ".join(f"g.{name}" for name in names)
        is_event = _IS_EVENT.replace("input", "g.input")
        begin = f"MAX(CASE WHEN l.over_at IS NOT NULL THEN g.events - {is_event} ELSE g.begin END)"
        if self.dialect.has_lambdas:
            order = ", ".join(f"g.{name}" for name in self.order.split(", "))
            yield from self._folded_limits()
            yield f"""divided AS (  -- A limit that is reached divides, too.
  SELECT {columns},
         {begin}
           OVER (PARTITION BY g.user_id ORDER BY {order} {_SO_FAR}) AS begin
  FROM grouped AS g
  LEFT JOIN limits AS l ON l.user_id = g.user_id AND l.over_at = g.n
)"""
            return
        yield from self._recursive_limits(f"{columns}, g.begin")
        yield f"""divided AS (  -- A limit that is reached divides, too.
  SELECT {columns}, g.begin
  FROM grouped AS g
  WHERE NOT EXISTS (SELECT 1 FROM long_groups AS l WHERE l.user_id = g.user_id AND l.begin = g.begin)
  UNION ALL
  SELECT {columns},
         {begin}
           OVER (PARTITION BY g.user_id, g.begin ORDER BY g.n {_SO_FAR})
  FROM long_inputs AS g
  LEFT JOIN limits AS l ON l.user_id = g.user_id AND l.over_at = g.n
)"""

    @property
    def _is_long(self) -> str:
        """Return whether a check reaches the maximum duration in a group."""
        last, first = "MAX(CASE WHEN is_checked = 1 THEN t END)", f"MIN(CASE WHEN input = '{Input.EVENT}' THEN t END)"
        return f"{last} - {first} >= {self._settings.max_duration}"

    def _recursive_limits(self, columns: str) -> Iterator[str]:
        yield f"""long_groups AS (  -- The divisions in which a check reaches the maximum duration.
  SELECT user_id, begin, MIN(CASE WHEN input = '{Input.EVENT}' THEN n END) AS first_event
  FROM grouped
  GROUP BY user_id, begin
  HAVING {self._is_long}
)"""
        yield f"""long_inputs AS (
  SELECT {columns},
         MIN(CASE WHEN g.input = '{Input.EVENT}' THEN g.n END)
           OVER (PARTITION BY g.user_id, g.begin ORDER BY g.n
                 ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next_event
  FROM grouped AS g
  JOIN long_groups AS l ON l.user_id = g.user_id AND l.begin = g.begin
)"""
        yield f"""pointers AS (  -- If a session began here: the input that ends it, and the event that begins the next.
  SELECT user_id, n,
         MIN(CASE WHEN is_checked = 1 THEN n END) OVER at_limit AS over_at,
         MIN(CASE WHEN is_checked = 1 THEN next_event END) OVER at_limit AS next_start
  FROM long_inputs
  WINDOW at_limit AS (PARTITION BY user_id, begin ORDER BY t
                      RANGE BETWEEN {self._settings.max_duration} FOLLOWING AND UNBOUNDED FOLLOWING)
)"""
        yield """limits AS (  -- Follow the pointers from the first event of each long division.
  SELECT p.user_id, p.over_at, p.next_start
  FROM long_groups AS l
  JOIN pointers AS p ON p.user_id = l.user_id AND p.n = l.first_event
  UNION ALL
  SELECT p.user_id, p.over_at, p.next_start
  FROM limits AS l
  JOIN pointers AS p ON p.user_id = l.user_id AND p.n = l.next_start
)"""

    def _folded_limits(self) -> Iterator[str]:
        yield f"""long_lists AS (  -- The divisions in which a check reaches the maximum duration.
  SELECT user_id, sort_array(collect_list(named_struct(
             'n', n, 't', t, 'is_checked', is_checked, 'is_event', input = '{Input.EVENT}'))) AS inputs
  FROM grouped
  GROUP BY user_id, begin
  HAVING {self._is_long}
)"""
        is_over = f"i.is_checked = 1 AND i.t - state.start >= {self._settings.max_duration}"
        yield f"""limits AS (  -- Follow the inputs of each long division, and collect those that reach the limit.
  SELECT user_id, explode(aggregate(
             inputs,
             named_struct('start', CAST(NULL AS BIGINT), 'over_at', CAST(array() AS ARRAY<INT>)),
             (state, i) -> named_struct(
                 'start', CASE WHEN i.is_event AND (state.start IS NULL OR {is_over}) THEN i.t
                               WHEN {is_over} THEN NULL
                               ELSE state.start END,
                 'over_at', CASE WHEN {is_over} THEN concat(state.over_at, array(i.n)) ELSE state.over_at END),
             state -> state.over_at)) AS over_at
  FROM long_lists
)"""

    def _placed(self) -> Iterator[str]:
        yield f"""counted AS (  -- A passive event belongs only to a session that has begun with another event.
  SELECT user_id, t, time, sequence, input, event_id{self.part}, n, events, passive_events, lives, begin,
         CASE WHEN input = '{Input.EVENT}' AND events = begin + 1 THEN 1 ELSE 0 END AS is_first
  FROM {self.sessions}
  WHERE input = '{Input.EVENT}' OR (input = '{Input.PASSIVE}' AND events > begin)
)"""
        columns = f"user_id, time, sequence, input, event_id{self.part}, n, lives"
        so_far = f"so_far AS (PARTITION BY user_id, lives ORDER BY {self._by} {_SO_FAR})"
        indexes = """SUM(is_first) OVER so_far AS session_index,
         events - begin + passive_events
           - MAX(CASE WHEN is_first = 1 THEN passive_events END) OVER so_far AS event_index"""
        if ignoring_nulls := self.dialect.ignoring_nulls:
            event_id, time, t = (f"CASE WHEN is_first = 1 THEN {column} END" for column in ("event_id", "time", "t"))
            latest = ignoring_nulls.format("LAST_VALUE", "{}") + " OVER so_far"
            before, before_latest = (ignoring_nulls.format("LAG", f"{event_id}, {number}") for number in (1, 2))
            yield f"""linked AS (
  SELECT {columns},
         {indexes},
         {latest.format(event_id)} AS first_event_id,
         {latest.format(time)} AS first_event_timestamp,
         {latest.format(t)} AS started,
         CASE WHEN is_first = 1 THEN {before} OVER events
              ELSE {before_latest} OVER events END AS previous_first_event_id
  FROM counted
  WINDOW {so_far},
         events AS (PARTITION BY user_id, lives ORDER BY {self._by})
)"""
            return
        yield f"""placed AS (
  SELECT {columns},
         {indexes},
         FIRST_VALUE(event_id) OVER session AS first_event_id,
         FIRST_VALUE(time) OVER session AS first_event_timestamp,
         FIRST_VALUE(t) OVER session AS started
  FROM counted
  WINDOW {so_far},
         session AS (PARTITION BY user_id, begin ORDER BY n)
)"""
        yield f"""linked AS (
  SELECT {columns}, session_index, event_index, first_event_id, first_event_timestamp, started,
         FIRST_VALUE(first_event_id) OVER (PARTITION BY user_id, lives ORDER BY session_index
             RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING) AS previous_first_event_id
  FROM placed
)"""


def _flag(sets: str, clears: str, set_value: str, clear_value: str) -> str:
    return case((f"input = '{sets}'", set_value), (f"input IN ({clears})", clear_value))


BACKGROUND = _flag(Input.BACKGROUND, _TO_FOREGROUND, "2 * n + 1", "2 * n")
STOPPED = _flag(Command.STOP_CHECKER, _CHECKING, "2 * n + 1", "2 * n")
