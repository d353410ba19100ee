"""Sessionizing DataFrames of Spark 4.1 or later, with the query of `sessionize_sql`. Needs the extra ``spark``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from client_session.sessionize.errors import LogError, Problem
from client_session.sessionize.settings import column_names
from client_session.sessionize.sql import carried_state_sql, problems_sql, sessionize_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame

    from client_session.sessionize.settings import SessionSettings


def sessionize(
    log: DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    carried: DataFrame | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> DataFrame:
    """Return the events of a log that belong to a session: the log's columns, then the entity's.

    Arguments are those of `sessionize_sql`. The result is lazy. A log that `check` refuses gives wrong sessions.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a value is invalid.

    Examples:
        >>> sessions = sessionize(log).orderBy("time")
        >>> [(row.event_id, row.session_index, row.event_index) for row in sessions.collect()]
        [('e1', 1, 1), ('e2', 1, 2), ('e3', 2, 1)]

    """
    return _run(sessionize_sql, log, carried, columns, drop_repeats=drop_repeats, **settings)


def carried_state(
    log: DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    carried: DataFrame | None = None,
    drop_repeats: bool = True,
    **settings: Unpack[SessionSettings],
) -> DataFrame:
    """Return each user's state after a log, to be passed as ``carried`` with the next one; see `carried_state_sql`.

    Examples:
        >>> [(row.user_id, row.session_index, row.event_index) for row in carried_state(log).collect()]
        [('anna', 2, 1)]

    """
    return _run(carried_state_sql, log, carried, columns, drop_repeats=drop_repeats, **settings)


def check(log: DataFrame, *, columns: Mapping[str, str] | None = None, carried: DataFrame | None = None) -> None:
    """Read a log, and raise `LogError` if it cannot be sessionized.

    Examples:
        >>> check(log)

    """
    if rows := _run(problems_sql, log, carried, columns).collect():
        raise LogError(tuple(Problem(row["problem"], row["row_count"], (row["example"],)) for row in rows))


def _run(
    query: Callable[..., str],
    log: DataFrame,
    carried: DataFrame | None,
    columns: Mapping[str, str] | None,
    **arguments: Any,  # noqa: ANN401  # those of the query
) -> DataFrame:
    """Run a query of `client_session.sessionize.sql`."""
    frames: dict[str, Any] = {"log": log} if carried is None else {"log": log, "carried": carried}
    names = {name: f"{{{name}}}" for name in frames}
    return log.sparkSession.sql(query("spark", columns=_escaped(columns), **names, **arguments), **frames)


def _escaped(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Check the names of the columns, and double their braces, because Spark replaces what is in braces."""
    return {column: name.replace("{", "{{").replace("}", "}}") for column, name in column_names(columns).items()}
