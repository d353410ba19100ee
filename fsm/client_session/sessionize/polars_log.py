"""A log in Polars: its rows checked, put on one clock for each user, continued from states, and sorted."""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import attrs
import polars as pl

from client_session.graph import Command, Input
from client_session.input_log import CLOCK
from client_session.sessionize.errors import MAX_EXAMPLES, LogError, Problem
from client_session.sessionize.settings import EVENTS, INPUTS, LOG_COLUMNS, RECENT
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_INPUTS = pl.Enum(INPUTS)
_KEY_BITS, _MIN_USER_BITS = 127, 24


@attrs.frozen(eq=False)
class LogReader:
    """Reads logs whose columns have these names in error messages, continued from ``carried``."""

    names: Mapping[str, str]
    carried: pl.LazyFrame | None

    def rows(self, log: pl.DataFrame) -> pl.DataFrame:
        """Check the rows, and sort them by user and ``at``, the time on one clock for each user, in microseconds.

        Users that are carried begin with pseudo rows, whose ``time`` is null. If it may differ from ``at``, ``raw`` is
        the time on the log's clock. ``user`` numbers the users.
        """
        rows = log.with_columns(
            microseconds(log["time"]).alias("at"),
            pl.col("input").cast(_INPUTS, strict=False),
            pl.col("sequence").cast(pl.Int64, strict=False),
        )
        if rows.select(pl.any_horizontal(check.any() for check in _ROW_CHECKS.values())).item():
            self._fail({text: log.filter(rows.select(check).to_series()) for text, check in _ROW_CHECKS.items()})
        carried = None if self.carried is None else self.carried.collect()
        has_clock = rows.select(is_input(CLOCK).any()).item()
        if carried is not None or has_clock:
            rows = rows.with_columns(raw="at")
        if has_clock:
            rows = self._on_one_clock(rows, carried)
        if carried is not None:
            rows = pl.concat(
                [rows, _pseudo_rows(carried, rows.select(pl.col("sequence").min().fill_null(0)).item())], how="diagonal"
            )
        rows = sorted_rows(rows)
        if carried is not None:
            self._require_later(rows)
        self._require_one_order(rows)
        return rows

    def _on_one_clock(self, rows: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
        """Shift the times of users whose clock was set back, so that their clock continues from the row before."""
        is_clock = is_input(CLOCK)
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
                carried.select("user_id", carried_at=epoch("time")), on="user_id", how="left", maintain_order="left"
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


def sorted_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort the rows by user, ``at`` and sequence, and number the users.

    One integer of 128 bits that has all three is sorted in less than half the time of the columns. It has a hash of the
    user id; if those of two users are equal, the columns are sorted.
    """
    bounds = rows.select(pl.col("at", "sequence").min().name.prefix("least_"), pl.col("at", "sequence").max()).row(0)
    at, sequence, last_at, last_sequence = bounds
    if at is not None:
        time_bits, sequence_bits = (last_at - at).bit_length(), (last_sequence - sequence).bit_length()
        user_bits = min(64, _KEY_BITS - time_bits - sequence_bits)
        if user_bits >= _MIN_USER_BITS:
            user = (pl.col("user_id").hash() // 2 ** (64 - user_bits)).cast(pl.Int128)
            key = (user * _power(time_bits) + _offset("at", at)) * _power(sequence_bits) + _offset("sequence", sequence)
            by_key = rows.with_columns(key=key).sort("key").with_columns(user=numbered(changes("user_id")))
            hashes = (
                by_key.filter(changes("user")).select(pl.col("key") // _power(time_bits + sequence_bits)).to_series()
            )
            if hashes.n_unique() == hashes.len():
                return by_key.drop("key")
    return rows.sort("user_id", "at", "sequence").with_columns(user=numbered(changes("user_id")))


def _power(bits: int) -> pl.Expr:
    return pl.lit(2**bits, pl.Int128)


def _offset(name: str, least: int) -> pl.Expr:
    return pl.col(name).cast(pl.Int128) - least


def _pseudo_rows(carried: pl.DataFrame, first_sequence: int) -> pl.DataFrame:
    """Return rows that lead to the carried states. They have no ``time``, and sequences below ``first_sequence``."""
    is_over = pl.col("is_over")
    has_session, is_current = pl.col("session_index") > 0, ~is_over
    time = epoch("time")
    began, active = epoch("session_start").fill_null(time), epoch("last_activity").fill_null(time)
    stops = (
        pl.when(is_over | pl.col("is_checking"))
        .then(_given(Command.START_CHECKER))
        .otherwise(_given(Command.STOP_CHECKER))
    )
    seen = [(pl.col(name).is_not_null(), _given(Input.PASSIVE), began, pl.col(name)) for name in reversed(RECENT)]
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
            raw=epoch("first_event_timestamp") if number == len(seen) else time,
            sequence=pl.lit(first_sequence - len(rows) + number, pl.Int64),
            carried_index=pl.col("session_index") - 1 if number == len(seen) else pl.lit(None, pl.UInt32),
            carried_count=pl.col("event_index") - 1 if number == len(seen) else pl.lit(None, pl.UInt32),
            carried_previous=pl.col("previous_session_id") if number == len(seen) else no_id,
        )
        for number, (condition, given, at, event_id) in enumerate(rows)
    )


def microseconds(time: pl.Series) -> pl.Series:
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


def epoch(name: str) -> pl.Expr:
    """Return a column of times in microseconds since 1970."""
    return pl.col(name).dt.timestamp("us")


def _given(name: str) -> pl.Expr:
    # Polars takes a member of a StrEnum for a value of another type.
    return pl.lit(str(name))


def is_input(*inputs: str) -> pl.Expr:
    """Return whether the row's input is one of these."""
    return pl.col("input").is_in([str(name) for name in inputs])


def numbered(begins: pl.Expr) -> pl.Expr:
    """Number what begins in the rows where ``begins`` is true, from 1."""
    return begins.cast(pl.UInt32).cum_sum()


def changes(name: str) -> pl.Expr:
    """Return whether the row has another value than the row before it, or is the first."""
    return (pl.col(name) != pl.col(name).shift()).fill_null(value=True)


_ROW_CHECKS: Mapping[str, pl.Expr] = {
    "null or empty user ids": pl.col("user_id").str.len_bytes().fill_null(0) == 0,
    "times that are null, or text that is not like 2026-03-01T08:04:00Z": pl.col("at").is_null(),
    "null sequences": pl.col("sequence").is_null(),
    f"inputs other than {', '.join(INPUTS)}": pl.col("input").is_null(),
    "events with null or empty ids": is_input(*EVENTS) & (pl.col("event_id").str.len_bytes().fill_null(0) == 0),
}
