"""What sessionizing a log costs in Polars, DuckDB and Spark, compared with the usual queries and with `Fold`.

All of them read the same log, in alternating rounds. The limits apply to the CPU time, which other programs hardly
change. ``python -m benchmarks.sessionize LOG OUTPUT`` sessionizes a Parquet file, and
prints what it took as JSON; `measure_parquet` runs it in a separate process, so that nothing else takes memory.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import duckdb
import polars as pl
import psutil

from benchmarks import gaps
from benchmarks.logs import HEAVY_PERCENT, write_log
from benchmarks.results import Bar, Row
from client_session.input_log import InputRecord
from client_session.sessionize import Fold, sessionize_sql
from client_session.sessionize.polars import sessionize, sessionize_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import DataFrame, SparkSession

VERSIONED = tuple(name for name in ("polars", "duckdb", "pyspark") if importlib.util.find_spec(name))
ROUNDS = 2
FOLD_USERS = 1000
PARQUET_ROWS = 100_000_000
MAX_DURATION = 1800
GAPS, BY_KEY, SKEWED = "gap query", "gap query with the same sort", f"{HEAVY_PERCENT}% of rows from one user"
OURS, REPEATS, LIMIT, IDS = "default", "without drop_repeats", "with max_duration", "with ids"
SAME_SORT = "default, same sort"
USUAL_LOG = "the usual log"
_WITHOUT_IDS = ", ".join(gaps.COLUMNS)


@attrs.frozen
class Figures:
    """The seconds that a task took in each round."""

    cpu: list[float] = attrs.Factory(list)
    """CPU seconds of this process and its child processes, such as Spark's."""
    elapsed: list[float] = attrs.Factory(list)


def measure(rows: int = 10_000_000) -> list[Row]:
    """Measure Polars and DuckDB, on logs of this size."""
    with tempfile.TemporaryDirectory() as name:
        usual, skewed = Path(name, "usual.parquet"), Path(name, "skewed.parquet")
        with open_duckdb(Path(name)) as connection:
            write_log(connection, usual, rows)
            write_log(connection, skewed, rows, is_skewed=True)
        return [*measure_polars(usual, skewed), *measure_duckdb(usual, skewed, Path(name))]


def measure_spark(rows: int = 10_000_000) -> list[Row]:
    """Measure Spark on a log of this size, if it is installed."""
    if not (importlib.util.find_spec("pyspark") and shutil.which("java")):
        print("Skipped Spark: pyspark or Java is not installed", file=sys.stderr)  # noqa: T201  # for the terminal
        return []
    with tempfile.TemporaryDirectory() as name:
        usual = Path(name, "usual.parquet")
        with open_duckdb(Path(name)) as connection:
            write_log(connection, usual, rows)
        return run_spark(usual)


def measure_polars(usual: Path, skewed: Path) -> list[Row]:
    """Measure Polars, on logs in memory, and the fold of some of the users."""
    log, skewed_log = (pl.read_parquet(path) for path in (usual, skewed))
    records = sample(log)
    without_ids = pl.exclude("session_id", "previous_session_id")
    figures = alternate(
        {
            GAPS: lambda: gaps.polars(log),
            BY_KEY: lambda: gaps.polars_by_key(log),
            OURS: lambda: sessionize(log).select(without_ids).collect(),
            REPEATS: lambda: sessionize(log, drop_repeats=False).select(without_ids).collect(),
            LIMIT: lambda: sessionize(log, max_duration=MAX_DURATION).select(without_ids).collect(),
            IDS: lambda: sessionize(log).collect(),
            SKEWED: lambda: sessionize(skewed_log).select(without_ids).collect(),
            "fold": lambda: fold(records),
        },
    )
    rows = [
        *compared("Polars", figures, OURS, GAPS, Bar(1.8)),
        compared("Polars", figures, OURS, BY_KEY, Bar(1.8))[0],
        *(compared("Polars", figures, name, GAPS)[0] for name in (REPEATS, LIMIT, IDS)),
        compared("Polars", figures, SKEWED, OURS, Bar(2))[0],
    ]
    ours, reference = (
        [seconds * 1e6 / count for seconds in figures[name].cpu]
        for name, count in ((IDS, log.height), ("fold", len(records)))
    )
    bar = Bar(5, at_least=True)
    return [
        *rows,
        Row.of_rounds("Polars, with ids, per row", ours, reference, against="fold", unit="µs", bar=bar, speedup=True),
    ]


def sample(log: pl.DataFrame) -> list[InputRecord]:
    """Return the inputs of some users in order, as `Fold` needs them."""
    users = log["user_id"].unique(maintain_order=True).head(FOLD_USERS)
    found = log.filter(pl.col("user_id").is_in(users.implode())).sort("user_id", "time", "sequence")
    return [InputRecord(*row) for row in found.iter_rows()]


def fold(records: list[InputRecord]) -> int:
    """Fold inputs, and return how many events belong to a session."""
    fold = Fold()
    return sum(fold.add(record) is not None for record in records)


@contextlib.contextmanager
def open_duckdb(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory, which may use a folder for what does not fit."""
    with duckdb.connect(config={"temp_directory": str(folder / "spilled")}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def measure_duckdb(usual: Path, skewed: Path, folder: Path) -> list[Row]:
    """Measure DuckDB, from table to table."""
    with open_duckdb(folder) as connection:
        for name, path in (("log", usual), ("skewed", skewed)):
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{path}')")

        def task(query: str) -> Callable[[], object]:
            query = f"CREATE OR REPLACE TEMP TABLE result AS SELECT {_WITHOUT_IDS} FROM ({query})"
            return lambda: connection.execute(query)

        figures = alternate(
            {
                GAPS: task(gaps.SQL),
                OURS: task(sessionize_sql("duckdb")),
                REPEATS: task(sessionize_sql("duckdb", drop_repeats=False)),
                LIMIT: task(sessionize_sql("duckdb", max_duration=MAX_DURATION)),
                SKEWED: task(sessionize_sql("duckdb", log="skewed")),
            },
        )
    return [
        *compared("DuckDB", figures, OURS, GAPS, Bar(2.4)),
        compared("DuckDB", figures, LIMIT, GAPS, Bar(3))[0],
        compared("DuckDB", figures, REPEATS, GAPS)[0],
        compared("DuckDB", figures, SKEWED, OURS, Bar(2))[0],
    ]


@contextlib.contextmanager
def open_spark() -> Iterator[SparkSession]:
    """Run Spark on the cores of this machine."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  # it may be missing

    cores = os.cpu_count() or 1
    options = {
        "spark.sql.shuffle.partitions": 2 * cores,
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "4g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master(f"local[{cores}]")
    for name, value in options.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def run_spark(usual: Path) -> list[Row]:
    """Measure Spark, from Parquet to nothing. Each query has run before, so that its code has been compiled."""
    with open_spark() as spark:
        log = spark.read.parquet(str(usual))
        queries = {
            GAPS: gaps.SQL,
            OURS: sessionize_sql("spark"),
            LIMIT: sessionize_sql("spark", max_duration=MAX_DURATION),
        }

        def run(query: str, frame: DataFrame) -> None:
            frame.createOrReplaceTempView("log")
            found = spark.sql(f"SELECT {_WITHOUT_IDS} FROM ({query})")
            found.write.format("noop").mode("overwrite").save()

        for query in queries.values():
            run(query, log.limit(100_000))
        figures = alternate({name: functools.partial(run, query, log) for name, query in queries.items()})
    return [
        *compared("Spark", figures, OURS, GAPS, Bar(1.3)),
        compared("Spark", figures, LIMIT, GAPS)[0],
    ]


def alternate(tasks: Mapping[str, Callable[[], object]]) -> dict[str, Figures]:
    """Run the tasks in turn, and every second time in reverse."""
    figures = {name: Figures() for name in tasks}
    for number in range(ROUNDS):
        for name in sorted(tasks, reverse=number % 2 == 1):
            gc.collect()
            begin, cpu = time.monotonic(), cpu_seconds()
            tasks[name]()
            figures[name].cpu.append(cpu_seconds() - cpu)
            figures[name].elapsed.append(time.monotonic() - begin)
    return figures


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the child processes that run."""
    children = (process.cpu_times() for process in psutil.Process().children(recursive=True))
    return time.process_time() + sum(times.user + times.system for times in children)


def compared(
    engine: str, figures: Mapping[str, Figures], name: str, reference: str, bar: Bar | None = None
) -> tuple[Row, Row]:
    """Return two rows, which compare the CPU times and the elapsed times of two tasks."""
    ours, other = figures[name], figures[reference]
    against = USUAL_LOG if name == SKEWED else reference
    title = f"{engine}, {SAME_SORT if reference == BY_KEY else name}"
    return (
        Row.of_rounds(title, ours.cpu, other.cpu, against=against, unit="s", bar=bar),
        Row.of_rounds(f"{title}: elapsed", ours.elapsed, other.elapsed, against=against, unit="s"),
    )


# From Parquet to Parquet.


def measure_parquet(rows: int = PARQUET_ROWS) -> list[Row]:
    """Measure `sessionize_parquet` in a separate process, on two cores. The limits are those of `PARQUET_ROWS`."""
    with tempfile.TemporaryDirectory() as name:
        log, output = Path(name, "log.parquet"), Path(name, "output.parquet")
        with open_duckdb(Path(name)) as connection:
            write_log(connection, log, rows)
        command = [sys.executable, "-m", "benchmarks.sessionize", str(log), str(output)]
        process = subprocess.run(  # noqa: S603  # this module itself
            command, check=True, stdout=subprocess.PIPE, env=os.environ | {"POLARS_MAX_THREADS": "2"}
        )
    figures = json.loads(process.stdout)
    title = f"{rows / 1e6:g} million rows, Parquet to Parquet"
    minutes, gibibytes = (Bar(10), Bar(4)) if rows == PARQUET_ROWS else (None, None)
    return [
        Row.of_values(f"{title}: elapsed", [figures["elapsed"] / 60], unit="min", bar=minutes),
        Row.of_values(f"{title}: CPU", [figures["cpu"] / 60], unit="min"),
        Row.of_values(f"{title}: resident", [figures["resident"] / 2**30], unit="GiB", bar=gibibytes),
    ]


def main() -> None:
    """Sessionize a Parquet file, and print the figures as JSON."""
    begin = time.monotonic()
    sessionize_parquet(sys.argv[1], sys.argv[2])
    elapsed = time.monotonic() - begin
    # ru_maxrss would include the memory of the process that started this one.
    resident = int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps({"elapsed": elapsed, "cpu": time.process_time(), "resident": resident}))  # noqa: T201  # read by `measure_parquet`


if __name__ == "__main__":
    main()
