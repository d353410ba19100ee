"""Traces: the inputs of a session as JSON Lines, one input per line, in chronological order.

``{"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}``
"""

from __future__ import annotations

import codecs
import enum
import json
import reprlib
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


MAX_LINE_BYTES = 64 * 1024
"""The maximum length of a line. Valid lines are much shorter."""
_MAX_FAULT = 300
"""The maximum length of an error message: a line may contain long names and values."""

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
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not text.strip():
            continue
        try:
            step = _read_step(text)
            if steps and step.at < steps[-1].at:
                _fail(f"'at' must not go backwards, from {steps[-1].at.isoformat()} to {step.at.isoformat()}")
        except (TypeError, ValueError) as error:
            fault = str(error)
            raise TraceError(name, number, fault if len(fault) <= _MAX_FAULT else f"{fault[:_MAX_FAULT]}...") from None
        steps.append(step)
    if not steps:
        raise TraceError(name, max(number, 1), "the trace has no inputs")
    return steps


def _read_step(line: bytes) -> Step:
    if len(line) > MAX_LINE_BYTES:
        _fail(f"the line is longer than {MAX_LINE_BYTES} bytes")
    fields = _read_fields(line)
    for name, value in fields.items():
        if isinstance(value, list | dict):
            _fail(f"{name!r} must not be an array or an object")
    for name in ("at", "input"):
        if name not in fields:
            _fail(f"missing field {name!r}")
    given = _known_input(cast("str", fields["input"]))
    own = _FIELDS.get(given, frozenset())
    if unknown := sorted(fields.keys() - {"at", "input"} - own):
        _fail(f"unknown field {', '.join(map(repr, unknown))} for input '{given}'")
    if missing := sorted(own - fields.keys() - set(_TIMEOUTS)):
        _fail(f"missing field {missing[0]!r} for input '{given}'")
    return Step(
        _parse_time("at", fields["at"]),
        given,
        _parse_id(fields["id"]) if "id" in own else None,
        to=_parse_time("to", fields["to"]) if "to" in own else None,
        **{name: timeout(name, cast("float", fields[name])) for name in _TIMEOUTS if name in fields},
    )


def _read_fields(line: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        _fail(f"not JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        _fail(f"not JSON: {error}")
    except RecursionError:
        _fail("not JSON: the arrays or objects are nested too deeply")
    if not isinstance(value, dict):
        _fail(f"expected a JSON object, got {reprlib.repr(value)}")
    return cast("dict[str, object]", value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            _fail(f"duplicate field {name!r}")
        fields[name] = value
    return fields


def _parse_id(value: object) -> str:
    try:
        return event_id_string(cast("str", value))
    except (TypeError, ValueError):
        _fail(f"'id' must be a 36-character UUID string, not {value!r}")


def _parse_time(name: str, value: object) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(cast("str", value)))
    except (TypeError, ValueError):
        _fail(f"'{name}' must be a time with a time zone, such as 2026-11-23T09:00:00Z, not {value!r}")


def _fail(fault: str) -> NoReturn:
    raise ValueError(fault)
