"""Argument checks. Each error names the argument and states its value and what is allowed."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from client_session_persistence.snapshot import is_uuid

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence import SnapshotStore, XmlStore

Seconds = int | float | timedelta
"""A duration: a number of seconds or a `timedelta`."""


def seconds(argument: str, value: Seconds) -> float:
    """Return a duration in seconds; raise `TypeError` for other types, `ValueError` if not finite and positive."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        msg = f"{argument} must be a number of seconds or a timedelta, not {value!r}"
        raise TypeError(msg)
    if not 0 < number <= sys.float_info.max:
        msg = f"{argument} must be finite and greater than 0 seconds, not {value!r}"
        raise ValueError(msg)
    return float(number)


def boolean(argument: str, value: object) -> bool:
    """Return the value if it is a ``bool``; raise `TypeError` for any other value, even a truthy one."""
    if not isinstance(value, bool):
        msg = f"{argument} must be True or False, not {value!r}"
        raise TypeError(msg)
    return value


def require_methods(argument: str, value: object, *methods: str) -> None:
    """Raise `TypeError` unless the value is ``None`` or has all of the methods."""
    for method in methods:
        if value is not None and not callable(getattr(value, method, None)):
            msg = f"{argument} must have the methods {', '.join(methods)}; {value!r} lacks {method}"
            raise TypeError(msg)


def callbacks(**values: Callable[..., object] | None) -> dict[str, Callable[..., object]]:
    """Return the values that are not ``None``, keyed by argument name; raise `TypeError` if any is not callable."""
    for argument, value in values.items():
        if value is not None and not callable(value):
            msg = f"{argument} must be callable or None, not {value!r}"
            raise TypeError(msg)
    return {argument: value for argument, value in values.items() if value is not None}


def snapshot_store(save_path: str | os.PathLike[str] | None, store: SnapshotStore | None) -> SnapshotStore:
    """Return ``store``, or an `XmlStore` at ``save_path``.

    Raise `TypeError` if neither is given or its type is wrong, and `ValueError` if both are given or the path is
    empty, contains a NUL character, or is a folder.
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
    if path.endswith(("/", os.sep)) or os.path.isdir(os.path.expanduser(path)):  # noqa: PTH111, PTH112  # a Path would drop the separator
        msg = f"save_path must be the path of a file, not a folder: {path!r}"
        raise ValueError(msg)
    return _xml_store()(path)


@functools.cache  # finalizers at interpreter exit can no longer import modules
def _xml_store() -> type[XmlStore]:
    from client_session_persistence.xml_store import XmlStore  # noqa: PLC0415  # programs that pass a store do not need XML

    return XmlStore


def event_id_string(value: uuid.UUID | str) -> str:
    """Return an event id as a lowercase string; raise `ValueError` if it is neither a UUID nor a UUID string."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and is_uuid(value):
        return value.lower()
    msg = f"event_id must be a uuid.UUID or a 36-character UUID string, not {value!r}"
    raise ValueError(msg)
