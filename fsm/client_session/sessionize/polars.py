"""Sessionizing in Polars: whole-column expressions that equal `Fold`. Requires the ``polars`` extra.

Each log is sorted once, by user, time and sequence. Then every flag that an input reads is the last one that an earlier
row of the user set, so shifts, forward fills and cumulative sums replace the loop:

- a *break* is a row that ends the session before it: a user's first row, ``new-session``, ``start``, ``forget``, or an
  input that finds a timeout reached. Rows between two breaks are a *group*;
- a group that has an event is a session, which begins at that event;
- an *era* is what has one chain of indexes: a user's rows up to the first ``forget``, or those from one to the next.

Only sessions that are longer than the maximum duration are visited row by row.
"""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import attrs

try:
    import polars as pl
    import polars_hash as plh
    from polars.io.plugins import register_io_source
except ImportError as error:
    msg = "client_session.sessionize.polars needs Polars: pip install 'client-session[polars]'"
    raise ImportError(msg) from error

from client_session import arguments
from client_session.ids import VARIANTS
from client_session.input_log import REMEMBERED_EVENTS
from client_session.sessionize.errors import LogError, Problem
from client_session.sessionize.polars_log import LogReader, changes
from client_session.sessionize.polars_places import CAN_REPEAT, grouped, places, without_repeats
from client_session.sessionize.settings import (
    ENTITY_COLUMNS,
    LOG_COLUMNS,
    RECENT,
    SessionSettings,
    Settings,
    column_names,
)
from client_session.sessionize.summary import Summary, summarized
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

__all__ = ["LogError", "Summary", "carried_state", "sessionize", "sessionize_parquet"]

_PART, _PART_ROWS, _PROGRESS_OF_PARTS = "client_session_part", 3_000_000, 0.2
_TEXT = (pl.String, pl.Categorical, pl.Enum)
_UTC = pl.Datetime("us", "UTC")
_STATE_TYPES: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "time": _UTC,
    "in_background": pl.Boolean(),
    "is_checking": pl.Boolean(),
    "is_over": pl.Boolean(),
    "last_activity": _UTC,
    "session_start": _UTC,
    "session_index": pl.UInt32(),
    "event_index": pl.UInt32(),
    "first_event_id": pl.String(),
    "first_event_timestamp": _UTC,
    "previous_session_id": pl.String(),
    **dict.fromkeys(RECENT, pl.String()),
}
_NO_STATES = pl.DataFrame(schema=_STATE_TYPES)
_PLACE_TYPES: dict[str, pl.DataType] = {
    "session": pl.UInt32(),
    "session_index": pl.UInt32(),
    "event_index": pl.UInt32(),
    "first_event_id": pl.String(),
    "first_event_timestamp": _UTC,
}
_FLAGS = ("in_background", "is_stopped")
_FIRST_EVENT = ("first_event_id", "first_event_timestamp")


def sessionize(
    log: pl.LazyFrame | pl.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> pl.LazyFrame:
    """Return a row for each event that belongs to a session.

    The rows have the log's columns ``user_id``, ``time``, ``sequence``, ``input`` and ``event_id``, then
    `ENTITY_COLUMNS`. Those of a user are in order; users are in no particular order. Ids are computed only if they are
    selected.

    The log may be in any order. Its ``time`` is a ``Datetime`` or text such as ``2026-03-01T08:04:00Z``, in UTC if it
    has no time zone, and is read to the microsecond; ``sequence`` is an integer; the rest is text, and ids that are
    integers become text. ``columns`` gives the names of columns that are named differently. ``carried`` has the state
    of users whose earlier inputs are not in the log, as `carried_state` returned it. ``drop_repeats=False`` skips the
    search for repeated event ids.

    The log is read, and its rows are checked, when the result is collected.

    Raises:
        TypeError: an argument or a column has the wrong type.
        ValueError: a value is invalid, or a column is missing.
        LogError: when collected: the log has rows that cannot be sessionized.

    Examples:
        >>> sessions = sessionize(log)
        >>> sessions.select("event_id", "session_index", "event_index").collect().rows()
        [('e1', 1, 1), ('e2', 1, 2), ('e3', 2, 1)]

    """
    return _Sessionizer.checked(Settings.checked(**settings), columns, carried, drop_repeats=drop_repeats).events(log)


def carried_state(
    log: pl.LazyFrame | pl.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> pl.LazyFrame:
    """Return the state of each user of the log or of ``carried``, to be carried to the next log.

    The columns mean what the attributes of `UserState` do; ``recent_event_id_1`` is the newest event's. Arguments and
    errors are those of `sessionize`.

    Examples:
        >>> states = carried_state(log).collect()
        >>> states.select("user_id", "session_index", "event_index").rows()
        [('anna', 2, 1)]
        >>> next_sessions = sessionize(log.clear(), carried=states)

    """
    return _Sessionizer.checked(Settings.checked(**settings), columns, carried, drop_repeats=drop_repeats).states(log)


def sessionize_parquet(  # noqa: PLR0913  # the settings in the specification
    source: pl.LazyFrame | str | Path | Sequence[Path],
    output: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
    states: str | os.PathLike[str] | None = None,
    partitions: int | None = None,
    progress: Callable[[float], object] | None = None,
    **settings: Unpack[SessionSettings],
) -> Summary:
    """Sessionize a log that is larger than memory, and write the result of `sessionize` as one Parquet file.

    With ``states``, also write the result of `carried_state` to this Parquet file. Return a summary of the log.

    ``source`` has the log: the paths of Parquet files, or any ``LazyFrame``. The log is divided into ``partitions`` by
    a hash of the user, which are sessionized one by one. They are temporary files in a folder next to ``output``, and
    take about as much space as the log. By default, there is a partition for each three million rows. A partition must
    fit in memory; it has all rows of its users.

    ``progress`` is called with the part of the work that is done, from 0 to 1. The files appear, or are replaced, when
    they are complete; after an error, nothing remains.

    Raises:
        TypeError: an argument or a column has the wrong type.
        ValueError: a value is invalid, or a column is missing.
        LogError: the log has rows that cannot be sessionized.

    Examples:
        >>> log.write_parquet("log.parquet")
        >>> summary = sessionize_parquet("log.parquet", "sessions.parquet")
        >>> summary.sessions, summary.events
        (2, 3)

    """
    log = (
        source
        if isinstance(source, pl.LazyFrame)
        else pl.scan_parquet(source if isinstance(source, str | Path) else list(source))
    )
    sessionizer = _Sessionizer.checked(Settings.checked(**settings), columns, carried, drop_repeats=drop_repeats)
    schema = sessionizer.events(log).collect_schema()
    if partitions is not None and not (isinstance(partitions, int) and partitions > 0):
        msg = f"partitions must be an int of at least 1, or None, not {shown(partitions)}"
        raise ValueError(msg)
    count = partitions or log.select(pl.len()).collect().item() // _PART_ROWS + 1

    def report(done: float) -> None:
        if progress is not None:
            progress(done)

    summary = Summary()
    with contextlib.ExitStack() as folders:
        folder = folders.enter_context(_folder_beside(Path(output)))
        states_folder = None if states is None else folders.enter_context(_folder_beside(Path(states)))
        sessionizer.write_parts(log, folder / "parts", count)
        report(_PROGRESS_OF_PARTS)

        def events(*_: object) -> Iterator[pl.DataFrame]:
            nonlocal summary
            for number, part in sessionizer.parts(folder / "parts", count, report, has_states=states is not None):
                summary += part.summary
                if states_folder is not None:
                    part.states.write_parquet(states_folder / f"{number}.parquet")
                if not part.events.is_empty():
                    yield part.events

        register_io_source(events, schema=schema).sink_parquet(folder / "complete", sync_on_close="data")
        if states is not None and states_folder is not None:
            every_state = pl.scan_parquet([states_folder / f"{number}.parquet" for number in range(count)])
            every_state.sink_parquet(states_folder / "complete", sync_on_close="data")
            (states_folder / "complete").replace(states)
        (folder / "complete").replace(output)
    return summary


@contextlib.contextmanager
def _folder_beside(target: Path) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        yield Path(name)


@attrs.frozen(eq=False)
class _Part:
    """The results for some of a log's users."""

    events: pl.DataFrame
    states: pl.DataFrame
    """Empty, if they are not needed."""
    summary: Summary


@attrs.frozen(eq=False)
class _Sessionizer:
    """The functions above, with their checked arguments."""

    settings: Settings
    names: dict[str, str]
    carried: pl.LazyFrame | None
    drop_repeats: bool

    @property
    def _reader(self) -> LogReader:
        return LogReader(self.names, self.carried)

    @classmethod
    def checked(
        cls,
        settings: Settings,
        columns: Mapping[str, str] | None,
        carried: pl.LazyFrame | pl.DataFrame | None,
        *,
        drop_repeats: bool,
    ) -> _Sessionizer:
        names, drop_repeats = column_names(columns), arguments.boolean("drop_repeats", drop_repeats)
        if carried is None:
            return cls(settings, names, None, drop_repeats)
        carried = _lazy("carried", carried)
        schema = carried.collect_schema()
        _require_columns("carried", schema, _STATE_TYPES)
        for name, kind in _STATE_TYPES.items():
            given = schema[name]
            is_like = given.is_integer() if kind.is_integer() else given.base_type() == kind.base_type()
            if not (is_like or given == pl.Null):
                msg = f"carried's column {name} must be {kind}, not {given}"
                raise TypeError(msg)
        return cls(
            settings,
            names,
            carried.select(pl.col(name).cast(kind) for name, kind in _STATE_TYPES.items()),
            drop_repeats,
        )

    def events(self, log: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
        log, types = self._log(log)
        schema = self._schema(types)
        return self._with_entities(
            log.map_batches(lambda frame: _cast(self._places(frame), schema).collect(), schema=schema)
        )

    def _schema(self, types: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
        """Return the types of the columns that `_with_entities` needs, for a log with these types."""
        carried = {} if self.carried is None else {"carried_previous": pl.String()}
        return {**types, **_PLACE_TYPES, **carried}

    def _with_entities(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        rows = self._with_ids(rows)
        if self.carried is not None:
            rows = rows.filter(pl.col("time").is_not_null())
        return rows.select(*(pl.col(name).alias(self.names[name]) for name in LOG_COLUMNS), *ENTITY_COLUMNS)

    def states(self, log: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
        log, _ = self._log(log)

        def states(frame: pl.DataFrame) -> pl.DataFrame:
            rows = self._reader.rows(frame)
            return self._states(rows, self._grouped(rows))

        return log.map_batches(states, schema=dict(_STATE_TYPES))

    def write_parts(self, log: pl.LazyFrame, folder: Path, count: int) -> None:
        """Divide the log into parts by user, and write each to a folder of its own; those without rows have none."""
        part = pl.col(self.names["user_id"]).cast(pl.String).hash() % count
        log.select(*self.names.values(), part.alias(_PART)).sink_parquet(
            pl.PartitionBy(folder, key=_PART, include_key=False), compression="lz4", mkdir=True
        )

    def parts(
        self, folder: Path, count: int, report: Callable[[float], object], *, has_states: bool
    ) -> Iterator[tuple[int, _Part]]:
        """Yield the number and the results of each part; raise `LogError` with the problems of all parts."""
        problems: list[Problem] = []
        for number in range(count):
            try:
                part = self.part(folder, number, count, has_states=has_states)
            except LogError as error:
                problems += error.problems
            else:
                if not problems:
                    yield number, part
            report(_PROGRESS_OF_PARTS + (1 - _PROGRESS_OF_PARTS) * (number + 1) / count)
        if problems:
            raise LogError.merged(problems)

    def part(self, folder: Path, number: int, count: int, *, has_states: bool) -> _Part:
        """Return the results of a part, and delete its files."""
        part = folder / f"{_PART}={number}"
        carried = None if self.carried is None else self.carried.filter(pl.col("user_id").hash() % count == number)
        if part.exists():
            log = pl.scan_parquet(part / "*.parquet", hive_partitioning=False)
            try:
                return attrs.evolve(self, carried=carried).results(log, has_states=has_states)
            finally:
                shutil.rmtree(part)
        kept = carried.collect() if has_states and carried is not None else _NO_STATES
        return _Part(pl.DataFrame(), kept, Summary())

    def results(self, log: pl.LazyFrame, *, has_states: bool) -> _Part:
        log, types = self._log(log)
        rows = self._reader.rows(log.collect())
        after = self._grouped(rows).collect()
        events = self._with_entities(_cast(places(after.lazy()), self._schema(types))).collect()
        return _Part(
            events,
            self._states(rows, after.lazy()) if has_states else _NO_STATES,
            summarized(rows, after, events.height, self.settings),
        )

    def _log(self, log: pl.LazyFrame | pl.DataFrame) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
        """Return the log's columns by their usual names, and their types."""
        log = _lazy("log", log)
        schema = log.collect_schema()
        _require_columns("log", schema, self.names.values())
        types = {name: schema[self.names[name]] for name in LOG_COLUMNS}
        for name, kind in types.items():
            if name == "time":
                is_allowed = kind.base_type() in (pl.Datetime, pl.String)
                allowed = "Datetime or String (pl.from_epoch converts numbers)"
            elif name == "sequence":
                is_allowed, allowed = kind.is_integer(), "an integer"
            else:
                is_allowed, allowed = kind.base_type() in _TEXT, "String, Categorical or Enum"
                if name != "input":
                    is_allowed, allowed = is_allowed or kind.is_integer(), f"{allowed}, or an integer"
                types[name] = pl.String()
            if not is_allowed:
                msg = f"the log's column {self.names[name]} must be {allowed}, not {kind}"
                raise TypeError(msg)
        return log.select(pl.col(self.names[name]).cast(kind).alias(name) for name, kind in types.items()), types

    def _with_ids(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Compute the ids of each session once, at its first row. This is lazy, so that only those selected are."""
        begins, is_first = changes("session"), pl.col("session_index") == 1
        before = pl.lit(None, pl.String)
        if self.carried is not None:
            is_first |= pl.col("time").is_null()
            before = pl.col("carried_previous").filter(begins)
        texts = pl.concat_str(
            pl.lit(f"client-session/1/{self.settings.namespace}/session/"),
            pl.col("user_id").filter(begins),
            pl.lit("/"),
            pl.col("event_id").filter(begins),
        )
        previous = pl.when(is_first.filter(begins)).then(before).otherwise(pl.col("session_id").filter(begins).shift())
        return rows.with_columns(
            session_id=texts.map_batches(_uuid8, return_dtype=pl.String).gather("session")
        ).with_columns(previous_session_id=previous.gather("session"))

    def _places(self, log: pl.DataFrame) -> pl.LazyFrame:
        return places(self._grouped(self._reader.rows(log)))

    def _grouped(self, rows: pl.DataFrame) -> pl.LazyFrame:
        return grouped(without_repeats(rows) if self.drop_repeats else rows, self.settings)

    def _states(self, rows: pl.DataFrame, after: pl.LazyFrame) -> pl.DataFrame:
        recent = (
            rows.lazy()
            .filter(CAN_REPEAT)
            .group_by("user", maintain_order=True)
            .agg(pl.col("event_id").tail(REMEMBERED_EVENTS).reverse())
        )
        last = (
            rows.lazy().filter(_is_last()).select("user", "user_id", time=_raw(rows), shift=pl.col("at") - _raw(rows))
        )
        newest = self._with_ids(places(after)).filter(_is_last())
        is_over = (pl.col("group") != pl.col("newest_group")).fill_null(value=True)
        has_session = (pl.col("era") == pl.col("newest_era")).fill_null(value=False)  # since the user was forgotten
        states: dict[str, pl.Expr] = {
            "user_id": pl.col("user_id"),
            "time": pl.col("time"),
            "in_background": pl.col("in_background"),
            "is_checking": ~pl.col("is_stopped") | is_over,
            "is_over": is_over,
            "last_activity": pl.when(~is_over).then(pl.col("active_at") - pl.col("shift")),
            "session_start": pl.when(~is_over).then(pl.col("newest_began_at") - pl.col("shift")),
            "session_index": pl.when(has_session).then("newest_session_index").otherwise(0),
            "event_index": pl.when(has_session).then("newest_event_index").otherwise(0),
            **{name: pl.when(has_session).then(f"newest_{name}") for name in _FIRST_EVENT},
            "previous_session_id": pl.when(has_session).then("newest_previous_session_id"),
            **{name: pl.col("event_id").list.get(index, null_on_oob=True) for index, name in enumerate(RECENT)},
        }
        return (
            last.join(after.filter(_is_last()).select("user", "group", "era", *_FLAGS, "active_at"), on="user")
            .join(newest.select("user", pl.exclude("user").name.prefix("newest_")), on="user", how="left")
            .join(recent, on="user", how="left")
            .select(value.cast(_STATE_TYPES[name]).alias(name) for name, value in states.items())
            .collect()
        )


def _uuid8(texts: pl.Series) -> pl.Series:
    """Return the UUIDv8 of each text, as `ids.uuid8` derives it."""
    digits = texts.to_frame("text").select(plh.col("text").nchash.md5()).to_series().str
    variant = digits.slice(16, 1).replace_strict(VARIANTS, return_dtype=pl.String)
    parts = (
        digits.slice(0, 8),
        "-",
        digits.slice(8, 4),
        "-8",
        digits.slice(13, 3),
        "-",
        variant,
        digits.slice(17, 3),
        "-",
        digits.slice(20),
    )
    return pl.select(pl.concat_str(pl.lit(part) for part in parts)).to_series()


def _raw(rows: pl.DataFrame) -> pl.Expr:
    """Return the time on the log's clock."""
    return pl.col("raw" if "raw" in rows.columns else "at")


def _is_last() -> pl.Expr:
    return (pl.col("user") != pl.col("user").shift(-1)).fill_null(value=True)


def _cast(rows: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _lazy(argument: str, frame: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
        msg = f"{argument} must be a LazyFrame or a DataFrame, not {shown(frame)}"
        raise TypeError(msg)
    return frame.lazy()


def _require_columns(argument: str, schema: pl.Schema, names: Iterable[str]) -> None:
    if missing := [name for name in names if name not in schema]:
        hint = "; if they are named differently, use columns (--column)" if argument == "log" else ""
        msg = f"{argument} lacks the columns {', '.join(missing)}; it has {', '.join(schema)}{hint}"
        raise ValueError(msg)
