"""Traces: the inputs of a session as JSON Lines, one input per line, in chronological order.

``{"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}``
"""

from __future__ import annotations

import codecs
import enum
import json
from typing import TYPE_CHECKING, cast

import attrs

from client_session.arguments import timeout
from client_session.graph import Command, Input
from client_session.input_log import LOGGED
from client_session.testing.json_lines import fail, parse_id, parse_time, read_fields, reject_fields, require_fields
from client_session_persistence.snapshot import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime


class External(enum.StrEnum):
    """Inputs from outside the session, in addition to the graph's inputs and commands."""

    START = "start"
    """The session is constructed. Only the first input can be a start; without one, the session is constructed at the
    time of the first input."""
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


_MAX_FAULT = 300
"""The maximum length of an error message: a line may contain long names and values."""

LIMITS: tuple[str, ...] = ("foreground_timeout", "background_timeout", "max_duration")
"""The fields of `Command.TIMEOUTS`, named like the session's properties, in the order in which they are set."""
_FIELDS: dict[str, frozenset[str]] = {
    Input.EVENT: frozenset({"id"}),
    Input.PASSIVE: frozenset({"id"}),
    Command.TIMEOUTS: frozenset(LIMITS),
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
    """A trace or a log is invalid; the message gives the file, the line, and the error."""

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
    """One input of a trace: its time (UTC), its name, and its fields.

    For `Command.TIMEOUTS`, each limit is in seconds, ``math.inf`` if there is none, or ``None`` if it does not change.
    """

    at: datetime
    input: Input | Command | External = attrs.field(converter=_known_input)
    event_id: str | None = None
    foreground_timeout: float | None = None
    background_timeout: float | None = None
    max_duration: float | None = None
    to: datetime | None = None

    def to_json(self) -> str:
        """Return the step as a line of a trace."""
        fields = {
            "at": iso_time(self.at),
            "input": self.input,
            "id": self.event_id,
            "foreground_timeout": self.foreground_timeout,
            "background_timeout": self.background_timeout,
            "max_duration": self.max_duration,
            "to": self.to and iso_time(self.to),
        }
        return json.dumps({key: value for key, value in fields.items() if value is not None})


def read_trace(lines: Iterable[bytes], name: str) -> list[Step]:
    """Read a trace, or the log of one program's inputs as `InputRecord.to_json` writes it, skipping empty lines.

    In a log, the user may change only after ``forget``. Raise `TraceError` with the file's ``name`` at the first
    invalid line.
    """
    steps: list[Step] = []
    number = 0
    read: Callable[[dict[str, object]], Step] | None = None
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not text.strip():
            continue
        try:
            fields = read_fields(text)
            if read is None:
                read = _LogReader().read if "user_id" in fields else _read_step
            step = read(fields)
            if steps and step.at < steps[-1].at:
                time = "at" if "at" in fields else "time"
                fail(f"'{time}' must not go backwards, from {steps[-1].at.isoformat()} to {step.at.isoformat()}")
            if steps and step.input is External.START:
                fail("'start' must be the first input; use 'restart'")
        except (TypeError, ValueError) as error:
            fault = str(error)
            raise TraceError(name, number, fault if len(fault) <= _MAX_FAULT else f"{fault[:_MAX_FAULT]}...") from None
        steps.append(step)
    if not steps:
        raise TraceError(name, max(number, 1), "the trace has no inputs")
    return steps


def _read_step(fields: dict[str, object]) -> Step:
    require_fields(fields, ("at", "input"))
    given = _known_input(cast("str", fields["input"]))
    own = _FIELDS.get(given, frozenset())
    reject_fields(fields.keys() - {"at", "input"} - own, f" for input '{given}'")
    require_fields(fields, sorted(own - set(LIMITS)), f" for input '{given}'")
    return Step(
        parse_time("at", fields["at"]),
        given,
        parse_id("id", fields["id"]) if "id" in own else None,
        to=parse_time("to", fields["to"]) if "to" in own else None,
        **{name: timeout(name, cast("float", fields[name])) for name in LIMITS if name in fields},
    )


class _LogReader:
    """Converts records to steps. The first ``start`` constructs the session; later ones are restarts."""

    _FIELDS = ("user_id", "time", "sequence", "input", "event_id")

    def __init__(self) -> None:
        self._user_id: object = None
        self._sequence = -1
        self._given: str | None = None

    def read(self, fields: dict[str, object]) -> Step:
        require_fields(fields, self._FIELDS[:-1])
        reject_fields(fields.keys() - set(self._FIELDS), " in a log of inputs")
        given = fields["input"]
        if given == "clock":
            fail("'clock' occurs only in the logs of visitors, not in the log of a program")
        if not isinstance(given, str) or given not in LOGGED:
            fail(f"'input' must be one of {', '.join(LOGGED)}, not {given!r}")
        event_id, is_event = fields.get("event_id"), given in {Input.EVENT, Input.PASSIVE}
        if event_id is not None and not is_event:
            fail(f"'event_id' must be null for input {given!r}, not {event_id!r}")
        self._follow(fields["user_id"], fields["sequence"])
        is_restart = given == External.START and self._given is not None
        self._given = given
        return Step(
            parse_time("time", fields["time"]),
            External.RESTART if is_restart else self._given,
            parse_id("event_id", event_id) if is_event else None,
        )

    def _follow(self, user_id: object, sequence: object) -> None:
        if not (isinstance(user_id, str) and user_id):
            fail(f"'user_id' must be a string, not {user_id!r}")
        if user_id != self._user_id and self._given not in {None, Command.FORGET}:
            fail(f"the user changed from {self._user_id!r} to {user_id!r} without 'forget': a log is of one program")
        if type(sequence) is not int or sequence < 0:
            fail(f"'sequence' must be an integer that is at least 0, not {sequence!r}")
        if 0 < sequence <= self._sequence:
            fail(f"'sequence' must increase until the program restarts, from {self._sequence} to {sequence}")
        self._user_id, self._sequence = user_id, sequence
