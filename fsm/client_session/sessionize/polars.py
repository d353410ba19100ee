"""Sessionizing in Polars: whole-column expressions that equal `Fold`. Requires the ``polars`` extra.

Each log is sorted once, by user, time and sequence. Then every flag that an input reads is the last one that an earlier
row of the user set, so shifts, forward fills and cumulative sums replace the loop:

- a *break* is a row that ends the session before it: a user's first row, ``new-session``, ``start``, ``forget``, or an
  input that finds a timeout reached. Rows between two breaks are a *group*;
- a group that has an event is a session, which begins at that event;
- an *era* is what has one chain of indexes: a user's rows up to the first ``forget``, or those from one to the next.

Only sessions that are longer than the maximum duration are visited row by row.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

try:
    import polars as pl
    import polars_hash as plh
    from polars.io.plugins import register_io_source
except ImportError as error:
    msg = "client_session.sessionize.polars needs Polars: pip install 'client-session[polars]'"
    raise ImportError(msg) from error

from client_session import arguments
from client_session.graph import Command, Input
from client_session.sessionize.errors import MAX_EXAMPLES, LogError, Problem
from client_session.sessionize.settings import (
    ENTITY_COLUMNS,
    EVENTS,
    INPUTS,
    LOG_COLUMNS,
    NEVER,
    REMEMBERED_EVENTS,
    RESETS,
    Settings,
    column_names,
)
from client_session.visitors.decision import CLOCK
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from client_session.arguments import Seconds

_KEY_BITS, _MIN_USER_BITS = 127, 24
_PART, _PART_ROWS, _PROGRESS_OF_PARTS = "client_session_part", 3_000_000, 0.2
_TEXT = (pl.String, pl.Categorical, pl.Enum)
_INPUTS = pl.Enum(INPUTS)
_UTC = pl.Datetime("us", "UTC")
_RECENT = tuple(f"recent_event_id_{number}" for number in range(1, REMEMBERED_EVENTS + 1))
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
    **dict.fromkeys(_RECENT, pl.String()),
}
_PLACE_TYPES: dict[str, pl.DataType] = {
    "session": pl.UInt32(),
    "session_index": pl.UInt32(),
    "event_index": pl.UInt32(),
    "first_event_id": pl.String(),
    "first_event_timestamp": _UTC,
}
_FLAGS = ("in_background", "is_stopped")
_FIRST_EVENT = ("first_event_id", "first_event_timestamp")
_VARIANTS = {f"{digit:x}": f"{digit & 3 | 8:x}" for digit in range(16)}
_NOT_CHECKING: tuple[str, ...] = (Command.START_CHECKER, CLOCK)
"""The inputs that do not check first."""


def sessionize(  # noqa: PLR0913  # the settings in the specification
    log: pl.LazyFrame | pl.DataFrame,
    *,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
) -> pl.LazyFrame:
    """Return a row for each event that belongs to a session.

    The rows have the log's columns ``user_id``, ``time``, ``sequence``, ``input`` and ``event_id``, then
    `ENTITY_COLUMNS`. Those of a user are in order; users are in no particular order. Ids are computed only if they are
    selected.

    The log may be in any order. Its ``time`` is a ``Datetime`` (UTC if it has no time zone) or RFC 3339 text, and is
    read to the microsecond; ``sequence`` is an integer; the rest is text. ``columns`` gives the names of columns that
    are named differently. ``carried`` has the state of users whose earlier inputs are not in the log, as
    `carried_state` returned it. ``drop_repeats=False`` skips the search for repeated event ids.

    The log is read, and its rows are checked, when the result is collected.

    Raises:
        TypeError: an argument or a column has the wrong type.
        ValueError: a value is invalid, or a column is missing.
        LogError: when collected: the log has rows that cannot be sessionized.

    """
    settings = Settings.checked(
        foreground_timeout,
        background_timeout,
        max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
    )
    return _Sessionizer.checked(settings, columns, carried, drop_repeats=drop_repeats).events(log)


def carried_state(  # noqa: PLR0913  # the settings in the specification
    log: pl.LazyFrame | pl.DataFrame,
    *,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
) -> pl.LazyFrame:
    """Return the state of each user of the log or of ``carried``, to be carried to the next log.

    The columns mean what the attributes of `UserState` do; ``recent_event_id_1`` is the newest event's. Arguments and
    errors are those of `sessionize`.
    """
    settings = Settings.checked(
        foreground_timeout,
        background_timeout,
        max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
    )
    return _Sessionizer.checked(settings, columns, carried, drop_repeats=drop_repeats).states(log)


def sessionize_parquet(  # noqa: PLR0913  # the settings in the specification
    source: pl.LazyFrame | str | Path | Sequence[Path],
    output: str | os.PathLike[str],
    *,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    columns: Mapping[str, str] | None = None,
    carried: pl.LazyFrame | pl.DataFrame | None = None,
    drop_repeats: bool = True,
    partitions: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> None:
    """Sessionize a log that is larger than memory, and write the result of `sessionize` as one Parquet file.

    ``source`` has the log: the paths of Parquet files, or any ``LazyFrame``. The log is divided into ``partitions`` by
    a hash of the user, which are sessionized one by one. They are temporary files in a folder next to ``output``, and
    take about as much space as the log. By default, there is a partition for each three million rows. A partition must
    fit in memory; it has all rows of its users.

    ``progress`` is called with the part of the work that is done, from 0 to 1. The file appears, or is replaced, when
    it is complete; after an error, nothing remains.

    Raises:
        TypeError: an argument or a column has the wrong type.
        ValueError: a value is invalid, or a column is missing.
        LogError: the log has rows that cannot be sessionized.

    """
    log = (
        source
        if isinstance(source, pl.LazyFrame)
        else pl.scan_parquet(source if isinstance(source, str | Path) else list(source))
    )
    settings = Settings.checked(
        foreground_timeout,
        background_timeout,
        max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
    )
    sessionizer = _Sessionizer.checked(settings, columns, carried, drop_repeats=drop_repeats)
    schema = sessionizer.events(log).collect_schema()
    count = partitions or log.select(pl.len()).collect().item() // _PART_ROWS + 1
    report = progress or (lambda _: None)
    target = Path(output)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        folder = Path(name)
        sessionizer.write_parts(log, folder / "parts", count)
        report(_PROGRESS_OF_PARTS)

        def events(*_: object) -> Iterator[pl.DataFrame]:
            problems: list[Problem] = []
            for number in range(count):
                try:
                    rows = sessionizer.part(folder / "parts", number, count)
                except LogError as error:
                    problems += error.problems
                else:
                    if rows is not None and not problems:
                        yield rows
                report(_PROGRESS_OF_PARTS + (1 - _PROGRESS_OF_PARTS) * (number + 1) / count)
            if problems:
                raise LogError.merged(problems)

        register_io_source(events, schema=schema).sink_parquet(folder / "complete", sync_on_close="data")
        (folder / "complete").replace(target)


@attrs.frozen(eq=False)
class _Sessionizer:
    """The functions above, with their checked arguments."""

    settings: Settings
    names: dict[str, str]
    carried: pl.LazyFrame | None
    drop_repeats: bool

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
        result: dict[str, pl.DataType] = {**types, **_PLACE_TYPES}
        if self.carried is not None:
            result["carried_previous"] = pl.String()
        rows = self._with_ids(
            log.map_batches(
                lambda frame: (
                    self._places(frame).select(pl.col(name).cast(kind) for name, kind in result.items()).collect()
                ),
                schema=result,
            )
        )
        if self.carried is not None:
            rows = rows.filter(pl.col("time").is_not_null())
        return rows.select(*(pl.col(name).alias(self.names[name]) for name in LOG_COLUMNS), *ENTITY_COLUMNS)

    def states(self, log: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
        log, _ = self._log(log)
        return log.map_batches(self._states, schema=dict(_STATE_TYPES))

    def write_parts(self, log: pl.LazyFrame, folder: Path, count: int) -> None:
        """Divide the log into parts by user, and write each to a folder of its own; those without rows have none."""
        part = pl.col(self.names["user_id"]).cast(pl.String).hash() % count
        log.select(*self.names.values(), part.alias(_PART)).sink_parquet(
            pl.PartitionBy(folder, key=_PART, include_key=False), compression="lz4", mkdir=True
        )

    def part(self, folder: Path, number: int, count: int) -> pl.DataFrame | None:
        """Return the events of a part, and delete its files."""
        part = folder / f"{_PART}={number}"
        if not part.exists():
            return None
        carried = None if self.carried is None else self.carried.filter(pl.col("user_id").hash() % count == number)
        log = pl.scan_parquet(part / "*.parquet", hive_partitioning=False)
        try:
            return attrs.evolve(self, carried=carried).events(log).collect()
        finally:
            shutil.rmtree(part)

    def _log(self, log: pl.LazyFrame | pl.DataFrame) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
        """Return the log's columns by their usual names, and their types."""
        log = _lazy("log", log)
        schema = log.collect_schema()
        _require_columns("log", schema, self.names.values())
        types = {name: schema[self.names[name]] for name in LOG_COLUMNS}
        for name, kind in types.items():
            if name == "time":
                is_allowed, allowed = kind in (pl.Datetime, pl.String), "Datetime or String"
            elif name == "sequence":
                is_allowed, allowed = kind.is_integer(), "an integer"
            else:
                is_allowed, allowed = kind in _TEXT, "String, Categorical or Enum"
                types[name] = pl.String()
            if not is_allowed:
                msg = f"the log's column {self.names[name]} must be {allowed}, not {kind}"
                raise TypeError(msg)
        return log.select(pl.col(self.names[name]).cast(kind).alias(name) for name, kind in types.items()), types

    def _with_ids(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Compute the ids of each session once, at its first row. This is lazy, so that only those selected are."""
        begins, is_first = _changes("session"), pl.col("session_index") == 1
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
        rows = self._rows(log)
        return _places(self._grouped(_without_repeats(rows) if self.drop_repeats else rows))

    def _states(self, log: pl.DataFrame) -> pl.DataFrame:
        rows = self._rows(log)
        recent = (
            rows.lazy().filter(_CAN_REPEAT).group_by("user").agg(pl.col("event_id").tail(REMEMBERED_EVENTS).reverse())
        )
        last = (
            rows.lazy().filter(_is_last()).select("user", "user_id", time=_raw(rows), shift=pl.col("at") - _raw(rows))
        )
        grouped = self._grouped(_without_repeats(rows) if self.drop_repeats else rows)
        newest = self._with_ids(_places(grouped)).group_by("user").last()
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
            **{name: pl.col("event_id").list.get(index, null_on_oob=True) for index, name in enumerate(_RECENT)},
        }
        return (
            last.join(grouped.filter(_is_last()).select("user", "group", "era", *_FLAGS, "active_at"), on="user")
            .join(newest.select("user", pl.exclude("user").name.prefix("newest_")), on="user", how="left")
            .join(recent, on="user", how="left")
            .select(value.cast(_STATE_TYPES[name]).alias(name) for name, value in states.items())
            .collect()
        )

    def _rows(self, log: pl.DataFrame) -> pl.DataFrame:
        """Check the rows, and sort them by user and ``at``, the time on one clock for each user, in microseconds.

        Users that are carried begin with pseudo rows, whose ``time`` is null. If it may differ from ``at``, ``raw`` is
        the time on the log's clock. ``user`` numbers the users.
        """
        rows = log.with_columns(
            _microseconds(log["time"]).alias("at"),
            pl.col("input").cast(_INPUTS, strict=False),
            pl.col("sequence").cast(pl.Int64, strict=False),
        )
        if rows.select(pl.any_horizontal(check.any() for check in _ROW_CHECKS.values())).item():
            self._fail({text: log.filter(rows.select(check).to_series()) for text, check in _ROW_CHECKS.items()})
        carried = None if self.carried is None else self.carried.collect()
        has_clock = rows.select(_is(CLOCK).any()).item()
        if carried is not None or has_clock:
            rows = rows.with_columns(raw="at")
        if has_clock:
            rows = self._on_one_clock(rows, carried)
        if carried is not None:
            rows = pl.concat(
                [rows, _pseudo_rows(carried, rows.select(pl.col("sequence").min().fill_null(0)).item())], how="diagonal"
            )
        rows = _sorted(rows)
        if carried is not None:
            self._require_later(rows)
        self._require_one_order(rows)
        return rows

    def _on_one_clock(self, rows: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
        """Shift the times of users whose clock was set back, so that their clock continues from the row before."""
        is_clock = _is(CLOCK)
        users = rows.filter(is_clock)["user_id"].unique()
        before = pl.col("at").shift().over("user_id")
        moved = (
            rows.with_row_index("row")
            .filter(pl.col("user_id").is_in(users.implode()))
            .sort("user_id", "sequence", ~is_clock)
            .with_columns(epoch=is_clock.cum_sum().over("user_id"))
            .sort("user_id", "epoch", "at", "sequence")
        )
        if carried is None:
            moved = moved.with_columns(before=before)
        else:
            moved = moved.join(
                carried.select("user_id", carried_at=_epoch("time")), on="user_id", how="left", maintain_order="left"
            ).with_columns(before=before.fill_null(pl.col("carried_at")))
        is_early = ~is_clock & (pl.col("at") < pl.col("before")).fill_null(value=False)
        self._fail({"times earlier than those before them, without a clock that was set back": moved.filter(is_early)})
        shift = pl.when(is_clock).then(pl.col("before") - pl.col("at")).fill_null(0).cum_sum().over("user_id")
        moved = moved.with_columns(at=pl.col("at") + shift)
        return rows.with_columns(rows["at"].scatter(moved["row"], moved["at"]))

    def _require_later(self, rows: pl.DataFrame) -> None:
        is_carried = pl.col("time").is_null()
        if rows.filter(is_carried & (pl.col("user") == pl.col("user").shift()) & ~is_carried.shift()).is_empty():
            return
        ends = rows.filter(is_carried).group_by("user").agg(carried_at=pl.col("at").max())
        early = rows.filter(~is_carried).join(ends, on="user").filter(pl.col("at") < pl.col("carried_at"))
        self._fail({"times earlier than the state that the user is carried with": early})

    def _require_one_order(self, rows: pl.DataFrame) -> None:
        """Rows that are equal were delivered more than once, which is harmless: a repeated event is dropped."""
        is_tied = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("user", "at", "sequence"))
        ties = rows.select(is_tied.fill_null(value=False)).to_series()
        if ties.any():
            differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in ("input", "event_id"))
            self._fail(
                {
                    "rows that differ, with equal user, time and sequence": rows.filter(
                        ties & rows.select(differs).to_series()
                    )
                }
            )

    def _fail(self, problems: Mapping[str, pl.DataFrame]) -> None:
        """Raise `LogError` if any of the problems has rows."""
        found = tuple(
            Problem(
                description,
                rows.height,
                tuple(self._example(row) for row in rows.head(MAX_EXAMPLES).select(LOG_COLUMNS).iter_rows()),
            )
            for description, rows in problems.items()
            if not rows.is_empty()
        )
        if found:
            raise LogError(found)

    def _example(self, row: tuple[object, ...]) -> str:
        values = (value.isoformat() if isinstance(value, datetime) else value for value in row)
        return ", ".join(f"{name}={shown(value)}" for name, value in zip(self.names.values(), values, strict=True))

    def _grouped(self, rows: pl.DataFrame) -> pl.LazyFrame:
        """Add to each row the flags and the last activity after it, its group and its era."""
        settings = self.settings
        is_first = _changes("user")

        def flag(set_by: tuple[str, ...], cleared_by: tuple[str, ...]) -> pl.Expr:
            is_set = pl.when(_is(*set_by)).then(True).when(is_first | _is(*cleared_by)).then(False)  # noqa: FBT003
            return is_set.forward_fill()

        def before(name: str) -> pl.Expr:
            return pl.col(name).shift() & ~is_first

        is_active = _is(Input.EVENT, Command.TOUCH)
        if settings.extend_on_focus_change:
            # A toggle is activity only if it changes the focus.
            toggled_from = {Input.BACKGROUND: ~before("in_background"), Input.FOREGROUND: before("in_background")}
            is_active |= pl.any_horizontal(_is(toggle) & changes for toggle, changes in toggled_from.items())
        timeout = (
            pl.when(before("in_background")).then(settings.background_timeout).otherwise(settings.foreground_timeout)
        )
        # This may compare a user's first rows with another user's activity. That adds a break before there are events.
        is_timed_out = pl.col("at") - pl.col("active_at").shift() >= timeout
        grouped = (
            rows.lazy()
            .with_columns(
                in_background=flag((Input.BACKGROUND,), (Input.FOREGROUND, *RESETS)),
                is_stopped=flag(
                    (Command.STOP_CHECKER,), (Input.EVENT, Input.FOREGROUND, Command.START_CHECKER, *RESETS)
                ),
            )
            .with_columns(active_at=pl.when(is_active).then("at").forward_fill())
            .with_columns(checks=~(before("is_stopped") | _is(*_NOT_CHECKING)))
            .with_columns(
                era=_number(is_first | _is(Command.FORGET)),
                group=_number(
                    is_first
                    | _is(Command.NEW_SESSION, *RESETS)
                    | (pl.col("checks") & is_timed_out).fill_null(value=False)
                ),
            )
        )
        return grouped if settings.max_duration == NEVER else _divided(grouped.collect(), settings.max_duration).lazy()


def _places(grouped: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows that are counted in a session, with their places."""
    is_event = _is(Input.EVENT)
    # A passive event is counted if the last event before it is in its group.
    is_passive = _is(Input.PASSIVE) & (pl.col("group") == pl.when(is_event).then("group").forward_fill())
    names = grouped.collect_schema().names()
    begins, begins_era, row = _changes("group"), _changes("era"), pl.int_range(pl.len(), dtype=pl.UInt32)
    index = pl.col("session") - pl.when(begins_era).then("session").forward_fill() + 1
    count = row - pl.when(begins).then(row).forward_fill() + 1
    if "carried_index" in names:
        index += pl.when(begins_era).then(pl.col("carried_index").fill_null(0)).forward_fill()
        count += pl.when(begins).then(pl.col("carried_count").fill_null(0)).forward_fill()
    return (
        grouped.filter((is_event | is_passive).fill_null(value=False))
        .with_columns(session=_number(begins) - 1)
        .with_columns(
            session_index=index,
            event_index=count,
            first_event_id=pl.when(begins).then("event_id").forward_fill(),
            first_event_timestamp=pl.when(begins).then("raw" if "raw" in names else "at").forward_fill(),
            began_at=pl.when(begins).then("at").forward_fill(),
        )
    )


def _without_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop each event that has the id of one of the user's last events before it."""
    ids = rows.lazy().with_row_index("row").filter(_CAN_REPEAT)
    is_repeated = pl.any_horizontal(
        (pl.col("user") == pl.col("user").shift(ago)) & (pl.col("event_id") == pl.col("event_id").shift(ago))
        for ago in range(1, REMEMBERED_EVENTS + 1)
    )
    repeated = ids.filter(is_repeated).select("row").collect().to_series()
    if repeated.is_empty():
        return rows
    return rows.filter(pl.repeat(True, rows.height, eager=True).scatter(repeated, False))  # noqa: FBT003


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort the rows by user, ``at`` and sequence, and number the users.

    One integer of 128 bits that has all three is sorted twice as fast as the columns, and three times as fast if user
    ids are long. It has a hash of the user id; if those of two users are equal, the columns are sorted.
    """
    bounds = rows.select(pl.col("at", "sequence").min().name.prefix("least_"), pl.col("at", "sequence").max()).row(0)
    at, sequence, last_at, last_sequence = bounds
    if at is not None:
        time_bits, sequence_bits = (last_at - at).bit_length(), (last_sequence - sequence).bit_length()
        user_bits = min(64, _KEY_BITS - time_bits - sequence_bits)
        if user_bits >= _MIN_USER_BITS:
            user = (pl.col("user_id").hash() // 2 ** (64 - user_bits)).cast(pl.Int128)
            key = (user * _power(time_bits) + _offset("at", at)) * _power(sequence_bits) + _offset("sequence", sequence)
            by_key = rows.with_columns(key=key).sort("key").with_columns(user=_number(_changes("user_id")))
            hashes = (
                by_key.filter(_changes("user")).select(pl.col("key") // _power(time_bits + sequence_bits)).to_series()
            )
            if hashes.n_unique() == hashes.len():
                return by_key.drop("key")
    return rows.sort("user_id", "at", "sequence").with_columns(user=_number(_changes("user_id")))


def _power(bits: int) -> pl.Expr:
    return pl.lit(2**bits, pl.Int128)


def _offset(name: str, least: int) -> pl.Expr:
    return pl.col(name).cast(pl.Int128) - least


def _pseudo_rows(carried: pl.DataFrame, first_sequence: int) -> pl.DataFrame:
    """Return rows that lead to the carried states. They have no ``time``, and sequences below ``first_sequence``."""
    is_over = pl.col("is_over")
    has_session, is_current = pl.col("session_index") > 0, ~is_over
    time = _epoch("time")
    began, active = _epoch("session_start").fill_null(time), _epoch("last_activity").fill_null(time)
    stops = (
        pl.when(is_over | pl.col("is_checking"))
        .then(_given(Command.START_CHECKER))
        .otherwise(_given(Command.STOP_CHECKER))
    )
    seen = [(pl.col(name).is_not_null(), _given(Input.PASSIVE), began, pl.col(name)) for name in reversed(_RECENT)]
    no_id = pl.lit(None, pl.String)
    rows = [
        *seen,
        (has_session, _given(Input.EVENT), began, pl.col("first_event_id")),
        # Nothing expires until checking starts, at the time of the last input.
        (is_current, _given(Command.STOP_CHECKER), began, no_id),
        (is_current, _given(Command.TOUCH), active, no_id),
        (has_session & is_over, _given(Command.NEW_SESSION), time, no_id),
        (pl.col("in_background"), _given(Input.BACKGROUND), pl.when(is_over).then(time).otherwise(active), no_id),
        (pl.lit(value=True), stops, time, no_id),
    ]
    return pl.concat(
        carried.filter(condition).select(
            "user_id",
            input=given.cast(_INPUTS),
            event_id=event_id,
            at=at,
            raw=_epoch("first_event_timestamp") if number == len(seen) else time,
            sequence=pl.lit(first_sequence - len(rows) + number, pl.Int64),
            carried_index=pl.col("session_index") - 1 if number == len(seen) else pl.lit(None, pl.UInt32),
            carried_count=pl.col("event_index") - 1 if number == len(seen) else pl.lit(None, pl.UInt32),
            carried_previous=pl.col("previous_session_id") if number == len(seen) else no_id,
        )
        for number, (condition, given, at, event_id) in enumerate(rows)
    )


def _divided(rows: pl.DataFrame, max_duration: int) -> pl.DataFrame:
    """Divide the groups in which a check finds that the session has reached the maximum duration."""
    is_event = _is(Input.EVENT)
    # Each row is compared with the first event of its group. Rows before that event see an earlier group's.
    begins = is_event & (pl.col("group") != pl.when(is_event).then("group").forward_fill().shift()).fill_null(
        value=True
    )
    long_groups = (
        rows.lazy()
        .with_columns(
            began_at=pl.when(begins).then("at").forward_fill(), began_in=pl.when(begins).then("group").forward_fill()
        )
        .filter(
            (pl.col("began_in") == pl.col("group"))
            & pl.col("checks")
            & (pl.col("at") - pl.col("began_at") >= max_duration)
        )
        .select(pl.col("group").unique())
        .collect()
        .to_series()
    )
    if long_groups.is_empty():
        return rows
    visited = (
        rows.lazy()
        .with_row_index("row")
        .filter(pl.col("group").is_in(long_groups.implode()))
        .select("row", "group", "at", "checks", is_event)
        .collect()
    )
    is_limit = pl.repeat(0, rows.height, dtype=pl.UInt32, eager=True).scatter(_limits(visited, max_duration), 1)
    return rows.with_columns(group=pl.col("group") + is_limit.cum_sum())


def _limits(rows: pl.DataFrame, max_duration: int) -> list[int]:
    """Return the rows in which a check finds the limit reached. The next event after it begins a session."""
    limits: list[int] = []
    current = began_at = None
    for row, group, at, checks, is_event in rows.iter_rows():
        if group != current:
            current, began_at = group, None
        if began_at is not None and checks and at - began_at >= max_duration:
            limits.append(row)
            began_at = None
        if is_event and began_at is None:
            began_at = at
    return limits


def _uuid8(texts: pl.Series) -> pl.Series:
    """Return the UUIDv8 of each text, as `ids.uuid8` derives it."""
    digits = texts.to_frame("text").select(plh.col("text").nchash.md5()).to_series().str
    variant = digits.slice(16, 1).replace_strict(_VARIANTS, return_dtype=pl.String)
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


def _microseconds(time: pl.Series) -> pl.Series:
    """Return times in microseconds since 1970; null for text that is not a time."""
    if time.dtype != pl.String:
        return time.dt.timestamp("us")
    parsed = _parsed(time)
    if parsed.null_count() > time.null_count():
        with_t = time.str.replace(" ", "T", literal=True)
        parsed = parsed.fill_null(_parsed(with_t)).fill_null(_parsed(with_t + "Z"))
    return parsed.dt.timestamp("us")


def _parsed(text: pl.Series) -> pl.Series:
    return text.str.to_datetime("%+", time_unit="us", strict=False)


def _epoch(name: str) -> pl.Expr:
    return pl.col(name).dt.timestamp("us")


def _raw(rows: pl.DataFrame) -> pl.Expr:
    """Return the time on the log's clock."""
    return pl.col("raw" if "raw" in rows.columns else "at")


def _given(name: str) -> pl.Expr:
    # Polars takes a member of a StrEnum for a value of another type.
    return pl.lit(str(name))


def _is(*inputs: str) -> pl.Expr:
    return pl.col("input").is_in([str(name) for name in inputs])


def _number(begins: pl.Expr) -> pl.Expr:
    """Number what begins in these rows, from 1."""
    return begins.cast(pl.UInt32).cum_sum()


def _changes(name: str) -> pl.Expr:
    return (pl.col(name) != pl.col(name).shift()).fill_null(value=True)


def _is_last() -> pl.Expr:
    return (pl.col("user") != pl.col("user").shift(-1)).fill_null(value=True)


def _lazy(argument: str, frame: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
        msg = f"{argument} must be a LazyFrame or a DataFrame, not {shown(frame)}"
        raise TypeError(msg)
    return frame.lazy()


def _require_columns(argument: str, schema: pl.Schema, names: Iterable[str]) -> None:
    if missing := [name for name in names if name not in schema]:
        msg = f"{argument} lacks the columns {', '.join(missing)}; it has {', '.join(schema)}"
        raise ValueError(msg)


_CAN_REPEAT = _is(*EVENTS) & (pl.col("time").is_not_null() | _is(Input.PASSIVE))
"""Events, except for the pseudo rows with which carried sessions begin."""
_ROW_CHECKS: Mapping[str, pl.Expr] = {
    "null or empty user ids": pl.col("user_id").str.len_bytes().fill_null(0) == 0,
    "times that are null, or text that is not RFC 3339": pl.col("at").is_null(),
    "null sequences": pl.col("sequence").is_null(),
    f"inputs other than {', '.join(INPUTS)}": pl.col("input").is_null(),
    "events with null or empty ids": _is(*EVENTS) & (pl.col("event_id").str.len_bytes().fill_null(0) == 0),
}
