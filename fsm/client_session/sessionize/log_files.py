"""Log files: Parquet, CSV, JSON Lines and traces, read and written by Polars."""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import attrs
import polars as pl

from client_session.graph import Command
from client_session.sessionize.errors import MAX_EXAMPLES, LogError, Problem
from client_session.sessionize.settings import LOG_COLUMNS
from client_session.testing.driver import SessionOptions
from client_session.testing.json_lines import MAX_LINE_BYTES
from client_session.testing.replay import Replay
from client_session.testing.trace import TraceError, read_trace
from client_session_persistence import MemoryStore
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client_session.input_log import InputRecord

FORMATS: Mapping[str, str] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""The format for each suffix of a file."""


def scan_log(path: Path, kind: str, names: Mapping[str, str]) -> pl.LazyFrame:
    """Return the log in a file of one of the `FORMATS`; ``names`` has the name of each of its columns there.

    A JSON Lines file may be a trace for ``client-session replay``: the log is what the replayed program would log.

    Raises:
        LogError: the file is text, and sequences are not integers.
        OSError: the file cannot be read.
        ValueError: a column is missing, a CSV file has another separator, or the trace is invalid.
        polars.exceptions.PolarsError: the file does not have this format. It may also be raised when the log is
            collected.

    """
    if kind == "parquet":
        return pl.scan_parquet(path)
    if kind == "csv":
        log = pl.scan_csv(path, infer_schema=False)
        columns = [*log.collect_schema()]
        if len(columns) == 1 and any(separator in columns[0] for separator in ";\t|"):
            msg = f"the columns of a CSV file must be separated by commas, unlike {shown(columns[0])}"
            raise ValueError(msg)
        return _with_sequences(log, names) if set(names.values()) <= {*columns} else log
    first = _first_object(path)
    if "at" in first and names["user_id"] not in first:
        return _read_trace(path, names)
    if missing := [name for column, name in names.items() if column != "event_id" and first and name not in first]:
        msg = f"the first line lacks the fields {', '.join(missing)}; it has {', '.join(first)}"
        raise ValueError(msg)
    return _with_sequences(pl.scan_ndjson(path, schema=dict.fromkeys(names.values(), pl.String)), names)


def write_events(events: Path, output: Path, kind: str) -> None:
    """Convert a Parquet file to one of the `FORMATS`; as text, times are RFC 3339 in UTC."""
    rows = pl.scan_parquet(events).with_columns(
        _utc(name, dtype).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        for name, dtype in pl.scan_parquet(events).collect_schema().items()
        if isinstance(dtype, pl.Datetime)
    )
    if kind == "csv":
        rows.sink_csv(output, sync_on_close="data")
    else:
        rows.sink_ndjson(output, sync_on_close="data")


def fault_of(path: Path, kind: str, error: Exception) -> str:
    """Return what is wrong with a file that Polars could not read, in one line."""
    if kind == "jsonl":
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    is_object = not line.strip() or isinstance(json.loads(line), dict)
                except ValueError as fault:
                    return f"line {number} is not JSON: {fault}"
                if not is_object:
                    return f"line {number} is not a JSON object"
    return str(error).strip().partition("\n")[0]


def _utc(name: str, dtype: pl.Datetime) -> pl.Expr:
    time = pl.col(name)
    return time.dt.convert_time_zone("UTC") if dtype.time_zone else time


def _first_object(path: Path) -> dict[str, object]:
    """Return the first object of a JSON Lines file; it is empty if there is none, or if Polars has to find out."""
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
            if line.strip():
                try:
                    value: object = json.loads(line)
                except ValueError:
                    return {}
                return cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return {}


def _read_trace(path: Path, names: Mapping[str, str]) -> pl.LazyFrame:
    with path.open("rb") as file:
        steps = read_trace(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), str(path))
    for number, step in enumerate(steps, start=1):
        if step.input is Command.TIMEOUTS:
            fault = "'timeouts' cannot be sessionized: a log has the same timeouts throughout"
            raise TraceError(str(path), number, fault)
    records: list[InputRecord] = []
    for _ in Replay(steps, MemoryStore(), SessionOptions(), ticking=False, on_input=records.append).run():
        pass
    schema = {**dict.fromkeys(LOG_COLUMNS, pl.String()), "time": pl.Datetime("us", "UTC"), "sequence": pl.Int64()}
    log = pl.DataFrame([attrs.astuple(record) for record in records], schema=schema, orient="row")
    return log.lazy().rename(dict(names))


def _with_sequences(log: pl.LazyFrame, names: Mapping[str, str]) -> pl.LazyFrame:
    """Convert the sequences, which are text like everything in a text file."""
    sequence = pl.col(names["sequence"])
    number = sequence.str.strip_chars().cast(pl.Int64, strict=False)
    wrong = log.filter(number.is_null() & sequence.is_not_null()).select(*names.values())
    if not (examples := wrong.head(MAX_EXAMPLES).collect(engine="streaming")).is_empty():
        texts = [
            ", ".join(f"{name}={shown(value)}" for name, value in row.items()) for row in examples.iter_rows(named=True)
        ]
        count = wrong.select(pl.len()).collect(engine="streaming").item()
        raise LogError((Problem("sequences that are not integers of 64 bits", count, tuple(texts)),))
    return log.with_columns(number)
