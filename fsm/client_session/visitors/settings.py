"""What synchronous and asynchronous visitors share: the settings, and the steps of each call."""

from __future__ import annotations

import math
import uuid
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from client_session import arguments, ids
from client_session.graph import Command, Input
from client_session.microseconds import limit_microseconds, microseconds
from client_session.visitors.decision import Rules, TrackedEvent
from client_session.visitors.exchange import Exchanges
from client_session_persistence.snapshot import as_utc, is_uuid, shown
from client_session_persistence.states import MAX_KEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from datetime import datetime

    from client_session.arguments import Seconds
    from client_session.entity import SessionContext
    from client_session.visitors.decision import Report
    from client_session.visitors.value import VisitorState

    Steps = Generator[Callable[[Any], Any], Any, Report]

ASYNC_STORE = "states must be a store that is not asynchronous; use AsyncVisitorSessions for this one"


class Visitors:
    """The settings of a `VisitorSessions` or an `AsyncVisitorSessions`, and the steps of their calls. Thread-safe."""

    def __init__(  # noqa: PLR0913  # the settings in the specification
        self,
        states: object,
        *,
        foreground_timeout: Seconds,
        background_timeout: Seconds,
        max_duration: Seconds | None,
        extend_on_focus_change: bool,
        keep: Seconds,
        namespace: str,
        key_secret: bytes | None,
        callbacks: Mapping[str, Callable[..., object] | None],
        is_async: bool,
        pause: Callable[[float], object],
    ) -> None:
        """Check the settings. ``pause`` sleeps for a number of seconds, or returns an awaitable that does.

        With ``is_async``, the store's methods may return awaitables, and callbacks may be coroutine functions.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is invalid.

        """
        if states is None:
            msg = "states must be a state store, not None"
            raise TypeError(msg)
        if hasattr(states, "load") and not hasattr(states, "swap"):
            msg = f"states must keep visitors' states, as SqliteStates does, not one session, as {shown(states)} does"
            raise TypeError(msg)
        arguments.require_methods("states", states, "read", "swap", "delete", class_name="SqliteStates")
        if not is_async and (
            getattr(states, "is_async", False) is True or iscoroutinefunction(getattr(states, "read", None))
        ):
            raise TypeError(ASYNC_STORE)
        foreground = arguments.timeout("foreground_timeout", foreground_timeout)
        background = arguments.timeout("background_timeout", background_timeout)
        duration = arguments.duration_limit("max_duration", max_duration)
        keep_seconds = arguments.seconds("keep", keep)
        if keep_seconds <= max(timeout if timeout < math.inf else 0.0 for timeout in (foreground, background)):
            msg = f"keep must be longer than every finite timeout, not {shown(keep)}"
            raise ValueError(msg)
        if keep_seconds > MAX_KEEP:
            msg = f"keep must be at most {MAX_KEEP} seconds (a century), not {shown(keep)}"
            raise ValueError(msg)
        self.rules = Rules(
            limit_microseconds(foreground),
            limit_microseconds(background),
            limit_microseconds(duration),
            arguments.boolean("extend_on_focus_change", extend_on_focus_change),
            arguments.namespace(namespace),
            has_log=callbacks["on_input"] is not None,
        )
        if not (key_secret is None or (isinstance(key_secret, bytes) and key_secret)):
            given = "empty" if key_secret == b"" else f"an object of type {type(key_secret).__name__}"
            msg = f"key_secret must be non-empty bytes or None, not {given}"
            raise TypeError(msg)
        self._secret = key_secret
        self.callables = (
            {name: value for name, value in callbacks.items() if value is not None}
            if is_async and all(value is None or callable(value) for value in callbacks.values())
            else arguments.callbacks(**callbacks)
        )
        self._exchanges = Exchanges(keep_seconds, pause, is_local=getattr(states, "is_local", False) is True)

    def user_id(self, visitor: str | uuid.UUID) -> str:
        """Return the user id of a visitor's key.

        Raises:
            TypeError: the key is neither a ``str`` nor a `uuid.UUID`.
            ValueError: the key is empty, or cannot be encoded as UTF-8.

        """
        if isinstance(visitor, uuid.UUID):
            return str(visitor)
        if not isinstance(visitor, str):
            msg = f"visitor must be a str or a uuid.UUID, not an object of type {type(visitor).__name__}"
            raise TypeError(msg)
        if is_uuid(visitor):
            return visitor.lower()
        try:
            visitor.encode()
        except UnicodeEncodeError:
            msg = "visitor must be text that can be encoded as UTF-8"
            raise ValueError(msg) from None
        if not visitor:
            msg = "visitor must not be empty"
            raise ValueError(msg)
        return ids.user_id(self.rules.namespace, visitor, self._secret)

    def event(
        self,
        user_id: str,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None,
        *,
        anonymous: bool,
        extend: bool,
    ) -> Steps:
        """Return the steps of `VisitorSession.get_session_context`."""
        time = None if event_timestamp is None else microseconds(as_utc(event_timestamp, "event_timestamp"))
        identifier = ids.uuid_bytes(arguments.event_id_string(event_id))
        event = TrackedEvent(identifier, time, arguments.boolean("anonymous", anonymous))
        given = Input.EVENT if arguments.boolean("extend", extend) else Input.PASSIVE
        return self._apply(user_id, given, event)

    def background(self, user_id: str, background: bool) -> Steps:  # noqa: FBT001  # as in `VisitorSession`
        """Return the steps of `VisitorSession.set_background`."""
        return self._apply(
            user_id, Input.BACKGROUND if arguments.boolean("background", background) else Input.FOREGROUND
        )

    def command(self, user_id: str, command: Command) -> Steps:
        """Return the steps of a command."""
        return self._apply(user_id, command)

    def current(self, user_id: str) -> Generator[Callable[[Any], Any], Any, SessionContext | None]:
        """Return the steps of `VisitorSession.current`."""
        return self._exchanges.read(self._key(user_id), lambda state, now: self.rules.current(user_id, state, now))

    def forget(self, user_id: str) -> Steps:
        """Return the steps of `VisitorSession.forget_user`."""
        key = self._key(user_id)

        def look(state: VisitorState, now: int) -> Report:
            return self.rules.decide(user_id, state, Command.FORGET, now).report()

        report = yield from self._exchanges.read(key, look)
        yield from self._exchanges.delete(key)
        return report

    def _apply(self, user_id: str, given: Input | Command, event: TrackedEvent | None = None) -> Steps:
        return self._exchanges.apply(
            self._key(user_id), lambda state, now: self.rules.decide(user_id, state, given, now, event)
        )

    def _key(self, user_id: str) -> str:
        return f"client-session:{self.rules.namespace}:{user_id}"
