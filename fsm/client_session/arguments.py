"""Argument checks. Each error names the argument, its value, and what is allowed."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from client_session_persistence.snapshot import is_uuid_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence import SnapshotStore, XmlStore

Seconds = int | float | timedelta
"""A duration: a number of seconds or a `timedelta`."""


def seconds(argument: str, value: Seconds) -> float:
    """Return a duration in seconds; raise `TypeError`, or `ValueError` if it is not finite and greater than 0."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        msg = f"{argument} must be a number of seconds or a timedelta, not {value!r}"
        raise TypeError(msg)
    if not 0 < number <= sys.float_info.max:
        msg = f"{argument} must be finite and greater than 0 seconds, not {value!r}"
        raise ValueError(msg)
    return float(number)


def boolean(argument: str, value: object) -> bool:
    """Return a ``bool``; raise `TypeError` for any other value, even a truthy one."""
    if not isinstance(value, bool):
        msg = f"{argument} must be True or False, not {value!r}"
        raise TypeError(msg)
    return value


def require_methods(argument: str, value: object, *methods: str) -> None:
    """Raise `TypeError` if an object other than ``None`` lacks one of the methods."""
    for method in methods:
        if value is not None and not callable(getattr(value, method, None)):
            msg = f"{argument} must have the methods {', '.join(methods)}; {value!r} lacks {method}"
            raise TypeError(msg)


def callbacks(**values: Callable[..., object] | None) -> dict[str, Callable[..., object]]:
    """Return the callables that are given; raise `TypeError` for what is neither callable nor ``None``."""
    for argument, value in values.items():
        if value is not None and not callable(value):
            msg = f"{argument} must be callable or None, not {value!r}"
            raise TypeError(msg)
    return {argument: value for argument, value in values.items() if value is not None}


def snapshot_store(save_path: str | os.PathLike[str] | None, store: SnapshotStore | None) -> SnapshotStore:
    """Return ``store``, or an `XmlStore` at ``save_path``.

    Raise `TypeError` if neither is given, or one has the wrong type; `ValueError` if both are given, or the path is
    empty, contains a NUL character or is a folder.
    """
    if store is not None:
        if save_path is not None:
            msg = f"pass save_path or store, not both: {save_path!r} and {store!r}"
            raise ValueError(msg)
        require_methods("store", store, "load", "save", "lock")
        return store
    if not isinstance(save_path, str | os.PathLike):
        msg = f"save_path must be the path of the save file (str or os.PathLike), not {save_path!r}; or pass store"
        raise TypeError(msg)
    path = os.fspath(save_path)
    if not isinstance(path, str):
        msg = f"save_path must be a str path, not {path!r}"
        raise TypeError(msg)
    if not path.strip() or "\0" in path:
        msg = f"save_path must be the path of a file (not empty, no NUL character), not {path!r}"
        raise ValueError(msg)
    if path.endswith(("/", os.sep)) or os.path.isdir(path):  # noqa: PTH112  # a Path would lose the separator
        msg = f"save_path must be the path of a file, not a folder: {path!r}"
        raise ValueError(msg)
    return _xml_store()(path)


@functools.cache  # a finalizer at the interpreter's exit can no longer import
def _xml_store() -> type[XmlStore]:
    from client_session_persistence import XmlStore  # noqa: PLC0415  # a program with its own store needs no XML

    return XmlStore


def event_id_text(value: uuid.UUID | str) -> str:
    """Return an event id as lower-case text; raise `ValueError` if it is neither a UUID nor its text."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and is_uuid_text(value):
        return value.lower()
    msg = f"event_id must be a uuid.UUID or its 36-character text, not {value!r}"
    raise ValueError(msg)
