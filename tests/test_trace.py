"""Traces: valid inputs, and errors that identify the invalid line."""

from __future__ import annotations

import json
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
        if name == "other":
            fields["id"], step = event_id(2), Step(at, name, event_id(2))
        elif name == "wall":
            fields["to"], step = "2030-01-01T00:00:00Z", Step(at, name, to=datetime(2030, 1, 1, tzinfo=UTC))
        elif name == "timeouts":
            fields["background_timeout"], step = 5, Step(at, name, background_timeout=5.0)
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
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected a JSON object, got []"),
        (b"7", "expected a JSON object, got 7"),
        (line(input="explode"), "'input' must be one of event, tick, background, foreground, touch, new-session"),
        (line(input=None), "'input' must be one of"),
        (line(input=[]), "'input' must be one of"),
        (line(input="tick"), "unknown field 'id' for input 'tick'"),
        (line(note="x"), "unknown field 'note' for input 'event'"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": 0}', "foreground_timeout must be"),
        (
            b'{"at": "2026-11-23T09:00:00Z", "input": "timeouts", "foreground_timeout": "1"}',
            "foreground_timeout must be",
        ),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "wall"}', "'to' must be a time with a time zone"),
        (line(id="x"), "event_id must be a uuid.UUID or a 36-character UUID string, not 'x'"),
        (line(id=None), "event_id must be"),
        (line(id=[]), "event_id must be"),
        (b'{"at": "2026-11-23T09:00:00Z", "input": "event"}', "event_id must be"),
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


@pytest.mark.parametrize("lines", [[], [b"\n", b" "]])
def test_empty_trace_is_rejected(lines: list[bytes]) -> None:
    """A file without inputs raises TraceError."""
    with pytest.raises(TraceError, match="the trace has no inputs"):
        read_trace(lines, "day.jsonl")
