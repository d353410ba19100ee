"""Sessionizing with Polars, for comparison with the fold."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import attrs
import polars as pl

from client_session.input_log import REMEMBERED_EVENTS
from client_session.sessionize.fold import SessionizedEvent, UserState
from client_session.sessionize.polars import carried_state, sessionize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client_session.input_log import InputRecord

_LOG_TYPES: dict[str, Any] = {
    "user_id": pl.String,
    "time": pl.Datetime("us", "UTC"),
    "sequence": pl.Int64,
    "input": pl.String,
    "event_id": pl.String,
}


class PolarsSessionizer:
    """Runs the expressions of `client_session.sessionize.polars`."""

    @property
    def name(self) -> str:
        """The name of the engine."""
        return "polars"

    def run(
        self, records: Sequence[InputRecord], settings: dict[str, Any], carried: Sequence[UserState] = ()
    ) -> tuple[list[SessionizedEvent], list[UserState]]:
        """Return the log's events, by user and sequence, and the states after it, by user."""
        log = log_frame(records)
        before = state_frame(carried) if carried else None
        rows = sessionize(log, carried=before, **settings).collect().rows()
        states = carried_state(log, carried=before, **settings).collect().rows()
        events = [SessionizedEvent(*row) for row in sorted(rows, key=itemgetter(0, 2))]
        return events, [_state(row) for row in sorted(states, key=itemgetter(0))]


def log_frame(records: Iterable[InputRecord]) -> pl.DataFrame:
    """Return a log as a frame."""
    return pl.DataFrame([attrs.astuple(record) for record in records], schema=_LOG_TYPES, orient="row")


def state_frame(states: Iterable[UserState]) -> pl.DataFrame:
    """Return states as a frame that can be carried."""
    rows: list[tuple[Any, ...]] = []
    for state in states:
        *values, recent = attrs.astuple(state, recurse=False)
        rows.append((*values, *recent, *[None] * (REMEMBERED_EVENTS - len(recent))))
    return pl.DataFrame(rows, schema=carried_state(log_frame([])).collect_schema(), orient="row")


def _state(row: tuple[Any, ...]) -> UserState:
    values: list[Any] = [
        *row[:-REMEMBERED_EVENTS],
        tuple(each for each in row[-REMEMBERED_EVENTS:] if each is not None),
    ]
    return UserState(*values)
