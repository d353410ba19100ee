"""Sessionizing in SQL equals the fold, on every engine, in one run and in parts."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from client_session.input_log import InputRecord
from client_session.sessionize import carried_state_sql, problems_sql, register, sessionize_sql
from client_session.sessionize.sql_dialects import TABLES
from client_session.verify import sql_engines
from client_session.verify.offline import SETTINGS, LogSettings, distinct_logs, expected, random_logs
from engines import servers
from engines.spark import run_spark
from engines.sql import PostgresEngine, SparkEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_session.verify.sql_engines import Engine

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
DIALECTS = ("sqlite", "duckdb", "postgres", "spark")


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    """Map a dialect to its engine, for those that need no server."""
    pytest.importorskip("duckdb", reason="needs duckdb")
    return {"sqlite": sql_engines.SqliteEngine(), "duckdb": sql_engines.DuckDbEngine()}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Engine]:
    """Run PostgreSQL."""
    if servers.postgres_program("initdb") is None:
        pytest.skip("needs PostgreSQL")
    with servers.run_postgres() as server, contextlib.closing(PostgresEngine(server.port)) as engine:
        yield engine


@pytest.fixture(scope="module")
def spark() -> Iterator[Engine]:
    """Run Spark in local mode."""
    with run_spark() as session:
        yield SparkEngine(session)


def shuffled(records: list[InputRecord]) -> list[InputRecord]:
    """Return a log in another order."""
    return random.Random(7).sample(records, len(records))  # noqa: S311  # not secret


def arguments(chosen: LogSettings) -> dict[str, Any]:
    """Return the settings as arguments of the queries."""
    return attrs.asdict(chosen)


def assert_equals_fold(engine: Engine, records: list[InputRecord], chosen: LogSettings) -> None:
    """Compare events and states with those of the fold."""
    wanted_events, wanted_states = expected(records, chosen)
    sql_engines.load(engine, shuffled(records))
    events = sql_engines.events(engine, sessionize_sql(engine.dialect, **arguments(chosen)))
    assert events == sorted(wanted_events, key=lambda event: (event.user_id, event.sequence))
    states = sql_engines.states(engine, carried_state_sql(engine.dialect, **arguments(chosen)))
    assert states == sorted(wanted_states, key=lambda state: state.user_id)


def assert_parts_equal_whole(engine: Engine, records: list[InputRecord], at: int, chosen: LogSettings) -> None:
    """Sessionize a log in two parts, and compare with the fold of the whole log."""
    wanted_events, wanted_states = expected(records, chosen)
    first, second = records[:at], records[at:]
    sql_engines.load(engine, shuffled(first))
    events = sql_engines.events(engine, sessionize_sql(engine.dialect, **arguments(chosen)))
    carried = sql_engines.states(engine, carried_state_sql(engine.dialect, **arguments(chosen)))
    sql_engines.load(engine, shuffled(second), carried)
    events += sql_engines.events(engine, sessionize_sql(engine.dialect, carried="carried", **arguments(chosen)))
    assert sorted(events, key=lambda event: (event.user_id, event.sequence)) == sorted(
        wanted_events, key=lambda event: (event.user_id, event.sequence)
    )
    states = sql_engines.states(engine, carried_state_sql(engine.dialect, carried="carried", **arguments(chosen)))
    assert states == sorted(wanted_states, key=lambda state: state.user_id)


def many_random_logs(count: int) -> list[InputRecord]:
    """Return a log of many users, drawn at random but always the same."""
    records: list[InputRecord] = []

    @settings(max_examples=count, database=None, derandomize=True, deadline=None)
    @given(random_logs(max_size=25))
    def collect(log: list[InputRecord]) -> None:
        number = len(records)
        records.extend(attrs.evolve(record, user_id=f"{number}-{record.user_id}") for record in log)

    collect()
    return records


@pytest.mark.parametrize("chosen", SETTINGS)
@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_every_short_log_equals_the_fold(engines: dict[str, Engine], dialect: str, chosen: LogSettings) -> None:
    """All distinct logs of three inputs, over all kinds and gaps up to the longest limit, equal the fold."""
    assert_equals_fold(engines[dialect], [record for log in distinct_logs(3, chosen) for record in log], chosen)


@pytest.mark.parametrize("chosen", SETTINGS)
@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_random_logs_equal_the_fold(engines: dict[str, Engine], dialect: str, chosen: LogSettings) -> None:
    """Random logs with ties, repeated ids and clocks that are set back equal the fold, whole and in two parts."""
    records = many_random_logs(80)
    assert_equals_fold(engines[dialect], records, chosen)
    assert_parts_equal_whole(engines[dialect], records, len(records) // 2, chosen)


def assert_indexes_are_bigint(engine: Engine, type_of: str, chosen: LogSettings) -> None:
    """Check the types of the indexes in both queries, without and with carried states."""
    records = many_random_logs(40)
    middle = len(records) // 2
    sql_engines.load(engine, records[middle:], expected(records[:middle], chosen)[1])
    types = f"{type_of.format('session_index')}, {type_of.format('event_index')}"
    for sql in (sessionize_sql, carried_state_sql):
        for carried in (None, "carried"):
            query = sql(engine.dialect, carried=carried, **arguments(chosen))
            found = engine.query(f"SELECT DISTINCT {types} FROM ({query}) AS result")  # noqa: S608  # our own query
            assert found == [("bigint", "bigint")]


@pytest.mark.parametrize("chosen", SETTINGS)
def test_indexes_on_duckdb_are_bigint(engines: dict[str, Engine], chosen: LogSettings) -> None:
    """Indexes are 64-bit integers, as in Polars. DuckDB's sums have 128 bits, which become floats in Parquet."""
    assert_indexes_are_bigint(engines["duckdb"], "lower(typeof({}))", chosen)


@pytest.mark.engines
@pytest.mark.parametrize("chosen", SETTINGS)
def test_indexes_on_postgres_are_bigint(postgres: Engine, chosen: LogSettings) -> None:
    """Indexes are 64-bit integers."""
    assert_indexes_are_bigint(postgres, "CAST(pg_typeof({}) AS text)", chosen)


@settings(max_examples=40, deadline=None)
@given(records=random_logs(), chosen=st.sampled_from(SETTINGS), data=st.data())
def test_parts_equal_the_whole(records: list[InputRecord], chosen: LogSettings, data: st.DataObject) -> None:
    """A log that is sessionized in two parts, divided anywhere, gives what the fold gives for the whole log."""
    at = data.draw(st.integers(0, len(records)))
    assert_parts_equal_whole(sql_engines.SqliteEngine(), records, at, chosen)


@pytest.mark.engines
@pytest.mark.parametrize("chosen", SETTINGS)
def test_logs_on_postgres_equal_the_fold(postgres: Engine, chosen: LogSettings) -> None:
    """On PostgreSQL, short logs and random logs equal the fold, whole and in two parts."""
    assert_equals_fold(postgres, [record for log in distinct_logs(3, chosen) for record in log], chosen)
    records = many_random_logs(80)
    assert_equals_fold(postgres, records, chosen)
    assert_parts_equal_whole(postgres, records, len(records) // 2, chosen)


@pytest.mark.parametrize("carried", [None, "carried"])
@pytest.mark.parametrize("max_duration", [None, 3])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_queries_parse(dialect: str, max_duration: float | None, carried: str | None) -> None:
    """Each query is one statement of its dialect."""
    for function in (sessionize_sql, carried_state_sql):
        text = function(dialect, max_duration=max_duration, carried=carried)
        assert len(sqlglot.parse(text, dialect=dialect)) == 1
    assert len(sqlglot.parse(problems_sql(dialect, carried=carried), dialect=dialect)) == 1


def test_names_of_the_query_s_tables_are_refused() -> None:
    """A log with the name of a table of the query must be read with its schema, since engines would read the other."""
    defined: set[str] = set()
    for dialect, max_duration, carried in itertools.product(DIALECTS, (None, 3), (None, "states")):
        given_arguments: dict[str, Any] = {"max_duration": max_duration, "carried": carried}
        for text in (
            sessionize_sql(dialect, extend_on_focus_change=True, **given_arguments),
            carried_state_sql(dialect, **given_arguments),
            problems_sql(dialect),
        ):
            defined |= set(
                re.findall(r"^(?:WITH (?:RECURSIVE )?)?(\w+) AS(?: NOT MATERIALIZED)? \(", text, re.MULTILINE)
            )
    assert defined - {"so_far", "session"} == TABLES
    for log in ("inputs", '"Inputs"', "(SELECT * FROM ordered)", "a JOIN known USING (id)"):
        with pytest.raises(ValueError, match="since the query defines one; add the schema"):
            sessionize_sql("sqlite", log=log)
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE inputs (user_id, time, sequence, input, event_id)")
    connection.execute("INSERT INTO inputs VALUES ('u', '2026-01-01T00:00:00Z', 1, 'event', 'e')")
    assert len(connection.execute(sessionize_sql("sqlite", log="main.inputs")).fetchall()) == 1


def test_columns_are_renamed_and_quoted() -> None:
    """A log's columns may have any names, which the result has too."""
    names = {"user_id": 'a "user"', "time": "select", "sequence": "a;b", "input": "Größe", "event_id": "e--"}
    connection = sqlite3.connect(":memory:")
    register(connection)
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names.values()]
    connection.execute(f'CREATE TABLE "my log" ({", ".join(quoted)})')
    connection.execute('INSERT INTO "my log" VALUES (?, ?, ?, ?, ?)', ("u", "2026-01-01T00:00:00Z", 1, "event", "e1"))
    cursor = connection.execute(sessionize_sql("sqlite", log='"my log"', columns=names))
    assert [column[0] for column in cursor.description][:5] == list(names.values())
    assert cursor.fetchall()[0][:5] == ("u", "2026-01-01T00:00:00Z", 1, "event", "e1")


def test_without_the_search_repeats_are_counted(engines: dict[str, Engine]) -> None:
    """Without drop_repeats, an event that is sent again is counted again."""
    records = [InputRecord("u", MIDNIGHT + timedelta(seconds=number), number, "event", "same") for number in range(3)]
    for dialect, engine in engines.items():
        sql_engines.load(engine, records)
        counts = [len(engine.query(sessionize_sql(dialect, drop_repeats=drop))) for drop in (True, False)]
        assert counts == [1, 3]


def problem_rows() -> list[tuple[Any, ...]]:
    """Return a log with every problem."""
    return [
        (None, MIDNIGHT, 1, "event", "a"),
        ("", MIDNIGHT, 2, "event", "b"),
        ("u", None, 3, "event", "c"),
        ("u", MIDNIGHT, None, "event", "d"),
        ("u", MIDNIGHT, 5, None, None),
        ("u", MIDNIGHT, 6, "evnt", "e"),
        ("u", MIDNIGHT, 7, "event", None),
        ("u", MIDNIGHT, 8, "passive", ""),
        ("v", MIDNIGHT, 9, "event", "f"),
        ("v", MIDNIGHT, 9, "event", "g"),
        ("w", MIDNIGHT, 9, "event", "h"),
        ("w", MIDNIGHT, 9, "event", "h"),
    ]


def found_problems(engine: Engine) -> dict[str, int]:
    """Return the problems and their counts."""
    engine.load(problem_rows(), [])
    found = engine.query(problems_sql(engine.dialect))
    assert all(example for _, _, example in found)
    return {problem: count for problem, count, _ in found}


PROBLEMS = {
    "event_id of an event is null or empty": 2,
    "input is null": 1,
    "rows that differ have the same user_id, time and sequence": 1,
    "sequence is null": 1,
    "time is null or not a time": 1,
    "user_id is null or empty": 2,
}


def assert_ids_may_be_integers(engine: Engine) -> None:
    """Sessionize a log whose ids are integers, and count its problems."""
    records = [InputRecord("", MIDNIGHT + timedelta(seconds=number), number, "event", "") for number in range(3)]
    sql_engines.load(engine, records)
    log = "(SELECT 7 AS user_id, time, sequence, input, NULLIF(sequence, 2) AS event_id FROM log) AS given"
    query = sessionize_sql(engine.dialect, log=log)
    rows = engine.query(f"SELECT user_id, first_event_id, event_index FROM ({query}) AS result ORDER BY event_index")  # noqa: S608
    assert rows == [(7, 0, 1), (7, 0, 2), (7, 0, 3)]
    found = engine.query(problems_sql(engine.dialect, log=log))
    assert [row[:2] for row in found] == [("event_id of an event is null or empty", 1)]


def test_ids_may_be_integers(engines: dict[str, Engine]) -> None:
    """The queries accept integers as ids."""
    for engine in engines.values():
        assert_ids_may_be_integers(engine)


@pytest.mark.engines
def test_ids_on_postgres_may_be_integers(postgres: Engine) -> None:
    """The queries accept integers as ids."""
    assert_ids_may_be_integers(postgres)


def test_problems_are_counted(engines: dict[str, Engine]) -> None:
    """The query for problems counts each of them, and shows an example."""
    for engine in engines.values():
        found = found_problems(engine)
        unknown = {name for name in found if name.startswith("input is not one of event")} or {
            name for name in found if name.startswith("input is not one of")
        }
        assert found == PROBLEMS | dict.fromkeys(unknown, 1)
        assert len(unknown) == 1
        sql_engines.load(engine, [InputRecord("u", MIDNIGHT, 1, "event", "a")])
        assert engine.query(problems_sql(engine.dialect)) == []


def test_texts_that_are_not_times_are_problems() -> None:
    """In SQLite, where times are text, one that does not parse is a problem."""
    engine = sql_engines.SqliteEngine()
    engine.load([("u", "yesterday", 1, "event", "a"), ("u", "2026-01-01", 2, "event", "b")], [])
    assert engine.query(problems_sql("sqlite")) == [("time is null or not a time", 1, "u, yesterday, 1, event, a")]


def test_times_are_text_or_microseconds_in_sqlite() -> None:
    """In SQLite, times are text, in UTC unless they say otherwise, or microseconds since 1970."""
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE log (user_id, time, sequence, input, event_id)")
    times = (1_767_225_600_000_000, "2026-01-01 00:09:59", "2026-01-01T01:19:58.5+01:00", "2026-01-01T00:29:58.500Z")
    rows = [("u", time, number, "event", f"e{number}") for number, time in enumerate(times)]
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", rows)
    found = connection.execute(sessionize_sql("sqlite")).fetchall()
    assert sorted((row[4], row[7]) for row in found) == [("e0", 1), ("e1", 1), ("e2", 1), ("e3", 2)]


@pytest.mark.engines
def test_problems_on_postgres_are_counted(postgres: Engine) -> None:
    """On PostgreSQL, the query for problems counts each of them."""
    assert found_problems(postgres).items() >= PROBLEMS.items()


@pytest.mark.engines
@pytest.mark.xdist_group("spark")  # starts Java once
def test_problems_on_spark_are_counted(spark: Engine) -> None:
    """On Spark, the query for problems counts each of them."""
    assert found_problems(spark).items() >= PROBLEMS.items()


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        ({"dialect": "oracle"}, "dialect must be one of sqlite, duckdb, postgres, spark, not 'oracle'"),
        ({"log": ""}, "log must be the text of a table or a subquery, not ''"),
        ({"log": 3}, "log must be the text of a table or a subquery, not 3"),
        ({"columns": {"user": "u"}}, "columns may rename user_id, time, sequence, input, event_id, not 'user'"),
        ({"columns": {"user_id": ""}}, r"columns\['user_id'\] must be the name of a column, not ''"),
        ({"columns": {"user_id": "time"}}, "must differ from each other and from the entity's: time"),
        ({"columns": "user_id=who"}, "columns must be a mapping such as .*, or None, not 'user_id=who'"),
        ({"columns": []}, r"columns must be a mapping such as {\"user_id\": \"who\"}, or None, not \[\]"),
        ({"foreground_timeout": 0}, "foreground_timeout must be greater than 0 seconds"),
        ({"namespace": "a b"}, "namespace must have 1 to 64 printable ASCII characters"),
        ({"timeout": 600}, "timeout is not an argument; the settings are foreground_timeout, background_timeout, max_"),
        ({"drop_repeats": 1}, "drop_repeats must be True or False, not 1"),
        ({"carried": " "}, "carried must be the text of a table or a subquery, not ' '"),
    ],
)
def test_wrong_arguments_are_refused(given_arguments: dict[str, Any], message: str) -> None:
    """A wrong argument raises an error that says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        sessionize_sql(given_arguments.pop("dialect", "sqlite"), **given_arguments)
