"""Sessionizing DataFrames of Spark 4.1 or later, with the query of `sessionize_sql`. Needs the extra ``spark``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.sessionize.errors import LogError, Problem
from client_session.sessionize.sql import carried_state_sql, problems_sql, sessionize_sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

    from client_session.arguments import Seconds


def sessionize(  # noqa: PLR0913  # the settings in the specification
    log: DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    carried: DataFrame | None = None,
    drop_repeats: bool = True,
) -> DataFrame:
    """Return the events of a log that belong to a session: the log's columns, then the entity's.

    Arguments are those of `sessionize_sql`. ``carried`` should be read from a table, because Spark would analyze and
    run its query many times over. The result is lazy. A log that `check` refuses gives wrong sessions.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a value is invalid.

    """
    query = sessionize_sql(
        "spark",
        log="{log}",
        columns=_escaped(columns),
        foreground_timeout=foreground_timeout,
        background_timeout=background_timeout,
        max_duration=max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
        carried=None if carried is None else "{carried}",
        drop_repeats=drop_repeats,
    )
    return _run(query, log, carried)


def carried_state(  # noqa: PLR0913  # the settings in the specification
    log: DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    foreground_timeout: Seconds = 600,
    background_timeout: Seconds = 300,
    max_duration: Seconds | None = None,
    extend_on_focus_change: bool = False,
    namespace: str = "default",
    carried: DataFrame | None = None,
    drop_repeats: bool = True,
) -> DataFrame:
    """Return each user's state after a log, to be passed as ``carried`` with the next one; see `carried_state_sql`."""
    query = carried_state_sql(
        "spark",
        log="{log}",
        columns=_escaped(columns),
        foreground_timeout=foreground_timeout,
        background_timeout=background_timeout,
        max_duration=max_duration,
        extend_on_focus_change=extend_on_focus_change,
        namespace=namespace,
        carried=None if carried is None else "{carried}",
        drop_repeats=drop_repeats,
    )
    return _run(query, log, carried)


def check(log: DataFrame, *, columns: Mapping[str, str] | None = None, carried: DataFrame | None = None) -> None:
    """Read a log, and raise `LogError` if it cannot be sessionized."""
    query = problems_sql(
        "spark", log="{log}", columns=_escaped(columns), carried=None if carried is None else "{carried}"
    )
    if rows := _run(query, log, carried).collect():
        raise LogError(tuple(Problem(row["problem"], row["row_count"], (row["example"],)) for row in rows))


def _run(query: str, log: DataFrame, carried: DataFrame | None) -> DataFrame:
    if carried is None:
        return log.sparkSession.sql(query, log=log)
    return log.sparkSession.sql(query, log=log, carried=carried)


def _escaped(columns: Mapping[str, str] | None) -> dict[str, str] | None:
    """Double the braces of column names, because Spark replaces what is in braces."""
    if columns is None:
        return None
    return {
        column: name.replace("{", "{{").replace("}", "}}") if isinstance(name, str) else name
        for column, name in columns.items()
    }
