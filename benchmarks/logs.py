"""Generates logs to sessionize: the same one for the same arguments and version of DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

ROWS_PER_USER = 200
_ROWS_PER_VISIT, _VISITORS = 1000, 50
HEAVY_PERCENT = 30


def log_sql(rows: int, *, is_skewed: bool = False) -> str:
    """Return a query of DuckDB for a log, in the order of its times; in a skewed one, one user has 30% of the rows.

    Of its inputs, 80% are events, which have UUIDs as text. One row in 500 repeats the event before it. Every 25
    minutes, another 50 users are active.
    """
    heavy = HEAVY_PERCENT if is_skewed else 0
    return f"""WITH sources AS (
  SELECT i AS sequence, CASE WHEN hash(i, 'again') % 500 = 0 THEN greatest(i - 1, 0) ELSE i END AS source
  FROM range({rows}) AS r(i)
),
drawn AS (
  SELECT sequence, source, hash(source, 'input') % 1000 AS chance,
         CASE WHEN hash(source, 'heavy') % 100 < {heavy} THEN -1
              ELSE hash(source // {_ROWS_PER_VISIT}, hash(source, 'user') % {_VISITORS})
                   % {max(rows // ROWS_PER_USER, 1)} END AS user_number
  FROM sources
),
typed AS (
  SELECT *, CASE WHEN chance < 800 THEN 'event'
                 WHEN chance < 850 THEN 'passive'
                 WHEN chance < 900 THEN 'background'
                 WHEN chance < 950 THEN 'foreground'
                 WHEN chance < 980 THEN 'touch'
                 WHEN chance < 985 THEN 'new-session'
                 WHEN chance < 993 THEN 'stop-checker'
                 ELSE 'start-checker' END AS input
  FROM drawn
)
SELECT CAST(CAST(md5(concat('user ', user_number)) AS UUID) AS VARCHAR) AS user_id,
       make_timestamptz(1767225600000000 + sequence * 1500000 + CAST(hash(sequence, 'time') % 1000000 AS BIGINT))
         AS time,
       sequence,
       input,
       CASE WHEN input IN ('event', 'passive')
            THEN CAST(CAST(md5(concat('event ', source)) AS UUID) AS VARCHAR) END AS event_id
FROM typed"""


def write_log(connection: DuckDBPyConnection, path: Path, rows: int, *, is_skewed: bool = False) -> None:
    """Write a log as a Parquet file."""
    connection.execute(f"COPY ({log_sql(rows, is_skewed=is_skewed)}) TO '{path}' (COMPRESSION zstd)")
