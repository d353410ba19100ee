"""Traces: what happened to a session, as JSON Lines, one input a line, in order of time.

``{"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}``

A trace holds the inputs and commands of `client_session.graph`, and what happens around a session (`External`).
"""

from __future__ import annotations

import enum
import json
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn, cast

import attrs

from client_session.arguments import event_id_text, seconds
from client_session.graph import Command, Input
from client_session_persistence.snapshot import as_utc, iso_time

if TYPE_CHECKING:
    from collections.abc import Iterable


class External(enum.StrEnum):
    """What happens around a session, besides the inputs and commands of the graph."""

    RESTART = "restart"
    """The session is closed and constructed again."""
    SLEEP = "sleep"
    """The machine sleeps until the next line."""
    SAVE = "save"
    """`ClientSession.save` is called."""
    WALL = "wall"
    """The wall clock is set ``to`` this time; ``at`` continues as before."""
    OTHER = "other"
    """Another process on the same save file tracks an event with this ``id``."""


_FIELDS: dict[str, frozenset[str]] = {
    Input.EVENT: frozenset({"id"}),
    Command.TIMEOUTS: frozenset({"foreground_timeout", "background_timeout"}),
    External.WALL: frozenset({"to"}),
    External.OTHER: frozenset({"id"}),
}
"""The fields of an input besides ``at`` and ``input``."""

INPUTS: tuple[Input | Command | External, ...] = (
    *(given for given in Input if given is not Input.RESUME),  # which `Command.START_CHECKER` sends
    *(given for given in Command if given is not Command.CLOSE),  # with which each trace ends
    *External,
)


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


def _known_input(name: str) -> Input | Command | External:
    """Return the input of this name (`ValueError` if there is none)."""
    for given in INPUTS:
        if given == name:
            return given
    msg = f"'input' must be one of {', '.join(INPUTS)}, not {name!r}"
    raise ValueError(msg)


@attrs.frozen
class Step:
    """One input of a trace: when (UTC), what, and what goes with it."""

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
        _fault(f"expected a JSON object, got {value!r}")
    fields = cast("dict[str, object]", value)
    given = _known_input(cast("str", fields.get("input")))
    allowed = {"at", "input", *_FIELDS.get(given, ())}
    if unknown := sorted(fields.keys() - allowed):
        _fault(f"unknown field {', '.join(map(repr, unknown))} for input '{given}'")
    return Step(
        _time("at", fields.get("at")),
        given,
        event_id_text(cast("str", fields.get("id"))) if "id" in allowed else None,
        _seconds("foreground_timeout", fields),
        _seconds("background_timeout", fields),
        _time("to", fields.get("to")) if "to" in allowed else None,
    )


def _seconds(name: str, fields: dict[str, object]) -> float | None:
    if name not in fields:
        return None
    try:
        return seconds(name, cast("float", fields[name]))
    except TypeError as error:
        _fault(str(error))


def _time(name: str, value: object) -> datetime:
    if not isinstance(value, str):
        _fault(f"'{name}' must be the text of a time, such as 2026-11-23T09:00:00Z, not {value!r}")
    try:
        return as_utc(datetime.fromisoformat(value))
    except ValueError:
        _fault(f"'{name}' must be a time with time zone, such as 2026-11-23T09:00:00Z, not {value!r}")


def _fault(fault: str) -> NoReturn:
    raise ValueError(fault)
