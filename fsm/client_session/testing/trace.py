"""Traces: the inputs of a session as JSON Lines, one input per line, in chronological order.

``{"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}``
"""

from __future__ import annotations

import enum
import json
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn, cast

import attrs

from client_session.arguments import event_id_string, timeout
from client_session.graph import Command, Input
from client_session_persistence.snapshot import as_utc, iso_time

if TYPE_CHECKING:
    from collections.abc import Iterable


class External(enum.StrEnum):
    """Inputs from outside the session, in addition to the graph's inputs and commands."""

    RESTART = "restart"
    """The session is closed, and a new one is constructed."""
    SLEEP = "sleep"
    """The machine sleeps until the next input."""
    SAVE = "save"
    """`ClientSession.save` is called."""
    WALL = "wall"
    """The wall clock is set to the time in ``to``; ``at`` is not affected."""
    OTHER = "other"
    """Another process that uses the same save file tracks an event; ``id`` is the event's id."""


_TIMEOUTS = ("foreground_timeout", "background_timeout")
_FIELDS: dict[str, frozenset[str]] = {
    Input.EVENT: frozenset({"id"}),
    Command.TIMEOUTS: frozenset(_TIMEOUTS),
    External.WALL: frozenset({"to"}),
    External.OTHER: frozenset({"id"}),
}
"""The fields of each input in addition to ``at`` and ``input``."""

INPUTS: tuple[Input | Command | External, ...] = (
    *(given for given in Input if given is not Input.RESUME),  # sent by `Command.START_CHECKER`
    *(given for given in Command if given is not Command.CLOSE),  # implied at the end of every trace
    *External,
)


@attrs.define(repr=False, slots=False)
class TraceError(ValueError):
    """A trace is invalid; the message gives the file, the line, and the error."""

    name: str
    line: int
    fault: str

    def __str__(self) -> str:
        """Return ``file:line: fault``, like a compiler error."""
        return f"{self.name}:{self.line}: {self.fault}"


def _known_input(name: str) -> Input | Command | External:
    """Return the input with this name. Raises `ValueError` if the name is unknown."""
    for given in INPUTS:
        if given == name:
            return given
    msg = f"'input' must be one of {', '.join(INPUTS)}, not {name!r}"
    raise ValueError(msg)


@attrs.frozen
class Step:
    """One input of a trace: its time (UTC), its name, and its fields."""

    at: datetime
    input: Input | Command | External = attrs.field(converter=_known_input)
    event_id: str | None = None
    foreground_timeout: float | None = None
    background_timeout: float | None = None
    to: datetime | None = None

    def to_json(self) -> str:
        """Return the step as a line of a trace."""
        fields = {
            "at": iso_time(self.at),
            "input": self.input,
            "id": self.event_id,
            "foreground_timeout": self.foreground_timeout,
            "background_timeout": self.background_timeout,
            "to": self.to and iso_time(self.to),
        }
        return json.dumps({key: value for key, value in fields.items() if value is not None})


def read_trace(lines: Iterable[bytes], name: str) -> list[Step]:
    """Read a trace, skipping empty lines. Raise `TraceError` with the file's ``name`` at the first invalid line."""
    steps: list[Step] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            step = _read_step(line)
            if steps and step.at < steps[-1].at:
                _fail(f"'at' must not go backwards, from {steps[-1].at.isoformat()} to {step.at.isoformat()}")
        except (TypeError, ValueError) as error:
            raise TraceError(name, number, str(error)) from None
        steps.append(step)
    if not steps:
        raise TraceError(name, max(number, 1), "the trace has no inputs")
    return steps


def _read_step(line: bytes) -> Step:
    try:
        value: object = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        _fail(f"not JSON: {error.msg} at column {error.colno}")
    except (UnicodeDecodeError, RecursionError) as error:
        _fail(f"not JSON: {error}")
    if not isinstance(value, dict):
        _fail(f"expected a JSON object, got {value!r}")
    fields = cast("dict[str, object]", value)
    given = _known_input(cast("str", fields.get("input")))
    allowed = {"at", "input", *_FIELDS.get(given, ())}
    if unknown := sorted(fields.keys() - allowed):
        _fail(f"unknown field {', '.join(map(repr, unknown))} for input '{given}'")
    return Step(
        _parse_time("at", fields.get("at")),
        given,
        event_id_string(cast("str", fields.get("id"))) if "id" in allowed else None,
        to=_parse_time("to", fields.get("to")) if "to" in allowed else None,
        **{name: timeout(name, cast("float", fields[name])) for name in _TIMEOUTS if name in fields},
    )


def _parse_time(name: str, value: object) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(cast("str", value)))
    except (TypeError, ValueError):
        _fail(f"'{name}' must be a time with a time zone, such as 2026-11-23T09:00:00Z, not {value!r}")


def _fail(fault: str) -> NoReturn:
    raise ValueError(fault)
