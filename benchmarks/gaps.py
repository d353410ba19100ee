"""The usual queries for sessions: a gap between two events of at least ten minutes ends a session.

`client_session.sessionize` is compared with them. They give each event its session's index, its own index, and the
session's first event.
"""

from __future__ import annotations

import polars as pl

from client_session.sessionize.polars_log import changes, microseconds, numbered, sorted_rows

COLUMNS = (
    "user_id",
    "time",
    "sequence",
    "input",
    "event_id",
    "session_index",
    "event_index",
    "first_event_id",
    "first_event_timestamp",
)
SQL = """WITH gaps AS (
  SELECT *, CASE WHEN time - LAG(time) OVER events < INTERVAL 600 SECONDS THEN 0 ELSE 1 END AS begins
  FROM log
  WHERE input IN ('event', 'passive')
  WINDOW events AS (PARTITION BY user_id ORDER BY time, sequence)
),
indexed AS (
  SELECT *, SUM(begins) OVER (PARTITION BY user_id ORDER BY time, sequence) AS session_index
  FROM gaps
)
SELECT user_id, time, sequence, input, event_id, session_index,
       ROW_NUMBER() OVER session AS event_index,
       FIRST_VALUE(event_id) OVER session AS first_event_id,
       FIRST_VALUE(time) OVER session AS first_event_timestamp
FROM indexed
WINDOW session AS (PARTITION BY user_id, session_index ORDER BY time, sequence)"""
"""The query for DuckDB and Spark."""


def polars(log: pl.DataFrame) -> pl.DataFrame:
    """Return the query's result in Polars, sorted by the columns."""
    return _placed(_events(log).sort("user_id", "time", "sequence"), "user_id", "time")


def polars_by_key(log: pl.DataFrame) -> pl.DataFrame:
    """Return the query's result in Polars, sorted by one number, as `sessionize` sorts; this is faster."""
    events = _events(log)
    return _placed(sorted_rows(events.with_columns(at=microseconds(events["time"]))), "user", "at")


def _events(log: pl.DataFrame) -> pl.DataFrame:
    return log.filter(pl.col("input").is_in(["event", "passive"]))


def _placed(events: pl.DataFrame, user: str, time: str) -> pl.DataFrame:
    gap = pl.duration(seconds=600) if time == "time" else 600_000_000
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    return (
        events.lazy()
        .with_columns(is_first=changes(user))
        .with_columns(begins=pl.col("is_first") | (pl.col(time) - pl.col(time).shift() >= gap))
        .with_columns(session=numbered(pl.col("begins")))
        .select(
            *COLUMNS[:5],
            session_index=pl.col("session") - pl.when("is_first").then("session").forward_fill() + 1,
            event_index=row - pl.when("begins").then(row).forward_fill() + 1,
            first_event_id=pl.when("begins").then("event_id").forward_fill(),
            first_event_timestamp=pl.when("begins").then("time").forward_fill(),
        )
        .collect()
    )
