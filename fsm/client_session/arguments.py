"""Argument checks. Each error names the argument and states its value and what is allowed."""

from __future__ import annotations

import inspect
import math
import os
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from client_session_persistence.path_argument import path_of_no_folder
from client_session_persistence.snapshot import STORAGE_MECHANISM, STORAGE_MECHANISMS, is_uuid, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence import SnapshotStore, XmlStore

MAX_NAMESPACE = 64

Seconds = int | float | timedelta
"""A duration: a number of seconds or a `timedelta`."""


def seconds(argument: str, value: Seconds) -> float:
    """Return a duration in seconds; raise `TypeError` for other types, `ValueError` if not finite and positive."""
    number = _number_of_seconds(argument, value)
    if not 0 < number < math.inf:
        msg = f"{argument} must be finite and greater than 0 seconds, not {shown(value)}"
        raise ValueError(msg)
    return number


def timeout(argument: str, value: Seconds) -> float:
    """Return a timeout in seconds, which may be infinite; raise the same errors as `seconds` otherwise."""
    number = _number_of_seconds(argument, value)
    if not number > 0:
        msg = f"{argument} must be greater than 0 seconds (math.inf: never), not {shown(value)}"
        raise ValueError(msg)
    return number


def _number_of_seconds(argument: str, value: Seconds) -> float:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        msg = f"{argument} must be a number of seconds or a timedelta, not {shown(value)}"
        raise TypeError(msg)
    try:
        return float(number)
    except OverflowError:
        msg = f"{argument} must be a number of seconds that fits in a float, not {shown(value)}"
        raise ValueError(msg) from None


def duration_limit(argument: str, value: Seconds | None) -> float:
    """Return the longest duration in seconds, infinite for ``None``; raise the same errors as `timeout`."""
    return math.inf if value is None else timeout(argument, value)


def boolean(argument: str, value: object) -> bool:
    """Return the value if it is a ``bool``; raise `TypeError` for any other value, even a truthy one."""
    if not isinstance(value, bool):
        msg = f"{argument} must be True or False, not {shown(value)}"
        raise TypeError(msg)
    return value


def namespace(value: object) -> str:
    """Return the namespace of derived ids; raise `TypeError` or `ValueError` if it is not allowed."""
    if not isinstance(value, str):
        msg = f"namespace must be a str, not {shown(value)}"
        raise TypeError(msg)
    allowed = value.isascii() and value.isprintable() and not {" ", "/", ":", "{", "}"}.intersection(value)
    if not (allowed and 0 < len(value) <= MAX_NAMESPACE):
        msg = (
            f"namespace must have 1 to {MAX_NAMESPACE} printable ASCII characters other than space, /, :, {{ and }}, "
            f"not {shown(value)}"
        )
        raise ValueError(msg)
    return value


def require_methods(argument: str, value: object, *methods: str, class_name: str = "") -> None:
    """Raise `TypeError` unless the value is ``None`` or an instance that has all of the methods.

    If the value is a path, the error suggests an instance of the class that can be created with it, if any.
    """
    if isinstance(value, type):
        msg = f"{argument} must be an instance, not the class {value.__name__}; did you mean {value.__name__}(...)?"
        raise TypeError(msg)
    for method in methods:
        if value is not None and not callable(getattr(value, method, None)):
            msg = f"{argument} must have the methods {', '.join(methods)}; {shown(value)} lacks {method}"
            raise TypeError(msg + suggestion(value, class_name))


def suggestion(value: object, class_name: str) -> str:
    """Return the end of an error message about a path that was given in place of an object created with it."""
    hint = f"; did you mean {class_name}({shown(value):.100})?"
    return hint if class_name and isinstance(value, str | os.PathLike) else ""


def callbacks(**values: Callable[..., object] | None) -> dict[str, Callable[..., object]]:
    """Return the values that are not ``None``, keyed by argument name.

    Raise `TypeError` if any is not callable, or if a call would not run its body, as with a coroutine function.
    """
    for argument, value in values.items():
        if value is not None and not callable(value):
            msg = f"{argument} must be callable or None, not {shown(value)}"
            raise TypeError(msg)
        functions = (value, type(value).__call__) if value is not None else ()
        if any(is_deferred(function) for is_deferred in _DEFERRED for function in functions):
            msg = (
                f"{argument} must be a plain function, not {shown(value)}: the session does not await it; "
                "pass a function that schedules it, for example with asyncio.run_coroutine_threadsafe"
            )
            raise TypeError(msg)
    return {argument: value for argument, value in values.items() if value is not None}


_DEFERRED = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
"""The tests for functions that, when called, return an object that runs their body later."""


def snapshot_store(
    save_path: str | os.PathLike[str] | None, store: SnapshotStore | None, xml_store: Callable[[], type[XmlStore]]
) -> SnapshotStore:
    """Return ``store``, or an `XmlStore` at ``save_path``; ``xml_store`` imports the class.

    Raise `TypeError` if neither is given or its type is wrong, and `ValueError` if both are given, the path cannot be
    that of a file or is a folder's, or the store's ``storage_mechanism`` is not in the schema.
    """
    if store is not None:
        if save_path is not None:
            msg = f"pass save_path or store, not both: {shown(save_path)} and {shown(store)}"
            raise ValueError(msg)
        if hasattr(store, "swap") and not hasattr(store, "load"):
            msg = (
                f"store must keep one session, as SqliteStore does, not the states of visitors, as {shown(store)} does"
            )
            raise TypeError(msg)
        require_methods("store", store, "load", "save", "lock", class_name="XmlStore")
        mechanism: object = getattr(store, "storage_mechanism", STORAGE_MECHANISM)
        if mechanism not in STORAGE_MECHANISMS:
            msg = f"store.storage_mechanism must be one of {', '.join(STORAGE_MECHANISMS)}, not {shown(mechanism)}"
            raise ValueError(msg)
        return store
    if not isinstance(save_path, str | os.PathLike):
        msg = f"save_path must be the path of the save file (str or os.PathLike), not {shown(save_path)}; or pass store"
        raise TypeError(msg)
    return xml_store()(path_of_no_folder("save_path", save_path))


def event_id_string(value: uuid.UUID | str) -> str:
    """Return an event id as a lowercase string.

    Raise `TypeError` if it is neither a string nor an object like `uuid.UUID` (``uuid_utils.UUID``, for example), and
    `ValueError` if it is not a UUID.
    """
    if isinstance(value, str):
        if is_uuid(value):
            return str.lower(value)
    else:
        number, digits = getattr(value, "int", None), getattr(value, "hex", None)
        if not (isinstance(number, int) and isinstance(digits, str)):
            msg = f"event_id must be a uuid.UUID or a 36-character UUID string, not {shown(value)}"
            raise TypeError(msg)
        if 0 <= number < 1 << 128:
            return str(uuid.UUID(int=number))
    msg = f"event_id must be a uuid.UUID or a 36-character UUID string, not {shown(value)}"
    raise ValueError(msg)
