"""The sessionizers that must equal the fold: a query on SQLite and, if they are installed, DuckDB and Polars."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from client_session.sessionize.sql import carried_state_sql, sessionize_sql
from client_session.verify import offline, sql_engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_session.input_log import InputRecord
    from client_session.sessionize.fold import SessionizedEvent, UserState
    from client_session.verify.sql_engines import Engine


class Sessionizer(Protocol):
    """Sessionizes logs of any order of rows. ``settings`` are the arguments of `Fold`."""

    @property
    def name(self) -> str:
        """The name of the engine."""
        ...

    def run(
        self, records: Sequence[InputRecord], settings: dict[str, Any], carried: Sequence[UserState] = ()
    ) -> tuple[list[SessionizedEvent], list[UserState]]:
        """Return the log's events, by user and sequence, and the states after it, by user."""
        ...


class FoldSessionizer:
    """Runs the fold, which must also equal itself in two parts."""

    @property
    def name(self) -> str:
        """The name of the engine."""
        return "fold"

    def run(
        self, records: Sequence[InputRecord], settings: dict[str, Any], carried: Sequence[UserState] = ()
    ) -> tuple[list[SessionizedEvent], list[UserState]]:
        """Return the log's events, by user and sequence, and the states after it, by user."""
        in_order = sorted(records, key=lambda record: (record.user_id, record.sequence))
        events, states = offline.expected(in_order, offline.LogSettings(**settings), carried)
        return events, sorted(states, key=lambda state: state.user_id)


@attrs.frozen
class SqlSessionizer:
    """Runs the queries of `client_session.sessionize.sql` on an engine."""

    engine: Engine

    @property
    def name(self) -> str:
        """The dialect's name."""
        return self.engine.dialect

    def run(
        self, records: Sequence[InputRecord], settings: dict[str, Any], carried: Sequence[UserState] = ()
    ) -> tuple[list[SessionizedEvent], list[UserState]]:
        """Return the log's events, by user and sequence, and the states after it, by user."""
        table = "carried" if carried else None
        sql_engines.load(self.engine, records, carried)
        events = sql_engines.events(self.engine, sessionize_sql(self.name, carried=table, **settings))
        return events, sql_engines.states(self.engine, carried_state_sql(self.name, carried=table, **settings))


def installed() -> list[Sessionizer]:
    """Return the sessionizers that can run in this process."""
    found: list[Sessionizer] = [SqlSessionizer(sql_engines.SqliteEngine())]
    if importlib.util.find_spec("duckdb"):
        found.append(SqlSessionizer(sql_engines.DuckDbEngine()))
    if importlib.util.find_spec("polars") and importlib.util.find_spec("polars_hash"):
        from client_session.verify.polars_sessionizer import PolarsSessionizer  # noqa: PLC0415  # needs both

        found.append(PolarsSessionizer())
    return found
