"""Sessions of a server's visitors: one session per visitor on any number of threads, processes and machines."""

from __future__ import annotations

import inspect
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from client_session.graph import Command
from client_session.visitors.settings import ASYNC_STORE, Visitors

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Generator
    from datetime import datetime

    from client_session.arguments import Seconds
    from client_session.entity import SessionContext, SessionSummary
    from client_session.input_log import InputRecord
    from client_session.visitors.decision import Report
    from client_session_persistence.states import StateStore

Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)


class VisitorSessions:
    """The sessions of all visitors of a service. Every process creates one, with the same settings and a shared store.

    Each visitor has one session at a time, whichever process handles an input: a visitor's inputs are applied in one
    order, in which sessions are numbered without gaps and events 1, 2, 3… There are no ticks and no threads: a session
    that is over ends at the visitor's next input. Thread-safe.

    Time is the store's. An event that is sent again within the visitor's last eight events gets the same entity again.
    """

    __slots__ = ("_states", "_visitors")

    def __init__(  # noqa: PLR0913  # the specification's constructor
        self,
        states: StateStore,
        *,
        foreground_timeout: Seconds = 600.0,
        background_timeout: Seconds = 300.0,
        max_duration: Seconds | None = None,
        extend_on_focus_change: bool = False,
        keep: Seconds = timedelta(days=400),
        namespace: str = "default",
        key_secret: bytes | None = None,
        on_session_start: Callable[[SessionContext], object] | None = None,
        on_session_end: Callable[[SessionSummary], object] | None = None,
        on_input: Callable[[InputRecord], object] | None = None,
    ) -> None:
        """Store the settings, which must be the same in all processes; the store is not used yet.

        Args:
            states: the store that all processes share, such as `RedisStates`.
            foreground_timeout: seconds (or `timedelta`) until a session in the foreground expires; ``math.inf``: never.
            background_timeout: seconds (or `timedelta`) until a session in the background expires; ``math.inf``: never.
            max_duration: seconds (or `timedelta`) from its first event after which a session ends; ``None``: no limit.
            extend_on_focus_change: count a focus change as activity.
            keep: how long a visitor who does not return is remembered; longer than every finite timeout.
            namespace: separates services that share a store; a part of all ids.
            key_secret: makes user ids that cannot be computed from keys without it. Never change it.
            on_session_start: called with the entity of a session's first event.
            on_session_end: called with the summary of a session, by the process that notices its end.
            on_input: called with an `InputRecord` for each input that changed a visitor's state, for a log.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is invalid. Both messages name the argument, its value, and what is allowed.

        Examples:
            >>> sessions = VisitorSessions(SqliteStates("visitors.db"), namespace="shop", on_session_end=print)
            >>> sessions.of("anna").get_session_context(uuid.uuid4()).session_index
            1

        """
        self._states = states
        self._visitors = Visitors(
            states,
            foreground_timeout=foreground_timeout,
            background_timeout=background_timeout,
            max_duration=max_duration,
            extend_on_focus_change=extend_on_focus_change,
            keep=keep,
            namespace=namespace,
            key_secret=key_secret,
            callbacks={
                "on_session_start": on_session_start,
                "on_session_end": on_session_end,
                "on_input": on_input,
            },
            is_async=False,
            pause=time.sleep,
        )

    def __repr__(self) -> str:
        """Show the store and the namespace."""
        return f"VisitorSessions({self._states!r}, namespace={self._visitors.rules.namespace!r})"

    def of(self, visitor: str | uuid.UUID) -> VisitorSession:
        """Return a visitor's session, without using the store.

        Args:
            visitor: the visitor's key, such as a cookie's value or an account's number. A key that is a UUID is the
                user id itself. The key is neither stored nor logged.

        Raises:
            TypeError: the key is neither a ``str`` nor a `uuid.UUID`.
            ValueError: the key is empty, or cannot be encoded as UTF-8.

        Examples:
            >>> sessions.of("anna").user_id
            'bb7b2b16-a768-8490-9aeb-3af675ec2aa2'
            >>> sessions.of("018D3C2E-0000-7000-8000-000000000001").user_id
            '018d3c2e-0000-7000-8000-000000000001'

        """
        return VisitorSession(self, self._visitors.user_id(visitor))

    def _run(self, steps: Generator[Callable[[Any], Any], Any, Result]) -> Result:
        try:
            request = next(steps)
            while True:
                reply = request(self._states)
                if hasattr(reply, "__await__"):
                    if inspect.iscoroutine(reply):
                        reply.close()
                    raise TypeError(ASYNC_STORE)
                request = steps.send(reply)
        except StopIteration as done:
            result: Result = done.value
            return result


class VisitorSession:
    """One visitor's session. Cheap to create; holds no state. Thread-safe.

    Methods raise the state store's errors: `OSError` (`TimeoutError` if the visitor's state was contended for a second)
    or `StoreError`. The input may then have been applied or not; to apply an event for certain, send it again with the
    same id.
    """

    __slots__ = ("_run", "_visitors", "user_id")

    def __init__(self, sessions: VisitorSessions, user_id: str) -> None:
        """Use `VisitorSessions.of` instead."""
        self._run = sessions._run  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class
        self._visitors = sessions._visitors  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # likewise
        self.user_id = user_id
        """The visitor's user id."""

    def __repr__(self) -> str:
        """Show the namespace, but not the user id, which may be the visitor's key."""
        return f"<VisitorSession namespace={self._visitors.rules.namespace!r}>"

    @overload
    def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: Literal[True] = True,
    ) -> SessionContext: ...
    @overload
    def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool,
    ) -> SessionContext | None: ...
    def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool = True,
    ) -> SessionContext | None:
        """Record an event and return its entity; see `ClientSession.get_session_context`.

        Examples:
            >>> event_id = uuid.uuid4()
            >>> entity = visitor.get_session_context(event_id)
            >>> entity.session_index, entity.event_index
            (1, 1)
            >>> visitor.get_session_context(event_id) == entity  # the same event, sent again
            True

        """
        steps = self._visitors.event(self.user_id, event_id, event_timestamp, anonymous=anonymous, extend=extend)
        return self._finish(steps).context

    def set_background(self, background: bool) -> None:  # noqa: FBT001  # as in `ClientSession`
        """Report that the app went to the background (``True``) or came to the foreground (``False``).

        Examples:
            >>> entity = visitor.get_session_context(uuid.uuid4())
            >>> visitor.set_background(True)
            >>> clock.advance(300)
            >>> print(visitor.current())  # over: idle for the background timeout
            None

        """
        self._finish(self._visitors.background(self.user_id, background))

    def touch(self) -> None:
        """Report activity that is not a tracked event; this restarts the timeout.

        Examples:
            >>> entity = visitor.get_session_context(uuid.uuid4())
            >>> clock.advance(500)
            >>> visitor.touch()
            >>> clock.advance(500)
            >>> visitor.get_session_context(uuid.uuid4()).event_index
            2

        """
        self._finish(self._visitors.command(self.user_id, Command.TOUCH))

    def start_new_session(self) -> None:
        """End the current session if there is one; the next event begins another.

        Examples:
            >>> entity = visitor.get_session_context(uuid.uuid4())
            >>> visitor.start_new_session()
            >>> visitor.get_session_context(uuid.uuid4()).session_index
            2

        """
        self._finish(self._visitors.command(self.user_id, Command.NEW_SESSION))

    def forget_user(self) -> None:
        """End the session, and delete the visitor's state. The same key remains the same user, so issue a new key.

        Examples:
            >>> entity = visitor.get_session_context(uuid.uuid4())
            >>> visitor.start_new_session()
            >>> visitor.forget_user()
            >>> visitor.get_session_context(uuid.uuid4()).session_index
            1

        """
        self._finish(self._visitors.forget(self.user_id))

    def current(self) -> SessionContext | None:
        """Return the entity of the current session's last event, without extending the session or writing anything.

        Return ``None`` if there is no session, or if it is over.

        Examples:
            >>> entity = visitor.get_session_context(uuid.uuid4())
            >>> visitor.current() == entity
            True
            >>> clock.advance(600)
            >>> print(visitor.current())
            None

        """
        context: SessionContext | None = self._run(self._visitors.current(self.user_id))
        return context

    def _finish(self, steps: Generator[Callable[[Any], Any], Any, Report]) -> Report:
        report: Report = self._run(steps)
        raised: BaseException | None = None
        for name, argument in report.notifications:
            callback = self._visitors.callables.get(name)
            if callback is None:
                continue
            try:
                callback(argument)
            except Exception:
                _LOGGER.exception("%s failed: %r", name, callback)
            except BaseException as error:  # noqa: BLE001  # raised after the other callbacks
                raised = error
        if raised is not None:
            raise raised
        return report
