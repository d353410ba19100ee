"""The places of events in sessions, in Polars. client_session.sessionize.polars explains groups and eras."""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import polars as pl

from client_session.graph import Command, Input
from client_session.input_log import CLOCK, REMEMBERED_EVENTS
from client_session.sessionize.polars_log import changes, is_input, numbered
from client_session.sessionize.settings import EVENTS, NEVER, RESETS, Settings

_NOT_CHECKING: tuple[str, ...] = (Command.START_CHECKER, CLOCK)
"""The inputs that do not check first."""


def without_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop each event that has the id of one of the user's last events before it."""
    ids = rows.lazy().with_row_index("row").filter(CAN_REPEAT)
    is_repeated = pl.any_horizontal(
        (pl.col("user") == pl.col("user").shift(ago)) & (pl.col("event_id") == pl.col("event_id").shift(ago))
        for ago in range(1, REMEMBERED_EVENTS + 1)
    )
    repeated = ids.filter(is_repeated).select("row").collect().to_series()
    if repeated.is_empty():
        return rows
    return rows.filter(pl.repeat(True, rows.height, eager=True).scatter(repeated, False))  # noqa: FBT003


def grouped(rows: pl.DataFrame, settings: Settings) -> pl.LazyFrame:
    """Add to each row the flags and the last activity after it, its group and its era."""
    is_first = changes("user")

    def flag(set_by: tuple[str, ...], cleared_by: tuple[str, ...]) -> pl.Expr:
        is_set = pl.when(is_input(*set_by)).then(True).when(is_first | is_input(*cleared_by)).then(False)  # noqa: FBT003
        return is_set.forward_fill()

    def before(name: str) -> pl.Expr:
        return pl.col(name).shift() & ~is_first

    is_active = is_input(Input.EVENT, Command.TOUCH)
    if settings.extend_on_focus_change:
        # A toggle is activity only if it changes the focus.
        toggled_from = {Input.BACKGROUND: ~before("in_background"), Input.FOREGROUND: before("in_background")}
        is_active |= pl.any_horizontal(is_input(toggle) & is_change for toggle, is_change in toggled_from.items())
    timeout = pl.when(before("in_background")).then(settings.background_timeout).otherwise(settings.foreground_timeout)
    # This may compare a user's first rows with another user's activity. That adds a break before there are events.
    is_timed_out = pl.col("at") - pl.col("active_at").shift() >= timeout
    result = (
        rows.lazy()
        .with_columns(
            in_background=flag((Input.BACKGROUND,), (Input.FOREGROUND, *RESETS)),
            is_stopped=flag((Command.STOP_CHECKER,), (Input.EVENT, Input.FOREGROUND, Command.START_CHECKER, *RESETS)),
        )
        .with_columns(active_at=pl.when(is_active).then("at").forward_fill())
        .with_columns(checks=~(before("is_stopped") | is_input(*_NOT_CHECKING)))
        .with_columns(
            era=numbered(is_first | is_input(Command.FORGET)),
            group=numbered(
                is_first
                | is_input(Command.NEW_SESSION, *RESETS)
                | (pl.col("checks") & is_timed_out).fill_null(value=False)
            ),
        )
    )
    return result if settings.max_duration == NEVER else _divided(result.collect(), settings.max_duration).lazy()


def places(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows that are counted in a session, with their places."""
    is_event = is_input(Input.EVENT)
    # A passive event is counted if the last event before it is in its group.
    is_passive = is_input(Input.PASSIVE) & (pl.col("group") == pl.when(is_event).then("group").forward_fill())
    names = rows.collect_schema().names()
    begins, begins_era, row = changes("group"), changes("era"), pl.int_range(pl.len(), dtype=pl.UInt32)
    index = pl.col("session") - pl.when(begins_era).then("session").forward_fill() + 1
    count = row - pl.when(begins).then(row).forward_fill() + 1
    if "carried_index" in names:
        index += pl.when(begins_era).then(pl.col("carried_index").fill_null(0)).forward_fill()
        count += pl.when(begins).then(pl.col("carried_count").fill_null(0)).forward_fill()
    return (
        rows.filter((is_event | is_passive).fill_null(value=False))
        .with_columns(session=numbered(begins) - 1)
        .with_columns(
            session_index=index,
            event_index=count,
            first_event_id=pl.when(begins).then("event_id").forward_fill(),
            first_event_timestamp=pl.when(begins).then("raw" if "raw" in names else "at").forward_fill(),
            began_at=pl.when(begins).then("at").forward_fill(),
        )
    )


def _divided(rows: pl.DataFrame, max_duration: int) -> pl.DataFrame:
    """Divide the groups in which a check finds that the session has reached the maximum duration."""
    is_event = is_input(Input.EVENT)
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


CAN_REPEAT = is_input(*EVENTS) & (pl.col("time").is_not_null() | is_input(Input.PASSIVE))
"""Events, except for the pseudo rows with which carried sessions begin."""
