"""End to end: a log of inputs, sessionized later, has the entities that were handed out live."""

from __future__ import annotations

import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb", reason="needs duckdb")
pytest.importorskip("polars", reason="needs polars")

import duckdb
import polars as pl

from client_session import ClientSession, InputRecord, MemoryStore, SessionContext
from client_session.sessionize import fold, register, sessionize_sql
from client_session.sessionize.polars import sessionize, sessionize_parquet
from client_session.testing import ManualClock, ManualScheduler
from client_session.testing.states import ManualStates
from client_session.verify.polars_sessionizer import log_frame
from client_session.visitors import VisitorSessions
from engines import stores
from event_ids import event_id
from visitor_hosts import BACKGROUND_TIMEOUT, FOREGROUND_TIMEOUT, run_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Row = tuple[Any, ...]
"""An event id, and the event's entity."""
# In floats, 2.007 * 1e6 and 1.00001 * 1e6 are greater than the whole numbers that they should be.
SETTINGS: tuple[dict[str, Any], ...] = (
    {"foreground_timeout": 4, "background_timeout": 1.00001},
    {"foreground_timeout": 2.007, "background_timeout": 1.00001, "extend_on_focus_change": True, "max_duration": 5},
    {"foreground_timeout": 3, "background_timeout": float("inf"), "max_duration": 2.007, "namespace": "shop"},
)


def handed_out(context: SessionContext) -> Row:
    """Return the entity's values, with the time as a number."""
    time = datetime.fromisoformat(str(context.first_event_timestamp))
    ids = (context.user_id, context.session_id, context.previous_session_id)
    return (*ids, context.session_index, context.event_index, context.first_event_id, time)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows in an order that does not depend on how they were found."""
    return sorted(rows, key=repr)


def by_fold(log: list[InputRecord], chosen: dict[str, Any]) -> list[Row]:
    """Sessionize a log with the fold."""
    records = sorted(log, key=lambda record: record.sequence)
    return in_order(
        (
            event.event_id,
            event.user_id,
            event.session_id,
            event.previous_session_id,
            event.session_index,
            event.event_index,
            event.first_event_id,
            event.first_event_timestamp,
        )
        for event in fold(records, **chosen)
    )


COLUMNS = (
    "event_id",
    "user_id",
    "session_id",
    "previous_session_id",
    "session_index",
    "event_index",
    "first_event_id",
    "first_event_timestamp",
)


def by_polars(path: Path, chosen: dict[str, Any]) -> list[Row]:
    """Sessionize a Parquet file with Polars."""
    return in_order(sessionize(pl.scan_parquet(path), **chosen).select(COLUMNS).collect().rows())


def by_polars_in_parts(path: Path, chosen: dict[str, Any]) -> list[Row]:
    """Sessionize a Parquet file to another, in partitions."""
    output = path.with_name("sessions.parquet")
    sessionize_parquet(path, output, partitions=3, **chosen)
    return in_order(pl.read_parquet(output).select(COLUMNS).rows())


def by_duckdb(path: Path, chosen: dict[str, Any]) -> list[Row]:
    """Sessionize a Parquet file with DuckDB."""
    query = sessionize_sql("duckdb", log=f"read_parquet('{path}')", **chosen)
    rows = duckdb.connect().execute(f"SELECT {', '.join(COLUMNS)} FROM ({query})").fetchall()  # noqa: S608  # our own
    return in_order((*row[:-1], row[-1].astimezone(UTC)) for row in rows)


def by_sqlite(path: Path, chosen: dict[str, Any]) -> list[Row]:
    """Sessionize the rows of a Parquet file with SQLite."""
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE log (user_id, time, sequence, input, event_id)")
    log = pl.read_parquet(path).with_columns(pl.col("time").dt.to_string("iso:strict"))
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", log.rows())
    query = sessionize_sql("sqlite", **chosen)
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM ({query})").fetchall()  # noqa: S608  # our own
    return in_order((*row[:-1], datetime.fromisoformat(row[-1])) for row in rows)


ENGINES: tuple[Callable[[Path, dict[str, Any]], list[Row]], ...] = (
    by_polars, by_polars_in_parts, by_duckdb, by_sqlite,
)  # fmt: skip


def assert_engines_give(log: list[InputRecord], rows: list[Row], folder: Path, chosen: dict[str, Any]) -> None:
    """Write a log to Parquet, and compare what each engine makes of it with the entities."""
    path = folder / "log.parquet"
    log_frame(log).sample(fraction=1, shuffle=True, seed=7).write_parquet(path)
    wanted = in_order(rows)
    assert by_fold(log, chosen) == wanted
    for engine in ENGINES:
        assert engine(path, chosen) == wanted, engine


class Visit:
    """Visitors of a shop, the log of their inputs, and the entities that they were handed."""

    def __init__(self, name: str, chosen: dict[str, Any]) -> None:
        """Create the sessions."""
        self.log: list[InputRecord] = []
        self.rows: list[Row] = []
        self._clock = ManualClock()
        self._sessions = VisitorSessions(ManualStates(self._clock), on_input=self.log.append, **chosen)
        self._name, self._forgotten = name, 0
        self._ids: dict[int, list[str]] = {}

    def apply(self, visitor: int, step: str, seconds: float, ago: int) -> None:
        """Apply an input of a visitor, ``seconds`` after the last input."""
        self._clock.advance(seconds)
        session = self._sessions.of(f"{self._name} {visitor} {self._forgotten}")
        match step:
            case "event" | "passive":
                self._track(visitor, str(uuid.uuid4()), extend=step == "event")
            case "repeat":
                if ids := self._ids.get(visitor):
                    self._track(visitor, ids[-min(ago, len(ids))], extend=ago % 2 == 0)
            case "background" | "foreground":
                session.set_background(step == "background")
            case "touch":
                session.touch()
            case "new-session":
                session.start_new_session()
            case "forget":  # the visitors get new keys, as the documentation asks
                session.forget_user()
                self._forgotten += 1
                self._ids.clear()
            case _:
                self._clock.set_wall(self._clock.now() - timedelta(seconds=int(step)))

    def _track(self, visitor: int, identifier: str, *, extend: bool) -> None:
        before = len(self.log)
        session = self._sessions.of(f"{self._name} {visitor} {self._forgotten}")
        context = session.get_session_context(identifier, extend=extend)
        row = None if context is None else (identifier, *handed_out(context))
        if len(self.log) == before:  # the event was sent again, or changes nothing
            assert row is None or row in self.rows
        elif row is not None:
            self.rows.append(row)
            self._ids.setdefault(visitor, []).append(identifier)


STEPS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(
        (*("event",) * 4, "passive", "repeat", "background", "foreground", "touch", "new-session", "forget", "10", "90")
    ),
    st.sampled_from([0, 0, 1e-6, 1, 1.00001, 1.000009, 2.007, 2.006999, 3, 4])
    | st.integers(0, 5_000_000).map(lambda n: n / 1e6),
    st.integers(1, 12),
)


@pytest.mark.parametrize("chosen", SETTINGS)
def test_visitors_logs_have_the_entities_that_were_handed_out(chosen: dict[str, Any], tmp_path: Path) -> None:
    """Visitors' inputs, at any times and with clocks set back, give each event its ids, its indexes and first event."""
    log, rows = list[InputRecord](), list[Row]()

    @settings(max_examples=100, derandomize=True)  # what was drawn is checked below
    @given(st.lists(STEPS, min_size=10, max_size=50))
    def visit(steps: list[tuple[int, str, float, int]]) -> None:
        visitors = Visit(uuid.uuid4().hex, chosen)
        for step in steps:
            visitors.apply(*step)
        assert by_fold(visitors.log, chosen) == in_order(visitors.rows)
        log.extend(visitors.log)
        rows.extend(visitors.rows)

    visit()
    assert {record.input for record in log} >= {"clock", "forget", "passive", "touch", "new-session"}
    assert max(row[COLUMNS.index("session_index")] for row in rows) > 3
    assert_engines_give(log, rows, tmp_path, chosen)


@pytest.mark.parametrize(("seconds", "sessions"), [(1.000009, 1), (1.00001, 2)])
def test_limits_are_reached_at_the_same_microsecond(seconds: float, sessions: int) -> None:
    """Live and offline, a timeout is over after exactly its number of microseconds."""
    visit = Visit("anna", SETTINGS[0])
    visit.apply(0, "event", 0, 0)
    visit.apply(0, "background", 0, 0)
    visit.apply(0, "event", seconds, 0)
    assert [row[COLUMNS.index("session_index")] for row in visit.rows] == [1, sessions]
    assert by_fold(visit.log, SETTINGS[0]) == in_order(visit.rows)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterable[int | Path]:
    """Yield the port of a running server, or a path for SQLite."""
    kind: str = request.getfixturevalue("kind")
    running = stores.Servers()
    yield tmp_path / "visitors.db" if kind == "sqlite" else running.get(stores.server_name(kind)).port
    running.close()


@pytest.mark.engines
@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_many_processes_logs_have_the_entities_that_were_handed_out(
    kind: str, place: int | Path, tmp_path: Path
) -> None:
    """Four processes apply inputs of the same visitors; their logs, put together, give each event its entity."""
    total = run_hosts(kind, place, visitors=20, inputs=200, hosts=4, namespace="shop")
    rows = [(identifier, *handed_out(context)) for identifier, context in total.answers if context is not None]
    chosen = {
        "foreground_timeout": FOREGROUND_TIMEOUT,
        "background_timeout": BACKGROUND_TIMEOUT,
        "namespace": "shop",
    }
    assert len(rows) > 300
    assert_engines_give(total.inputs, rows, tmp_path, chosen)


CLIENT_STEPS = st.tuples(
    st.sampled_from(
        (
            *("event",) * 4,
            "passive",
            "background",
            "foreground",
            "touch",
            "new-session",
            "stop-checker",
            "start-checker",
            "forget",
            "restart",
            "tick",
        )
    ),
    st.sampled_from([0.25, 1.0, 2.0, 3.75, 4.0, 5.5]),
)


@pytest.mark.parametrize("more", [{}, {"extend_on_focus_change": True, "max_duration": 8}])
def test_a_program_s_log_has_the_sessions_that_it_had(more: dict[str, Any], tmp_path: Path) -> None:
    """A program's runs give each event its partition, indexes and first event, also after its user is forgotten."""
    chosen = {"foreground_timeout": 4, "background_timeout": 2, **more}
    log, rows, number = list[InputRecord](), list[Row](), iter(range(10**9))

    @settings(max_examples=100, derandomize=True)  # what was drawn is checked below
    @given(st.lists(CLIENT_STEPS, min_size=10, max_size=40))
    def run(steps: list[tuple[str, float]]) -> None:
        clock, store, contexts = ManualClock(), MemoryStore(), list[tuple[str, SessionContext]]()
        start = len(log)

        def begin() -> ClientSession:
            return ClientSession(store=store, clock=clock, scheduler=ManualScheduler(), on_input=log.append, **chosen)

        session = begin()
        for step, seconds in steps:
            clock.advance(seconds)
            match step:
                case "event" | "passive":
                    identifier = event_id(next(number))
                    if (context := session.get_session_context(identifier, extend=step == "event")) is not None:
                        contexts.append((identifier, context))
                case "background" | "foreground":
                    session.set_background(step == "background")
                case "restart":
                    session.close()
                    session = begin()
                case _:
                    names = {"new-session": "start_new_session", "forget": "forget_user"}
                    getattr(session, names.get(step, step.replace("-", "_")))()
        session.close()
        found = by_fold_of_runs(log[start:], chosen)
        wanted = [(identifier, *handed_out(context)) for identifier, context in contexts]
        assert without_session_ids(found) == without_session_ids(wanted)
        rows.extend(wanted)

    run()
    assert {record.input for record in log} >= {"start", "forget", "passive", "stop-checker", "background"}
    path = tmp_path / "log.parquet"
    log_frame(log).write_parquet(path)
    for engine in ENGINES:
        assert without_session_ids(engine(path, chosen)) == without_session_ids(rows), engine


def by_fold_of_runs(log: list[InputRecord], chosen: dict[str, Any]) -> list[Row]:
    """Sessionize a log of runs, each of which numbers its records from 0."""
    records = sorted(log, key=lambda record: (record.time, record.sequence))
    ordered = [attrs.evolve(record, sequence=number) for number, record in enumerate(records)]
    return by_fold(ordered, chosen)


def without_session_ids(rows: Iterable[Row]) -> list[Row]:
    """Replace each session id with the session's first event, because the ids of a `ClientSession` are random."""
    listed = list(rows)
    first_events = {row[2]: row[6] for row in listed}
    return in_order((*row[:2], first_events[row[2]], row[3] and first_events[row[3]], *row[4:]) for row in listed)
