"""Sessionizing DataFrames of Spark equals the fold, in a batch and in a stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from client_session.input_log import REMEMBERED_EVENTS, InputRecord
from client_session.sessionize import fold
from client_session.sessionize.errors import LogError
from client_session.sessionize.settings import ENTITY_COLUMNS, LOG_COLUMNS
from client_session.verify.offline import SETTINGS, expected
from engines.spark import environment, run_spark, skip_without_spark
from test_sessionize_sql import MIDNIGHT, many_random_logs, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyspark.sql import DataFrame, SparkSession

    from client_session.sessionize import SessionizedEvent
    from client_session.verify.offline import LogSettings

pytestmark = pytest.mark.engines

STREAM = Path(__file__).parents[1] / "examples" / "spark_streaming.py"
NAMES = {"user_id": "{user}", "time": "{{at}}", "sequence": "a `number`", "input": "select", "event_id": "e.id"}
WAIT_SECONDS = 900


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """Run Spark."""
    with run_spark() as session:
        yield session


def frame(spark: SparkSession, records: Iterable[InputRecord], names: Iterable[str] = LOG_COLUMNS) -> DataFrame:
    """Return a log as a DataFrame."""
    types = ("STRING", "TIMESTAMP", "BIGINT", "STRING", "STRING")
    schema = ", ".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in zip(names, types, strict=True))
    return spark.createDataFrame([attrs.astuple(record) for record in records], schema).coalesce(1)


def rows_of(result: DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows, with times in UTC, in the order of users and sequences."""
    rows = (
        tuple(value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in row)
        for row in result.collect()
    )
    return sorted(rows, key=lambda row: (row[0], row[2]))


def in_order(events: Iterable[SessionizedEvent]) -> list[tuple[Any, ...]]:
    """Return the events as rows, in the order of users and sequences."""
    return sorted((attrs.astuple(event) for event in events), key=lambda row: (row[0], row[2]))


@pytest.mark.xdist_group("spark")
@pytest.mark.parametrize("chosen", [SETTINGS[1], SETTINGS[4]])
def test_dataframes_equal_the_fold(spark: SparkSession, chosen: LogSettings, tmp_path: Path) -> None:
    """DataFrames with columns of any names, the two parts of a log, give the fold's events and carried states."""
    from client_session.sessionize.spark import carried_state, check, sessionize  # noqa: PLC0415  # needs pyspark

    records = many_random_logs(25)
    arguments: dict[str, Any] = {**attrs.asdict(chosen), "columns": NAMES}
    first, second = (frame(spark, shuffled(half), NAMES.values()) for half in (records[:200], records[200:]))
    check(first, columns=NAMES)
    carried_state(first, **arguments).write.parquet(str(tmp_path / "states"))
    carried = spark.read.parquet(str(tmp_path / "states"))
    results = [sessionize(first, **arguments), sessionize(second, carried=carried, **arguments)]
    assert [result.columns for result in results] == [[*NAMES.values(), *ENTITY_COLUMNS]] * 2
    found = sorted((row for result in results for row in rows_of(result)), key=lambda row: (row[0], row[2]))
    assert found == in_order(expected(records, chosen)[0])
    states = [
        (*row[:-REMEMBERED_EVENTS], tuple(filter(None, row[-REMEMBERED_EVENTS:])))
        for row in rows_of(carried_state(second, carried=carried, **arguments))
    ]
    wanted_states = sorted(expected(records, chosen)[1], key=lambda state: state.user_id)
    assert states == [attrs.astuple(state) for state in wanted_states]


@pytest.mark.xdist_group("spark")
def test_bad_logs_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    """An unknown input, an event without an id, and a row before the carried state are errors with counts."""
    from client_session.sessionize.spark import carried_state, check  # noqa: PLC0415  # needs pyspark

    good = [InputRecord("u", MIDNIGHT + timedelta(seconds=number), number, "event", f"e{number}") for number in (1, 2)]
    bad = [InputRecord("u", MIDNIGHT, 0, "evnt"), InputRecord("u", MIDNIGHT, 1, "event")]
    carried_state(frame(spark, good)).write.parquet(str(tmp_path / "states"))
    carried = spark.read.parquet(str(tmp_path / "states"))
    check(frame(spark, good))
    with pytest.raises(TypeError, match=r"columns must be a mapping such as .*, or None, not 'user_id=who'"):
        check(frame(spark, good), columns="user_id=who")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(LogError) as refused:
        check(frame(spark, bad), carried=carried)
    found = {problem.description.split(",")[0]: problem.count for problem in refused.value.problems}
    assert found == {"input is not one of start": 1, "event_id of an event is null or empty": 1}
    with pytest.raises(LogError, match=r"time is before the end of the carried state: 1, such as u, .*, 1, event, e1"):
        check(frame(spark, good), carried=carried)


def test_a_stream_equals_the_fold(tmp_path: Path) -> None:
    """The streaming example gives what the fold gives, though rows arrive out of order and in different batches."""
    import duckdb  # noqa: PLC0415  # it may be missing

    skip_without_spark()
    for package in ("pandas", "google.protobuf"):
        pytest.importorskip(package, reason=f"needs {package}")
    steps = [
        *[(0, "event"), (60, "passive"), (90, "background"), (380, "event"), (400, "foreground"), (999, "event")],
        *[(1000, "stop-checker"), (2000, "event"), (2500, "new-session"), (2501, "event")],
    ]
    records = [
        InputRecord(user, MIDNIGHT + timedelta(seconds=seconds), number, given, f"{user}{number}")
        for user in ("anna", "ben")
        for number, (seconds, given) in enumerate(steps)
    ]
    late = [record for record in records if record.sequence in {1, 4}]
    early = [record for record in records if record.sequence in {0, 2, 3, 5}]
    rest = [record for record in records if record.sequence > 5]
    end = [InputRecord("end", MIDNIGHT + timedelta(days=1), 0, "event", "end")]  # moves the watermark
    (tmp_path / "log").mkdir()
    for number, batch in enumerate([early, late, shuffled(rest), end]):
        file = tmp_path / "log" / f"{number}.json"
        file.write_text("".join(f"{record.to_json()}\n" for record in batch), encoding="utf-8")
        os.utime(file, (number, number))  # Spark reads the oldest file first

    run = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, STREAM, "log", "out", "checkpoint", "--files", "1"],
        cwd=tmp_path,
        env={**os.environ, **environment(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    columns = [*LOG_COLUMNS, *ENTITY_COLUMNS]
    found = duckdb.execute(
        f"SELECT {', '.join(columns)} FROM '{tmp_path}/out/*.parquet' ORDER BY user_id, sequence"  # noqa: S608
    ).fetchall()
    wanted = in_order(fold(records))
    assert json.loads(json.dumps(found, default=str)) == json.loads(json.dumps(wanted, default=_naive))


def _naive(time: datetime) -> str:
    return str(time.replace(tzinfo=None))
