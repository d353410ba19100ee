"""``client-session sessionize`` and ``client-session sql``: formats, bad logs, interrupted runs, and the summary."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from click.testing import CliRunner

pytest.importorskip("polars", reason="needs polars")

import polars as pl

from client_session.cli import client_session
from client_session.input_log import InputRecord
from client_session.sessionize import Fold, register, sessionize_sql
from client_session.sessionize.settings import ENTITY_COLUMNS, LOG_COLUMNS
from client_session_persistence.snapshot import iso_time
from event_ids import event_id
from terminal import COMMAND, environment, run_on_terminal
from test_command_line_output import FORBIDDEN, HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from click.testing import Result

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "desktop_day.jsonl"
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SUFFIXES = (".parquet", ".csv", ".jsonl")
TIMEOUTS = ("--foreground-timeout", "600", "--background-timeout", "300")


def run(*arguments: str | Path, stdin: bytes = b"", **env: str | None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(
        client_session, list(map(str, arguments)), input=stdin, prog_name="client-session", env=env
    )


def sample_log(users: int = 3, inputs: int = 40, seed: int = 0) -> list[InputRecord]:
    """Return a log with every input but `clock`, in no particular order."""
    choose = random.Random(seed)  # noqa: S311  # a log, not a secret
    kinds = ["event"] * 8 + ["passive", "background", "foreground", "touch", "new-session", "start", "forget"]
    records: list[InputRecord] = []
    for user in range(users):
        time = MIDNIGHT
        for sequence in range(inputs):
            time += timedelta(seconds=choose.choice([0, 1, 30, 299, 300, 599, 600, 5000]))
            kind = choose.choice(kinds)
            name = f"{user}-{sequence - choose.choice([0, 0, 0, 2])}" if kind in {"event", "passive"} else None
            records.append(InputRecord(f"user-{user}", time, sequence, kind, name))
    choose.shuffle(records)
    return records


def in_order(records: Iterable[InputRecord]) -> list[InputRecord]:
    """Return a log in the order in which the fold needs it."""
    return sorted(records, key=lambda record: (record.user_id, record.time, record.sequence))


def write_log(path: Path, records: Iterable[InputRecord]) -> Path:
    """Write a log in the format of the path's suffix."""
    rows = [record.to_dict() for record in records]
    if path.suffix == ".parquet":
        frame = pl.DataFrame(rows, schema={**dict.fromkeys(LOG_COLUMNS, pl.String), "sequence": pl.Int64})
        frame.with_columns(pl.col("time").str.to_datetime(time_unit="us", time_zone="UTC")).write_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a result, with times of any kind as text in milliseconds, and numbers as numbers."""
    if path.suffix == ".parquet":
        rows = pl.read_parquet(path).rows(named=True)
    elif path.suffix == ".csv":
        rows = list(csv.DictReader(path.read_text().splitlines()))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(map(normal_row, rows), key=lambda row: (row["user_id"], row["time"], row["sequence"]))


def normal_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of any format with the same types."""
    assert tuple(row) == (*LOG_COLUMNS, *ENTITY_COLUMNS)
    normal = {name: value or None for name, value in row.items()}
    normal |= {name: int(row[name]) for name in ("sequence", "session_index", "event_index")}
    for name in ("time", "first_event_timestamp"):
        value = row[name]
        normal[name] = iso_time(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    return normal


def rows_of_fold(records: Iterable[InputRecord], **settings: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # arguments of Fold
    """Return what the fold gives, in the same order."""
    fold = Fold(**settings)
    events = (fold.add(record) for record in in_order(records))
    rows = (normal_row(attrs.asdict(event)) for event in events if event is not None)
    return sorted(rows, key=lambda row: (row["user_id"], row["time"], row["sequence"]))


def numbers(summary: str) -> dict[str, int]:
    """Return the numbers of a summary by their labels."""
    found = re.findall(r"^ *(\S.*?)  +([\d,]+)(?:  .*)?$", summary, re.MULTILINE)
    return {label: int(number.replace(",", "")) for label, number in found}


def leftovers(folder: Path) -> set[str]:
    """Return the names of all files in a folder."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("output", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_every_format_equals_the_fold(source: str, output: str, tmp_path: Path) -> None:
    """Whatever the formats of the log and of the result, the rows are those of the fold."""
    records = sample_log()
    log, result = write_log(tmp_path / f"log{source}", records), tmp_path / f"sessions{output}"
    done = run("sessionize", log, "-o", result)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert read_rows(result) == rows_of_fold(records)
    assert leftovers(tmp_path) == {log.name, result.name}


def test_settings_are_those_of_the_fold(tmp_path: Path) -> None:
    """Each option that decides which events share a session has its effect."""
    records, log = sample_log(seed=1), tmp_path / "log.ndjson"
    write_log(log, records)
    options = {
        "foreground_timeout": 599,
        "background_timeout": float("inf"),
        "max_duration": 700,
        "extend_on_focus_change": True,
        "namespace": "shop",
    }
    flags = ["--foreground-timeout", "599", "--background-timeout", "inf", "--max-duration", "700"]
    flags += ["--extend-on-focus-change", "--namespace", "shop"]
    assert run("sessionize", log, "-o", tmp_path / "out.jsonl", *flags).exit_code == 0
    assert read_rows(tmp_path / "out.jsonl") == rows_of_fold(records, **options)
    assert run("sessionize", log, "-o", tmp_path / "all.jsonl", "--keep-repeats").exit_code == 0
    renamed = [attrs.evolve(record, event_id=record.event_id and f"{at}") for at, record in enumerate(records)]
    assert len(read_rows(tmp_path / "all.jsonl")) == len(rows_of_fold(renamed)) > len(rows_of_fold(records))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_standard_streams(kind: str, tmp_path: Path) -> None:
    """``-`` reads standard input and writes standard output, while the summary goes to standard error."""
    records = sample_log()
    log = write_log(tmp_path / f"log.{kind}", records)
    done = run("sessionize", "-", "-o", "-", "--format", kind, stdin=log.read_bytes())
    assert done.exit_code == 0
    result = tmp_path / f"sessions.{kind}"
    result.write_text(done.stdout)
    assert read_rows(result) == rows_of_fold(records)
    assert numbers(done.stderr)["users"] == 3


def test_trace_is_replayed(tmp_path: Path) -> None:
    """A trace gives the partition that its replay reports."""
    replayed = run("replay", "--json", EXAMPLE)
    assert run("sessionize", EXAMPLE, "-o", tmp_path / "out.csv").exit_code == 0
    entities = [json.loads(line)["data"] for line in replayed.stdout.splitlines()]
    expected = [(entity["sessionIndex"], entity["eventIndex"], entity["firstEventId"]) for entity in entities]
    rows = read_rows(tmp_path / "out.csv")
    assert [(row["session_index"], row["event_index"], row["first_event_id"]) for row in rows] == expected


def test_log_of_replay(tmp_path: Path) -> None:
    """The log that ``replay --log`` writes is a log for sessionize, too."""
    assert run("replay", "--log", tmp_path / "log.jsonl", EXAMPLE).exit_code == 0
    done = run("sessionize", tmp_path / "log.jsonl", "-o", tmp_path / "out.parquet")
    assert done.exit_code == 0, done.output
    assert len(read_rows(tmp_path / "out.parquet")) == numbers(done.stderr)["in a session"] > 40


def test_trace_with_timeouts_is_refused(tmp_path: Path) -> None:
    """A trace that sets timeouts cannot be sessionized with the same timeouts throughout; the error has the line."""
    trace = tmp_path / "trace.jsonl"
    steps = [
        {"at": "2026-11-23T09:00:00Z", "input": "event", "id": event_id(1)},
        {"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": 5},
    ]
    trace.write_text("\n\n".join(map(json.dumps, steps)))
    done = run("sessionize", trace, "-o", tmp_path / "out.csv")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {trace}:")
    assert "timeouts" in done.stderr


def test_renamed_columns(tmp_path: Path) -> None:
    """``--column`` gives the names in the log, which the result keeps."""
    names = {"user_id": "domain_userid", "time": "tstamp", "event_id": "odd = name"}
    pl.DataFrame([record.to_dict() for record in sample_log()]).rename(names).write_csv(tmp_path / "log.csv")
    flags = [flag for column, name in names.items() for flag in ("--column", f"{column}={name}")]
    done = run("sessionize", tmp_path / "log.csv", "-o", tmp_path / "out.csv", *flags)
    assert done.exit_code == 0, done.output
    assert pl.read_csv(tmp_path / "out.csv").columns[:5] == [
        "domain_userid",
        "tstamp",
        "sequence",
        "input",
        "odd = name",
    ]


def test_incremental_runs_equal_one_run(tmp_path: Path) -> None:
    """With ``--write-state`` and ``--carried``, the runs over the parts of a log give the rows of one run."""
    records = in_order(sample_log(users=5))
    days = [[record for record in records if low <= record.time - MIDNIGHT < high] for low, high in DAYS]
    assert all(days)
    states, rows, summaries = tmp_path / "states.parquet", list[dict[str, Any]](), list[dict[str, int]]()
    for day, part in enumerate(days):
        log = write_log(tmp_path / f"day-{day}.csv", part)
        carried: list[str | Path] = ["--carried", states, "--force"] if day else []
        done = run("sessionize", log, "-o", tmp_path / "out.csv", "--write-state", states, *carried)
        assert done.exit_code == 0, done.output
        rows += read_rows(tmp_path / "out.csv")
        summaries.append(numbers(done.stderr))
    rows.sort(key=lambda row: (row["user_id"], row["time"], row["sequence"]))
    assert rows == rows_of_fold(records)
    whole = numbers(run("sessionize", write_log(tmp_path / "log.csv", records), "-o", tmp_path / "all.csv").stderr)
    for reason in ("timeout", "background-timeout", "new-session", "forget"):
        assert sum(summary[reason] for summary in summaries) == whole[reason]
    assert summaries[1]["begun earlier"] > 0


DAYS = [
    (timedelta(), timedelta(hours=4)),
    (timedelta(hours=4), timedelta(hours=8)),
    (timedelta(hours=8), timedelta(days=9)),
]


def test_summary_counts_what_is_in_the_log(tmp_path: Path) -> None:
    """The summary has users, events, sessions, events without a session, reasons of ends, and lengths."""
    log = write_log(
        tmp_path / "log.jsonl",
        [
            InputRecord("a", MIDNIGHT, 0, "passive", "p"),
            InputRecord("a", MIDNIGHT, 1, "event", "e"),
            InputRecord("a", MIDNIGHT, 2, "event", "e"),
            InputRecord("a", MIDNIGHT + timedelta(seconds=90), 3, "event", "f"),
            InputRecord("a", MIDNIGHT + timedelta(seconds=690), 4, "event", "g"),
            InputRecord("b", MIDNIGHT, 0, "event", "h"),
            InputRecord("b", MIDNIGHT, 1, "forget"),
        ],
    )
    done = run("sessionize", log, "-o", tmp_path / "out.csv")
    assert numbers(done.stderr) == {
        "users": 2,
        "events": 6,
        "in a session": 4,
        "without a session": 1,
        "repeated, dropped": 1,
        "sessions": 3,
        "timeout": 1,
        "background-timeout": 0,
        "max-duration": 0,
        "new-session": 0,
        "forget": 1,
        "still open": 1,
        "0 s": 2,
        "under 10 s": 0,
        "10 s to 1 min": 0,
        "1 to 5 min": 1,
        "5 to 15 min": 0,
        "15 to 30 min": 0,
        "30 min to 1 h": 0,
        "1 to 4 h": 0,
        "4 h or longer": 0,
    }
    assert re.search(r"^  0 s +2  █{40}$", done.stderr, re.MULTILINE)
    assert re.search(r"^  1 to 5 min +1  █{20}$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_summary_fits_any_terminal(columns: int, tmp_path: Path) -> None:
    """No line is wider than the terminal, nothing is lost, and the progress bar is gone at the end."""
    log = write_log(tmp_path / "log.csv", sample_log())
    status, output = run_on_terminal("sessionize", str(log), "-o", str(tmp_path / "out.csv"), columns=columns)
    assert status == 0
    shown = output[output.rindex("\x1b[2K") if "\x1b[2K" in output else 0 :]
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()
    assert max(map(len, lines)) <= columns
    assert numbers("\n".join(lines)) == numbers(run("sessionize", log, "-o", tmp_path / "again.csv").stderr)


def test_ascii_terminal_gets_an_ascii_histogram(tmp_path: Path) -> None:
    """Without UTF-8, the bars are made of number signs; without a terminal, there are no colors."""
    log = write_log(tmp_path / "log.csv", sample_log())
    result = subprocess.run(  # noqa: S603  # our own command
        [COMMAND, "sessionize", log, "-o", tmp_path / "out.csv"],
        capture_output=True,
        check=True,
        timeout=120,
        env=environment(PYTHONIOENCODING="ascii", NO_COLOR="1"),
    )
    assert re.search(rb"^  \S.* +\d+  #+$", result.stderr, re.MULTILINE)
    assert b"\x1b" not in result.stderr
    assert result.stderr.isascii()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_log(suffix: str, tmp_path: Path) -> None:
    """A log without rows gives a result without rows."""
    log = write_log(tmp_path / f"log{suffix}", [])
    done = run("sessionize", log, "-o", tmp_path / "out.csv")
    assert (done.exit_code, numbers(done.stderr)["users"]) == (0, 0), done.output
    assert (tmp_path / "out.csv").read_text() == ",".join((*LOG_COLUMNS, *ENTITY_COLUMNS)) + "\n"


def test_existing_file_needs_force(tmp_path: Path) -> None:
    """A file is overwritten only with ``--force``, and a log never."""
    log, output, states = write_log(tmp_path / "log.csv", sample_log()), tmp_path / "out.csv", tmp_path / "s.parquet"
    flagged: dict[Path, tuple[str | Path, ...]] = {output: (), states: ("--write-state", states)}
    for path, flags in flagged.items():
        path.write_text("precious")
        done = run("sessionize", log, "-o", output if path == output else tmp_path / "new.csv", *flags)
        assert done.exit_code == 2
        assert f"{path} exists; pass --force to overwrite it" in done.stderr
        assert path.read_text() == "precious"
    assert run("sessionize", log, "-o", output, "--write-state", states, "--force").exit_code == 0
    assert read_rows(output) == rows_of_fold(sample_log())
    before = log.read_bytes()
    for flags in ((), ("--write-state", log)):
        done = run("sessionize", log, "-o", tmp_path / "new.csv" if flags else log, *flags, "--force")
        assert done.exit_code == 2
        assert "must not be overwritten" in done.stderr
    assert log.read_bytes() == before
    done = run("sessionize", log, "-o", output, "--write-state", output, "--force")
    assert "--write-state must not be the file of --output" in done.stderr


def test_link_is_followed_and_a_device_is_refused(tmp_path: Path) -> None:
    """A symbolic link still points to the result afterwards; a device or a pipe is not replaced by a file."""
    log, target = write_log(tmp_path / "log.csv", sample_log()), tmp_path / "target.csv"
    (tmp_path / "link.csv").symlink_to(target)
    assert run("sessionize", log, "-o", tmp_path / "link.csv").exit_code == 0
    assert read_rows(target) == rows_of_fold(sample_log())
    os.mkfifo(tmp_path / "pipe.csv")
    done = run("sessionize", log, "-o", tmp_path / "pipe.csv", "--force")
    assert done.exit_code == 2
    assert "pipe.csv is not a regular file" in done.stderr


GOOD = {"user_id": "a", "time": "2026-01-01T00:00:00Z", "sequence": 1, "input": "event", "event_id": "e"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "user": ({"user_id": ""}, "null or empty user ids: 4, such as user_id="),
    "null user": ({"user_id": None}, "null or empty user ids: 4, such as user_id=None"),
    "time": (
        {"time": "yesterday"},
        "times that are null, or text that is not like 2026-03-01T08:04:00Z: 4, such as user_id='a', time='yes",
    ),
    "no time": ({"time": None}, "times that are null, or text that is not like 2026-03-01T08:04:00Z: 4, such as"),
    "sequence": ({"sequence": "first"}, "sequences that are not integers of 64 bits: 4, such as user_id='a', time="),
    "fraction": ({"sequence": 1.5}, "sequences that are not integers of 64 bits: 4, such as"),
    "huge sequence": ({"sequence": 2**70}, "sequences that are not integers of 64 bits: 4, such as"),
    "no sequence": ({"sequence": None}, "null sequences: 4, such as"),
    "input": ({"input": "click"}, "inputs other than start, event,"),
    "event id": ({"event_id": None}, "events with null or empty ids: 4, such as"),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_counted_and_shown(kind: str, suffix: str, tmp_path: Path) -> None:
    """The error has the number of bad rows and the first three of them; there is no result."""
    change, message = BAD[kind]
    log = tmp_path / f"log{suffix}"
    rows = [GOOD, *[GOOD | {"sequence": 2 + at} | change for at in range(4)]]
    texts = [{name: value and str(value) for name, value in row.items()} for row in rows]
    frame = pl.DataFrame(texts, infer_schema_length=None)
    frame.write_csv(log) if suffix == ".csv" else frame.write_ndjson(log)
    done = run("sessionize", log, "-o", tmp_path / "out.parquet")
    assert (done.exit_code, done.stdout) == (2, "")
    heading, problem = done.stderr.splitlines()
    assert heading == f"Error: {log} cannot be sessionized:"
    assert message in problem
    assert ": 4, such as" in problem
    assert problem.count("user_id=") == 3
    assert leftovers(tmp_path) == {log.name}


def test_rows_without_an_order_are_counted(tmp_path: Path) -> None:
    """Rows that differ must not have the same user, time and sequence."""
    records = [InputRecord("a", MIDNIGHT, 0, "event", name) for name in ("e", "f", "g")]
    done = run("sessionize", write_log(tmp_path / "log.csv", records), "-o", tmp_path / "out.csv")
    assert done.exit_code == 2
    assert "rows that differ, with equal user, time and sequence: 2, such as" in done.stderr


def test_rows_before_the_carried_state_are_counted(tmp_path: Path) -> None:
    """A log that is earlier than the states it should continue from is refused, and the states remain."""
    log = write_log(tmp_path / "log.csv", sample_log())
    states = tmp_path / "states.parquet"
    assert run("sessionize", log, "-o", tmp_path / "out.csv", "--write-state", states).exit_code == 0
    before = states.read_bytes()
    flags = ("--carried", states, "--write-state", states, "--force")
    done = run("sessionize", log, "-o", tmp_path / "out.csv", *flags)
    assert done.exit_code == 2
    assert re.search(r"times earlier than the state that the user is carried with: \d+, such as", done.stderr)
    assert states.read_bytes() == before


def test_times_of_several_zones_in_any_order(tmp_path: Path) -> None:
    """Times with different offsets, or none, are compared as moments; the log need not be sorted."""
    times = ["2026-01-01T02:09:59+02:00", "2026-01-01 00:00:00", "2025-12-31T19:20:00.000001-05:00"]
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(GOOD | {"time": time, "event_id": time}) + "\n" for time in times)
    )
    assert run("sessionize", tmp_path / "log.jsonl", "-o", tmp_path / "out.jsonl").exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["time"], row["session_index"]) for row in rows] == [(times[1], 1), (times[0], 1), (times[2], 2)]
    assert rows[2]["first_event_timestamp"] == "2026-01-01T00:20:00.000001Z"


def test_huge_values(tmp_path: Path) -> None:
    """Long texts and times at the ends of the calendar are kept as they are."""
    user, first, last = "u" * 100_000, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    rows = [
        GOOD | {"user_id": user, "time": first, "sequence": -(2**63), "event_id": "e" * 100_000},
        GOOD | {"user_id": user, "time": last, "sequence": 2**63 - 1, "event_id": "f"},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("sessionize", log, "-o", tmp_path / "out.jsonl")
    assert done.exit_code == 0, done.output
    result = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in GOOD} for row in result] == rows
    assert [row["session_index"] for row in result] == [1, 2]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    """The error says which columns are missing, and which there are, or that a CSV file has another separator."""
    pl.DataFrame([GOOD]).rename({"time": "tstamp"}).write_csv(tmp_path / "log.csv")
    (tmp_path / "log.jsonl").write_text(json.dumps({"user_id": "a", "tstamp": 1, "sequence": 1, "input": "event"}))
    pl.DataFrame([GOOD]).drop("sequence").write_parquet(tmp_path / "log.parquet")
    pl.DataFrame([GOOD]).write_parquet(tmp_path / "states.parquet")
    for name, message in {
        "log.csv": "log lacks the columns time; it has user_id, tstamp",
        "log.jsonl": "the first line lacks the fields time; it has user_id, tstamp",
        "log.parquet": "log lacks the columns sequence; it has user_id, time",
    }.items():
        done = run("sessionize", tmp_path / name, "-o", tmp_path / "out.csv")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    (tmp_path / "log.csv").write_text("user_id;time;sequence;input;event_id\n")
    done = run("sessionize", tmp_path / "log.csv", "-o", tmp_path / "out.csv")
    assert done.exit_code == 2
    assert "the columns of a CSV file must be separated by commas, unlike 'user_id;time;" in done.stderr
    log = write_log(tmp_path / "good.csv", sample_log())
    done = run("sessionize", log, "-o", tmp_path / "out.csv", "--carried", tmp_path / "states.parquet")
    assert done.exit_code == 2
    assert "carried lacks the columns in_background" in done.stderr


BROKEN: dict[str, tuple[bytes, str]] = {
    "log.jsonl": (
        b'{"user_id": "a", "time": "x", "sequence": 1, "input": "event"}\n{"user_id":\n',
        "line 2 is not JSON: ",
    ),
    "array.jsonl": (b"[1]\n", "line 1 is not a JSON object"),
    "binary.jsonl": (b"\xff\xfe\x00", "line 1 is not JSON: "),
    "log.csv": (b"user_id,time,sequence,input,event_id\na,b,1,event,e,x,y\n", "more fields"),
    "zero.csv": (b"", "empty"),
    "binary.csv": (b"user_id,time,sequence,input,event_id\n\xff,b,1,event,e\n", "invalid utf-8"),
    "log.parquet": (b"PAR1 and more", "parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_file_of_another_format(name: str, tmp_path: Path) -> None:
    """A file that does not have the format of its name is an error of one line with status 2."""
    content, message = BROKEN[name]
    log = tmp_path / name
    log.write_bytes(content)
    done = run("sessionize", log, "-o", tmp_path / "out.csv")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert done.stderr.startswith(f"Error: {log} cannot be read: ")
    assert message in done.stderr
    assert leftovers(tmp_path) == {name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["log.csv", "-o", "out"], "pass --format, or a file whose name ends in .parquet, .csv, .jsonl, .ndjson, not "),
        (["log.csv", "-o", "-"], '"-" needs --format csv or --format jsonl'),
        (["log.csv", "-o", "-", "--format", "parquet"], '"-" needs --format csv or --format jsonl'),
        (["log.csv", "-o", "out.csv", "--foreground-timeout", "0"], "--foreground-timeout must be greater than 0"),
        (["log.csv", "-o", "out.csv", "--max-duration", "nan"], "--max-duration must be"),
        (["log.csv", "-o", "out.csv", "--namespace", "é"], "--namespace must"),
        (["log.csv", "-o", "out.csv", "--column", "user_id"], "'user_id' is not COLUMN=NAME"),
        (["log.csv", "-o", "out.csv", "--column", "user=x"], "columns may rename user_id, time"),
        (["log.csv"], "Missing option '-o'"),
        (["none.csv", "-o", "out.csv"], "File 'none.csv' does not exist"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong argument is a usage error that names it."""
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv", sample_log())
    done = run("sessionize", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert leftovers(tmp_path) == {"log.csv"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_values_cannot_control_the_terminal(kind: str, tmp_path: Path) -> None:
    """Whatever a name or a value contains, the terminal gets no control characters and no extra lines."""
    text = HOSTILE[kind].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    outputs: list[str] = []
    for place in (*GOOD, "more"):
        (tmp_path / "log.jsonl").write_text(json.dumps(GOOD | {"input": "click"} | {place: text}))
        (tmp_path / "column.csv").write_text(f'"{text}",time\n1,2\n')
        outputs += [run("sessionize", tmp_path / name, "-o", tmp_path / "out.csv").output for name in FILES]
    name = tmp_path / text.replace("/", "").replace("\0", "")
    write_log(tmp_path / "log.csv", sample_log())
    outputs.append(run("sessionize", tmp_path / "log.csv", "-o", name / "out.csv").output)
    outputs.append(run("sessionize", name, "-o", tmp_path / "out.csv").output)
    for output in outputs:
        assert "Error: " in output
        assert FORBIDDEN.search(output) is None


FILES = ("log.jsonl", "column.csv")


@pytest.fixture(scope="module")
def large_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a log of 3 million rows, in which each user has 30."""
    folder = tmp_path_factory.mktemp("large")
    rows = 3_000_000
    number = pl.int_range(rows)
    pl.select(number=number).lazy().select(
        user_id=pl.format("5e550000-0000-4000-8000-0000{}", (pl.col("number") % 100_000).cast(pl.String).str.zfill(8)),
        time=pl.lit(MIDNIGHT) + pl.duration(seconds=pl.col("number") // 100_000 * 280),
        sequence=pl.col("number"),
        input=pl.when(pl.col("number") % 5 == 0).then(pl.lit("background")).otherwise(pl.lit("event")),
        event_id=pl.format("5e550000-0000-4000-9000-0000{}", pl.col("number").cast(pl.String).str.zfill(8)),
    ).sink_parquet(folder / "log.parquet", row_group_size=200_000)
    yield folder / "log.parquet"
    (folder / "log.parquet").unlink()


def start(log: Path, output: Path, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401  # arguments of Popen
    """Start the command in a process of its own."""
    return subprocess.Popen(  # noqa: S603  # our own command
        [COMMAND, "sessionize", log, "-o", output, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_leaves_nothing(number: signal.Signals, large_log: Path, tmp_path: Path) -> None:
    """A signal during the run ends it; no file remains, and the one that should be replaced is as before."""
    output, states = tmp_path / "out.csv", tmp_path / "states.parquet"
    output.write_text("as before")
    with start(large_log, output, "--write-state", states, "--force") as process:
        while leftovers(tmp_path) == {"out.csv"}:
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    assert b"Traceback" not in errors
    assert leftovers(tmp_path) == {"out.csv"}
    assert output.read_text() == "as before"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_nothing(suffix: str, large_log: Path, tmp_path: Path) -> None:
    """If a file cannot grow, the error says so in one line, and no file remains."""
    small = 1_000_000
    output = tmp_path / f"out{suffix}"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({small}, {small}))"
    program = f"{limit}\nfrom client_session.cli import client_session; client_session()"
    result = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program, "sessionize", large_log, "-o", output],
        capture_output=True,
        check=False,
        timeout=300,
        env=environment(),
    )
    assert (result.returncode, result.stderr) == (1, f"Error: {output} cannot be written: File too large\n".encode())
    assert leftovers(tmp_path) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full does not exist")
def test_standard_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk behind standard output is an error of one line; a closed pipe ends the command quietly."""
    log = write_log(tmp_path / "log.csv", sample_log())
    command = [COMMAND, "sessionize", str(log), "-o", "-", "--format", "csv"]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(  # noqa: S603  # our own command
            command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=120, env=environment()
        )
    assert (result.returncode, result.stderr) == (
        1,
        b"Error: standard output cannot be written: No space left on device\n",
    )
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(  # noqa: S603  # our own command
        command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120, env=environment()
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    """An output in a folder that does not exist is an error of one line."""
    log, output = write_log(tmp_path / "log.csv", sample_log()), tmp_path / "none" / "out.csv"
    done = run("sessionize", log, "-o", output)
    assert (done.exit_code, done.stderr) == (1, f"Error: {output} cannot be written: No such file or directory\n")


def test_missing_polars_is_named() -> None:
    """Without Polars, one line says what to install, and the other commands run."""
    program = (
        "import sys; sys.modules['{}'] = None\nfrom client_session.cli import client_session\n"
        "client_session(sys.argv[1:], 'client-session')"
    )
    for module in ("polars", "polars_hash"):
        done = subprocess.run(  # noqa: S603  # our own interpreter
            [sys.executable, "-c", program.format(module), "sessionize", EXAMPLE, "-o", "-", "--format", "csv"],
            capture_output=True,
            check=False,
            timeout=120,
            env=environment(),
        )
        message = b"Error: sessionize needs Polars: pip install 'client-session[polars]'\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", message)
    program = (
        "from client_session.cli import client_session; import sys; print({'polars', 'pyarrow'} & sys.modules.keys())"
    )
    loaded = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=120
    )
    assert loaded.stdout == b"set()\n"


def peak_memory(program: str, *arguments: str | Path) -> int:
    """Run a program, and return the most memory that it used, in KiB."""
    # getrusage would not do: a program's ru_maxrss includes the memory of the process that started it.
    script = f"{program}\nfrom pathlib import Path; print(Path('/proc/self/status').read_text())"
    done = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        check=True,
        timeout=580,
        env=environment(POLARS_MAX_THREADS="1"),  # otherwise, it depends on how far threads get ahead of each other
    )
    return int(done.stdout.rpartition(b"VmHWM:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a program its peak memory")
def test_log_larger_than_memory(large_log: Path, tmp_path: Path) -> None:
    """A run in parts of 300,000 rows needs clearly less memory than collecting the result at once."""
    used = peak_memory(
        "from client_session.cli import client_session; from client_session.sessionize import polars\n"
        "polars._PART_ROWS = 300_000\n"
        "try: client_session(prog_name='client-session')\n"
        "except SystemExit as error: assert not error.code",
        *("sessionize", large_log, "-o", tmp_path / "out.jsonl"),
    )
    collected = peak_memory(
        "import sys, polars as pl; from client_session.sessionize.polars import sessionize\n"
        "sessionize(pl.scan_parquet(sys.argv[1])).collect()",
        large_log,
    )
    assert used < 0.8 * collected, (used, collected)


SQL_FLAGS = [
    "--max-duration",
    "700",
    "--extend-on-focus-change",
    "--namespace",
    "shop",
    "--column",
    "user_id=domain user",
]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return a database with a table for a log."""
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as connection:
        register(connection)
        columns = '"domain user" TEXT, time TEXT, sequence INTEGER, input TEXT, event_id TEXT'
        connection.execute(f'CREATE TABLE "the log" ({columns})')
        yield connection


def query(*arguments: str) -> str:
    """Return what ``sql`` prints."""
    done = run("sql", "--dialect", "sqlite", "--log", '"the log"', *SQL_FLAGS, *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_printed_queries_run(database: sqlite3.Connection) -> None:
    """The queries that ``sql`` prints give the fold's rows in SQLite, and their states continue them."""
    records = in_order(sample_log())
    middle = MIDNIGHT + timedelta(hours=5)
    columns = (*LOG_COLUMNS, *ENTITY_COLUMNS)
    rows: list[dict[str, Any]] = []
    for day, is_early in enumerate((True, False)):
        carried = ["--carried", "states"] if day else []
        part = [record for record in records if (record.time < middle) is is_early]
        database.execute('DELETE FROM "the log"')
        values = [tuple(record.to_dict().values()) for record in part]
        database.executemany('INSERT INTO "the log" VALUES (?, ?, ?, ?, ?)', values)
        assert database.execute(query("--problems", *carried)).fetchall() == []
        rows += [normal_row(dict(zip(columns, row, strict=True))) for row in database.execute(query(*carried))]
        database.execute(f"CREATE TABLE new_states AS {query('--state', *carried)}")
        database.execute("DROP TABLE IF EXISTS states")
        database.execute("ALTER TABLE new_states RENAME TO states")
    expected = rows_of_fold(records, max_duration=700, extend_on_focus_change=True, namespace="shop")
    assert sorted(rows, key=lambda row: (row["user_id"], row["time"], row["sequence"])) == expected


def test_printed_query_for_problems_runs(database: sqlite3.Connection) -> None:
    """The query for problems counts them."""
    database.execute("INSERT INTO \"the log\" VALUES (NULL, '2026-01-01T00:00:00Z', 1, 'event', 'e')")
    ((problem, count, _),) = database.execute(query("--problems")).fetchall()
    assert (problem, count) == ("user_id is null or empty", 1)


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb", "postgres", "spark"])
def test_printed_query_is_that_of_the_function(dialect: str) -> None:
    """Each dialect's text is the function's, with the same arguments."""
    done = run("sql", "--dialect", dialect, "--keep-repeats", "--carried", "states")
    assert done.stdout == sessionize_sql(dialect, drop_repeats=False, carried="states").rstrip("\n") + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dialect", "oracle"], "'oracle' is not one of"),
        (["--dialect", "sqlite", "--log", ""], "log must be the text of a table or a subquery, not ''"),
        (["--dialect", "sqlite", "--background-timeout", "-1"], "--background-timeout must be greater than 0"),
        (["--dialect", "sqlite", "--column", "x=y"], "columns may rename user_id"),
        ([], "Missing option '--dialect'"),
    ],
)
def test_wrong_arguments_of_sql(arguments: list[str], message: str) -> None:
    """A wrong argument is a usage error that names it."""
    done = run("sql", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
