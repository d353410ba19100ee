"""A summary of a sessionized log: what it has, why sessions ended, and how long they were."""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import attrs
import polars as pl

from client_session.graph import Command, EndReason, Input
from client_session.sessionize.polars_log import changes, is_input
from client_session.sessionize.settings import EVENTS

if TYPE_CHECKING:
    from client_session.sessionize.settings import Settings

STILL_OPEN = "still open"
"""The reason of sessions that no input in the log has ended."""
REASONS: tuple[str, ...] = (
    EndReason.TIMEOUT,
    EndReason.BACKGROUND_TIMEOUT,
    EndReason.MAX_DURATION,
    EndReason.NEW_SESSION,
    EndReason.FORGET,
    STILL_OPEN,
)
LENGTHS: tuple[tuple[int, str], ...] = (
    (0, "0 s"),
    (1, "under 10 s"),
    (10_000_000, "10 s to 1 min"),
    (60_000_000, "1 to 5 min"),
    (300_000_000, "5 to 15 min"),
    (900_000_000, "15 to 30 min"),
    (1_800_000_000, "30 min to 1 h"),
    (3_600_000_000, "1 to 4 h"),
    (14_400_000_000, "4 h or longer"),
)
"""The least length in each bar of the histogram, in microseconds, and the bar's name."""


@attrs.frozen
class Summary:
    """The numbers of a log, or of some of its users. Summaries of different users can be added.

    A session is as long as the time from its first event to its last activity.
    """

    users: int = 0
    """Users with a row in the log."""
    events: int = 0
    """Events and passive events, repeated ones included."""
    repeated_events: int = 0
    """Those that were dropped, because an earlier event has their id."""
    events_without_session: int = 0
    """Passive events while no session was current."""
    sessions: int = 0
    """Sessions of these users that were current at some time in the log."""
    carried_sessions: int = 0
    """Those that began before the log, and were carried."""
    reasons: tuple[int, ...] = (0,) * len(REASONS)
    """For each of `REASONS`, how many sessions ended for it."""
    lengths: tuple[int, ...] = (0,) * len(LENGTHS)
    """For each of `LENGTHS`, how many sessions have it."""

    def __add__(self, other: Summary) -> Summary:
        """Return the summary of the users of both."""
        return Summary(
            self.users + other.users,
            self.events + other.events,
            self.repeated_events + other.repeated_events,
            self.events_without_session + other.events_without_session,
            self.sessions + other.sessions,
            self.carried_sessions + other.carried_sessions,
            tuple(map(operator.add, self.reasons, other.reasons)),
            tuple(map(operator.add, self.lengths, other.lengths)),
        )


def summarized(rows: pl.DataFrame, grouped: pl.DataFrame, placed_events: int, settings: Settings) -> Summary:
    """Return the summary of a log.

    ``rows`` are those of `LogReader.rows`, ``grouped`` those of `polars_places.grouped`, and ``placed_events`` is how
    many events belong to a session.
    """
    in_log = pl.col("time").is_not_null()  # carried users begin with rows that have no time
    is_event = is_input(*EVENTS) & in_log
    users, events = rows.filter(in_log).select(pl.col("user").n_unique()).item(), rows.select(is_event.sum()).item()
    kept_events = grouped.select(is_event.sum()).item()
    sessions = _sessions(grouped, settings).collect()
    return Summary(
        users,
        events,
        events - kept_events,
        kept_events - placed_events,
        sessions.height,
        sessions.select(pl.col("is_carried").sum()).item(),
        tuple(sessions.select((pl.col("reason") == name).sum().alias(name) for name in map(str, REASONS)).row(0)),
        _histogram(sessions["length"]),
    )


def _histogram(lengths: pl.Series) -> tuple[int, ...]:
    at_least = [int((lengths >= least).sum()) for least, _ in LENGTHS]
    return tuple(map(operator.sub, at_least, (*at_least[1:], 0)))


def _sessions(grouped: pl.DataFrame, settings: Settings) -> pl.LazyFrame:
    """Return a row for each session that is current at some time in the log: its length, and why it ended.

    As in the lifecycle core, the row that follows a session checks first, and the reason is the limit that was reached
    first; a tie is the timeout.
    """
    is_event = is_input(Input.EVENT)
    begins = is_event & (pl.col("group") != pl.when(is_event).then("group").forward_fill().shift()).fill_null(
        value=True
    )
    # Another user's row does not end a session. Rows that have no time end sessions before the log.
    is_followed = (pl.col("user") == pl.col("user").shift(-1)).fill_null(value=False)
    idle = pl.col("next_at") - pl.col("active_at")
    length = pl.col("active_at") - pl.col("began_at")
    timeout = pl.when("in_background").then(settings.background_timeout).otherwise(settings.foreground_timeout)
    is_idle = idle >= timeout
    is_too_long = pl.col("next_at") - pl.col("began_at") >= settings.max_duration
    is_idle_first = is_idle & (timeout <= settings.max_duration - length)
    reason = (
        pl.when(~pl.col("is_followed"))
        .then(pl.lit(STILL_OPEN))
        .when(pl.col("next_checks") & is_too_long & ~is_idle_first)
        .then(_reason(EndReason.MAX_DURATION))
        .when(pl.col("next_checks") & is_idle & pl.col("in_background"))
        .then(_reason(EndReason.BACKGROUND_TIMEOUT))
        .when(pl.col("next_checks") & is_idle)
        .then(_reason(EndReason.TIMEOUT))
        .when(pl.col("next_input") == str(Command.FORGET))
        .then(_reason(EndReason.FORGET))
        .otherwise(_reason(EndReason.NEW_SESSION))
    )
    return (
        grouped.lazy()
        .with_columns(
            pl.col("at", "checks", "input").shift(-1).name.prefix("next_"),
            is_last=changes("group").shift(-1, fill_value=True),
            is_followed=is_followed,
            began_at=pl.when(begins).then("at").forward_fill(),
            began_in=pl.when(begins).then("group").forward_fill(),
            is_carried=pl.when(begins).then(pl.col("time").is_null()).forward_fill(),
            is_in_log=pl.when(is_followed).then(pl.col("time").shift(-1)).otherwise("time").is_not_null(),
        )
        .filter("is_last", "is_in_log", pl.col("began_in") == pl.col("group"))
        .select("is_carried", reason=reason, length=length)
    )


def _reason(name: str) -> pl.Expr:
    # Polars takes a member of a StrEnum for a value of another type.
    return pl.lit(str(name))
