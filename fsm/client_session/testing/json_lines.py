"""JSON Lines from outside, such as traces: values that are checked before use, and errors that say what is wrong."""

from __future__ import annotations

import json
import reprlib
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn, cast

from client_session.arguments import event_id_string
from client_session_persistence.snapshot import as_utc

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE_BYTES = 64 * 1024
"""The maximum length of a line. Valid lines are much shorter."""


def read_fields(line: bytes) -> dict[str, object]:
    """Return the fields of a line, which has no arrays or nested objects. Raise `ValueError` if it is invalid."""
    if len(line) > MAX_LINE_BYTES:
        fail(f"the line is longer than {MAX_LINE_BYTES} bytes")
    fields = _read_object(line)
    for name, value in fields.items():
        if isinstance(value, list | dict):
            fail(f"{name!r} must not be an array or an object")
    return fields


def require_fields(fields: dict[str, object], names: Iterable[str], where: str = "") -> None:
    """Raise `ValueError` if a field is missing; ``where`` is the end of the message."""
    for name in names:
        if name not in fields:
            fail(f"missing field {name!r}{where}")


def reject_fields(names: Iterable[str], where: str) -> None:
    """Raise `ValueError` if there are unknown fields; ``where`` is the end of the message."""
    if unknown := sorted(names):
        fail(f"unknown field {', '.join(map(repr, unknown))}{where}")


def parse_id(name: str, value: object) -> str:
    """Return an event id in lowercase. Raise `ValueError` if it is invalid."""
    try:
        return event_id_string(cast("str", value))
    except (TypeError, ValueError):
        fail(f"{name!r} must be a 36-character UUID string, not {value!r}")


def parse_time(name: str, value: object) -> datetime:
    """Return a time in UTC. Raise `ValueError` if it is invalid or has no time zone."""
    try:
        return as_utc(datetime.fromisoformat(cast("str", value)))
    except (TypeError, ValueError):
        fail(f"{name!r} must be a time with a time zone, such as 2026-11-23T09:00:00Z, not {value!r}")


def fail(fault: str) -> NoReturn:
    """Raise `ValueError`."""
    raise ValueError(fault)


def _read_object(line: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        fail(f"not JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        fail(f"not JSON: {error}")
    except RecursionError:
        fail("not JSON: the arrays or objects are nested too deeply")
    if not isinstance(value, dict):
        fail(f"expected a JSON object, got {reprlib.repr(value)}")
    return cast("dict[str, object]", value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            fail(f"duplicate field {name!r}")
        fields[name] = value
    return fields
