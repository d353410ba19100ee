"""Traces: what happened to a session, as JSON Lines.

``{"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}``, one input a line, in order of time. The inputs:
``event`` (alone with ``id``), ``background``, ``foreground``, ``touch``, ``restart``, ``sleep`` (the machine sleeps
until the next line), ``resume`` (the checker is started by hand), and ``tick`` (one more than come by themselves).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn, cast

import attrs

from fsm.options import event_id_text
from persistence.snapshot import as_utc

if TYPE_CHECKING:
    from collections.abc import Iterable

INPUTS = ("event", "background", "foreground", "touch", "restart", "sleep", "resume", "tick")


class TraceError(ValueError):
    """A trace that cannot be replayed; names file, line and fault."""

    def __init__(self, name: str, line: int, fault: str) -> None:
        """Keep the facts."""
        super().__init__(name, line, fault)
        self.name = name
        self.line = line
        self.fault = fault

    def __str__(self) -> str:
        """Say where and what, as compilers do."""
        return f"{self.name}:{self.line}: {self.fault}"


@attrs.frozen
class Step:
    """One input of a trace: when (UTC), what, and an event's id."""

    at: datetime
    input: str
    event_id: str | None = None


def read_trace(lines: Iterable[bytes], name: str) -> list[Step]:
    """Read a whole trace; empty lines are skipped. ``name`` is what errors call it.

    Raises:
        TraceError: the first line at fault.

    """
    steps: list[Step] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            step = _read_step(line)
            if steps and step.at < steps[-1].at:
                _fault(f"'at' goes back, from {steps[-1].at.isoformat()} to {step.at.isoformat()}")
        except ValueError as error:
            raise TraceError(name, number, str(error)) from None
        steps.append(step)
    if not steps:
        raise TraceError(name, max(number, 1), "the trace has no inputs")
    return steps


def _read_step(line: bytes) -> Step:
    try:
        value: object = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        _fault(f"not JSON: {error.msg} at column {error.colno}")
    except (UnicodeDecodeError, RecursionError) as error:
        _fault(f"not JSON: {error}")
    if not isinstance(value, dict):
        _fault(f"an object is needed, not {value!r}")
    fields = cast("dict[str, object]", value)
    given = fields.get("input")
    if given not in INPUTS:
        _fault(f"'input' must be one of {', '.join(INPUTS)}, not {given!r}")
    allowed = {"at", "input", "id"} if given == "event" else {"at", "input"}
    if unknown := sorted(fields.keys() - allowed):
        _fault(f"'{given}' takes {', '.join(sorted(allowed))} alone, not {', '.join(unknown)}")
    event_id = event_id_text(cast("str", fields.get("id"))) if given == "event" else None
    return Step(_time(fields.get("at")), str(given), event_id)


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        _fault(f"'at' must be the text of a time, such as 2026-11-23T09:00:00Z, not {value!r}")
    try:
        return as_utc(datetime.fromisoformat(value))
    except ValueError:
        _fault(f"'at' must be a time with time zone, such as 2026-11-23T09:00:00Z, not {value!r}")


def _fault(fault: str) -> NoReturn:
    raise ValueError(fault)
