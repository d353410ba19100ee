"""Sessions of a server's visitors, for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from client_session.graph import Command
from client_session.visitors.settings import Visitors

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Generator
    from datetime import datetime

    from client_session.arguments import Seconds
    from client_session.entity import SessionContext, SessionSummary
    from client_session.input_log import InputRecord
    from client_session.visitors.decision import Report
    from client_session_persistence.states import AsyncStateStore, StateStore

Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)


class AsyncVisitorSessions:
    """`VisitorSessions` for asyncio: callbacks may be coroutine functions, and the store is usually asynchronous.

    With a store that is not, such as `MemoryStates` or `SqliteStates`, each call blocks the event loop for a moment.

    Examples:
        >>> async def track(key: str) -> int:
        ...     entity = await AsyncVisitorSessions(ManualStates(clock)).of(key).get_session_context(uuid.uuid4())
        ...     return entity.session_index
        >>> asyncio.run(track("anna"))
        1

    """

    __slots__ = ("_states", "_visitors")

    def __init__(  # noqa: PLR0913  # the specification's constructor
        self,
        states: AsyncStateStore | StateStore,
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
        """Store the settings; see `VisitorSessions`."""
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
            callbacks={"on_session_start": on_session_start, "on_session_end": on_session_end, "on_input": on_input},
            is_async=True,
            pause=asyncio.sleep,
        )

    def __repr__(self) -> str:
        """Show the store and the namespace."""
        return f"AsyncVisitorSessions({self._states!r}, namespace={self._visitors.rules.namespace!r})"

    def of(self, visitor: str | uuid.UUID) -> AsyncVisitorSession:
        """Return a visitor's session, without using the store; see `VisitorSessions.of`."""
        return AsyncVisitorSession(self, self._visitors.user_id(visitor))

    async def _run(self, steps: Generator[Callable[[Any], Any], Any, Result]) -> Result:
        try:
            request = next(steps)
            while True:
                reply = request(self._states)
                request = steps.send(await reply if inspect.isawaitable(reply) else reply)
        except StopIteration as done:
            result: Result = done.value
            return result


class AsyncVisitorSession:
    """One visitor's session; see `VisitorSession`. Safe to use from any task of an event loop."""

    __slots__ = ("_run", "_visitors", "user_id")

    def __init__(self, sessions: AsyncVisitorSessions, user_id: str) -> None:
        """Use `AsyncVisitorSessions.of` instead."""
        self._run = sessions._run  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class
        self._visitors = sessions._visitors  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # likewise
        self.user_id = user_id
        """The visitor's user id."""

    def __repr__(self) -> str:
        """Show the namespace, but not the user id, which may be the visitor's key."""
        return f"<AsyncVisitorSession namespace={self._visitors.rules.namespace!r}>"

    @overload
    async def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: Literal[True] = True,
    ) -> SessionContext: ...
    @overload
    async def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool,
    ) -> SessionContext | None: ...
    async def get_session_context(
        self,
        event_id: uuid.UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
        extend: bool = True,
    ) -> SessionContext | None:
        """Record an event and return its entity; see `ClientSession.get_session_context`."""
        steps = self._visitors.event(self.user_id, event_id, event_timestamp, anonymous=anonymous, extend=extend)
        return (await self._finish(steps)).context

    async def set_background(self, background: bool) -> None:  # noqa: FBT001  # as in `ClientSession`
        """Report that the app went to the background (``True``) or came to the foreground (``False``)."""
        await self._finish(self._visitors.background(self.user_id, background))

    async def touch(self) -> None:
        """Report activity that is not a tracked event; this restarts the timeout."""
        await self._finish(self._visitors.command(self.user_id, Command.TOUCH))

    async def start_new_session(self) -> None:
        """End the current session if there is one; the next event begins another."""
        await self._finish(self._visitors.command(self.user_id, Command.NEW_SESSION))

    async def forget_user(self) -> None:
        """End the session, and delete the visitor's state. The same key remains the same user, so issue a new key."""
        await self._finish(self._visitors.forget(self.user_id))

    async def current(self) -> SessionContext | None:
        """Return the entity of the current session's last event, without extending it; see `VisitorSession.current`."""
        context: SessionContext | None = await self._run(self._visitors.current(self.user_id))
        return context

    async def _finish(self, steps: Generator[Callable[[Any], Any], Any, Report]) -> Report:
        report: Report = await self._run(steps)
        raised: BaseException | None = None
        for name, argument in report.notifications:
            callback = self._visitors.callables.get(name)
            if callback is None:
                continue
            try:
                result = callback(argument)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                _LOGGER.exception("%s failed: %r", name, callback)
            except BaseException as error:  # noqa: BLE001  # raised after the other callbacks
                raised = error
        if raised is not None:
            raise raised
        return report
