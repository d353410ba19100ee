"""Argument checks that the integrations share."""

from __future__ import annotations

import inspect

from client_session import arguments
from client_session_persistence.snapshot import shown


def require_session(session: object, *methods: str) -> None:
    """Raise `TypeError` unless ``session`` has all of the methods. Coroutine functions are refused."""
    if session is None:
        msg = f"session must have the methods {', '.join(methods)}; it is None"
        raise TypeError(msg)
    if any(inspect.iscoroutinefunction(getattr(session, method, None)) for method in methods):
        msg = f"session must have plain methods, like a ClientSession or a VisitorSession, not {shown(session)}"
        raise TypeError(msg)
    arguments.require_methods("session", session, *methods, class_name="ClientSession")


def require_predicate(argument: str, value: object, allowed: str = "callable") -> None:
    """Raise `TypeError` unless the value is callable. A coroutine function is refused: its result is always true."""
    if not callable(value):
        msg = f"{argument} must be {allowed}, not {shown(value)}"
        raise TypeError(msg)
    if inspect.iscoroutinefunction(value):
        msg = f"{argument} must be a plain function, not the coroutine function {shown(value)}"
        raise TypeError(msg)
