"""Traces: valid inputs, and errors that identify the invalid line."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from client_session.testing.trace import INPUTS, Step, TraceError, read_trace
from event_ids import event_id

TIME = "2026-11-23T09:00:00Z"
GOOD_LINE = json.dumps({"at": TIME, "input": "touch"})


def line(**fields: object) -> bytes:
    """Return one line of a trace (an event by default)."""
    return json.dumps({"at": TIME, "input": "event", "id": event_id(1), **fields}).encode()


def test_every_input_is_read() -> None:
    """Event ids are converted to lowercase and times to UTC, and empty lines are skipped."""
    lines = [line(id=event_id(1).upper()), b"", b"  \r\n"]
    at = datetime(2026, 11, 23, 9, tzinfo=UTC)
    steps = [Step(at, "event", event_id(1))]
    for name in INPUTS[1:]:
        fields: dict[str, object] = {"at": "2026-11-23T10:00:00+01:00", "input": name}
        step = Step(at, name)
        if name == "start":
            continue  # only the first input
        if name in {"other", "passive"}:
            fields["id"], step = event_id(2), Step(at, name, event_id(2))
        elif name == "wall":
            fields["to"], step = "2030-01-01T00:00:00Z", Step(at, name, to=datetime(2030, 1, 1, tzinfo=UTC))
        elif name == "timeouts":
            fields |= {"background_timeout": 5, "max_duration": math.inf}
            step = Step(at, name, background_timeout=5.0, max_duration=math.inf)
        lines.append(json.dumps(fields).encode())
        steps.append(step)
    assert read_trace(lines, "x") == steps
    assert read_trace([step.to_json().encode() for step in steps], "x") == steps


@pytest.mark.parametrize(
    ("bad_line", "problem"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b"event", "not JSON: Expecting value at column 1"),
        (b'{"at": "\xff"}', "not JSON: 'utf-8' codec"),
        (b"[" * 50_000, "not JSON: the arrays or objects are nested too deeply"),
        (b"[" * 900 + b"]" * 900, "expected a JSON object, got [[[[[[[...]]]]]]]"),
        (b"9" * 5000, "Exceeds the limit"),
        (line(id="x" * 60_000), "'id' must be a 36-character UUID string, not 'xxx"),
        (line(**{"x" * 60_000: 1}), "unknown field 'xxx"),
        (line(id="x" * 18_000_000), "the line is longer than 65536 bytes"),
        (line(id={"a": 1}), "'id' must not be an array or an object"),
        (line(at="\ud800"), r"'at' must be a time with a time zone, such as 2026-11-23T09:00:00Z, not '\ud800'"),
        (line().replace(b'"at"', b'"at": 1, "at"'), "duplicate field 'at'"),
        (line().decode().encode("utf-16"), "not JSON: 'utf-8' codec"),
        (line() + b"\0", "not JSON: Extra data"),
        (b"\xef\xbb\xbf" + line(), "not JSON: Unexpected UTF-8 BOM"),
        (b'{"input": "touch"}', "missing field 'at'"),
        (b'{"at": "2026-11-23T09:00:00Z"}', "missing field 'input'"),
        (
            b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": NaN}',
            "foreground_timeout must be",
        ),
        (b"[]", "expected a JSON object, got []"),
        (b"7", "expected a JSON object, got 7"),
        (line(input="explode"), "'input' must be one of event, passive, tick, background, foreground, touch"),
        (line(input=None), "'input' must be one of"),
        (line(input=[]), "'input' must not be an array or an object"),
        (line(input="tick"), "unknown field 'id' for input 'tick'"),
        (line(note="x"), "unknown field 'note' for input 'event'"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": 0}', "foreground_timeout must be"),
        (
            b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": "1"}',
            "foreground_timeout must be",
        ),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "max_duration": null}', "max_duration must be"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "start"}', "'start' must be the first input; use 'restart'"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "passive"}', "missing field 'id' for input 'passive'"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "wall"}', "missing field 'to' for input 'wall'"),
        (line(id="x"), "'id' must be a 36-character UUID string, not 'x'"),
        (line(id=None), "'id' must be a 36-character UUID string, not None"),
        (line(id=[]), "'id' must not be an array or an object"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "event"}', "missing field 'id' for input 'event'"),
        (line(at=None), "'at' must be a time with a time zone"),
        (line(at=7), "'at' must be a time with a time zone"),
        (line(at="today"), "'at' must be a time with a time zone, such as 2026-11-23T09:00:00Z, not 'today'"),
        (line(at="2026-11-23T09:00:00"), "'at' must be a time with a time zone"),
        (line(at="2026-02-30T09:00:00Z"), "'at' must be a time with a time zone"),
        (line(at="0001-01-01T00:00:00+10:00"), "'at' must be a time with a time zone"),
        (line(at="2026-11-23T08:59:59Z"), "'at' must not go backwards, from 2026-11-23T09:00:00+00:00"),
    ],
)
def test_bad_line_is_named_in_the_error(bad_line: bytes, problem: str) -> None:
    """The error names the file, the line and the problem."""
    with pytest.raises(TraceError) as caught:
        read_trace([GOOD_LINE.encode(), b"\n", bad_line], "day.jsonl")
    assert str(caught.value).startswith(f"day.jsonl:3: {problem}")
    assert (caught.value.name, caught.value.line) == ("day.jsonl", 3)
    assert len(str(caught.value)) < 400


def test_files_from_windows_are_read() -> None:
    """A byte order mark at the beginning of the file and CRLF line ends are accepted."""
    assert read_trace([b"\xef\xbb\xbf" + line() + b"\r\n", b"\r\n"], "x") == read_trace([line()], "x")


def record(**fields: object) -> bytes:
    """Return one record of a log of inputs (an event by default)."""
    record = {"user_id": event_id(7), "time": TIME, "sequence": 2, "input": "event", "event_id": event_id(1)}
    return json.dumps(record | fields).encode()


START = record(sequence=0, input="start", event_id=None)


def test_log_of_inputs_is_read_as_a_trace() -> None:
    """The first start constructs the session, later ones restart it, and the user may change after forget."""
    names = ["start", "event", "passive", "start", "background", "touch", "stop-checker", "forget", "foreground"]
    ids = {"event": event_id(1), "passive": event_id(2)}
    users = [event_id(7)] * 8 + [event_id(8)]
    numbers = [0, 1, 2, 0, 1, 2, 3, 4, 5]
    lines = [
        record(sequence=number, input=name, event_id=ids.get(name), user_id=user)
        for number, name, user in zip(numbers, names, users, strict=True)
    ]
    at = datetime(2026, 11, 23, 9, tzinfo=UTC)
    names[3] = "restart"
    assert read_trace(lines, "x") == [Step(at, name, ids.get(name)) for name in names]


@pytest.mark.parametrize(
    ("bad_record", "problem"),
    [
        (record(input="clock", event_id=None), "'clock' occurs only in the logs of visitors"),
        (record(input="tick", event_id=None), "'input' must be one of start, event, passive, background, foreground"),
        (record(input=7), "'input' must be one of start, event, passive,"),
        (record(user_id=event_id(8)), f"the user changed from '{event_id(7)}' to '{event_id(8)}' without 'forget'"),
        (record(user_id=""), "'user_id' must be a string, not ''"),
        (record(user_id=None), "'user_id' must be a string, not None"),
        (record(sequence=-1), "'sequence' must be an integer that is at least 0, not -1"),
        (record(sequence=True), "'sequence' must be an integer that is at least 0, not True"),
        (record(sequence="2"), "'sequence' must be an integer that is at least 0, not '2'"),
        (record(sequence=1), "'sequence' must increase until the program restarts, from 1 to 1"),
        (record(event_id=None), "'event_id' must be a 36-character UUID string, not None"),
        (record(input="touch"), "'event_id' must be null for input 'touch'"),
        (record(time="today"), "'time' must be a time with a time zone"),
        (record(time="2026-11-23T08:59:59Z"), "'time' must not go backwards"),
        (record(at=TIME), "unknown field 'at' in a log of inputs"),
        (line(), "missing field 'user_id'"),
        (record(user_id=["x"]), "'user_id' must not be an array or an object"),
    ],
)
def test_bad_record_is_named_in_the_error(bad_record: bytes, problem: str) -> None:
    """The error names the file, the line and the problem, such as the log of several users."""
    with pytest.raises(TraceError) as caught:
        read_trace([START, record(sequence=1), bad_record], "inputs.jsonl")
    assert str(caught.value).startswith(f"inputs.jsonl:3: {problem}")


@pytest.mark.parametrize("lines", [[], [b"\n", b" "]])
def test_empty_trace_is_rejected(lines: list[bytes]) -> None:
    """A file without inputs raises TraceError."""
    with pytest.raises(TraceError, match="the trace has no inputs"):
        read_trace(lines, "day.jsonl")
