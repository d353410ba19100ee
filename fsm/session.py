"""The session object: what an embedder calls. How it is carried out stands in `fsm.shell`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self
from uuid import UUID

from fsm import options
from fsm.checker import SHARED_CHECKER
from fsm.clock import SYSTEM_CLOCK
from fsm.entity import SessionContext
from fsm.errors import SessionClosedError
from fsm.lifecycle import Lifecycle
from fsm.locks import acquire_soon
from fsm.shell import SessionShell
from persistence.snapshot import SHAPE, UUID_SHAPE, as_utc
from persistence.waiting import one_call

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

    from fsm.clock import Clock
    from fsm.graph import Input, SessionState
    from fsm.notices import Logger
    from fsm.options import Seconds
    from fsm.scheduler import Scheduler
    from fsm.summary import SessionSummary
    from persistence import SnapshotStore


_LOGGER = logging.getLogger(__name__)


class ClientSession(SessionShell):
    """Says which tracked events belong together: a run of events with no gap as long as the timeout.

    Any method may be called from any thread, and from a child after ``os.fork()``. Which events share a session
    depends on the times of events and focus changes alone, never on when ticks come. No failure to load or save is
    raised, but by `save`: the session goes on in memory, and `save_error` tells.

    Callbacks run on the thread that caused them, after the session's lock is released, in order; they may call the
    session again. One that raises is logged and changes nothing else.
    """

    __slots__ = ()

    def __init__(  # noqa: PLR0913  # the specification's constructor
        self,
        save_path: str | os.PathLike[str] | None = None,
        foreground_timeout: Seconds = 600.0,
        background_timeout: Seconds = 300.0,
        check_interval: Seconds = 15.0,
        logger: Logger | None = None,
        *,
        store: SnapshotStore | None = None,
        clock: Clock | None = None,
        scheduler: Scheduler | None = None,
        count_empty_sessions: bool = False,
        continue_on_restart: bool = False,
        on_session_start: Callable[[SessionContext], object] | None = None,
        on_session_end: Callable[[SessionSummary], object] | None = None,
        on_state_change: Callable[[SessionState, Input, SessionState], object] | None = None,
    ) -> None:
        """Load the user and start the checker; the session is pending until its first event.

        Args:
            save_path: the XML save file; parent folders are made. Or leave it out and give ``store``.
            foreground_timeout: seconds (or `timedelta`) until a session expires in focus.
            background_timeout: the same, out of focus.
            check_interval: how often ticks come, in seconds (or `timedelta`).
            logger: a `logging.Logger` or anything with its methods; ``None``: this module's own. One that can be asked
                (``isEnabledFor``) whether it takes level DEBUG is told there of each decision, as `explain` is.
            store: any `SnapshotStore` instead of ``save_path``.
            clock: any `Clock`; ``None``: the machine's.
            scheduler: any `Scheduler`; ``None``: the process's shared checker thread.
            count_empty_sessions: number as the .NET tracker does: every expiry and every construction makes, counts
                and saves a session, with or without events.
            continue_on_restart: go on with the saved session if it has not timed out meanwhile.
            on_session_start: called with the entity of a session's first event.
            on_session_end: called with the summary of a session with events that has ended.
            on_state_change: called with the state before, the input, and the state after.

        Raises:
            TypeError: an argument is of a wrong type.
            ValueError: an argument has a value that is not allowed. Both name argument, value and what is allowed.

        """
        if clock is not None:
            options.require_methods("clock", clock, "monotonic", "now")
        if scheduler is not None:
            options.require_methods("scheduler", scheduler, "start", "stop")
        if logger is not None:
            options.require_methods("logger", logger, "info", "warning", "exception")
        options.callback("on_session_start", on_session_start)
        options.callback("on_session_end", on_session_end)
        options.callback("on_state_change", on_state_change)
        super().__init__(
            foreground_timeout=options.seconds("foreground_timeout", foreground_timeout),
            background_timeout=options.seconds("background_timeout", background_timeout),
            check_interval=options.seconds("check_interval", check_interval),
            count_empty_sessions=options.boolean("count_empty_sessions", count_empty_sessions),
            continue_on_restart=options.boolean("continue_on_restart", continue_on_restart),
            store=options.the_store(save_path, store),
            logger=_LOGGER if logger is None else logger,
            clock=SYSTEM_CLOCK if clock is None else clock,
            scheduler=SHARED_CHECKER if scheduler is None else scheduler,
            on_session_start=on_session_start,
            on_session_end=on_session_end,
            on_state_change=on_state_change,
        )

    # Events and focus

    def get_session_context(
        self,
        event_id: UUID | str,
        event_timestamp: datetime | None = None,
        *,
        anonymous: bool = False,
    ) -> SessionContext:
        """Record an event and return its entity.

        Args:
            event_id: a `uuid.UUID`, or its text in any case; the entity carries lower case.
            event_timestamp: when the event happened, aware; ``None``: now. It stamps the session's first event and
                its summary; which session the event belongs to depends on when it is recorded.
            anonymous: the entity names no user (zero UUID) and no previous session.

        Raises:
            ValueError: the id is no UUID, or the timestamp is naive.
            TypeError: the timestamp is no `datetime`.
            SessionClosedError: after `close`.

        """
        if not (
            event_id.encode("ascii", "replace").translate(SHAPE) == UUID_SHAPE  # is_uuid_text, without the call
            if type(event_id) is str
            else type(event_id) is UUID
        ):
            event_id = options.event_id_text(event_id)
        if event_timestamp is not None:
            event_timestamp = as_utc(event_timestamp)
        # The short path: nothing changes state, so the machine is not asked.
        lock = self._lock
        try:
            if not lock.acquire(False):  # noqa: FBT003  # by name it takes twice as long
                acquire_soon(lock)
            lifecycle, identity = self._lifecycle, self._identity
            number = lifecycle.continue_session(self._clock.monotonic())
            if number:
                identity.last_event_time = event_timestamp
        finally:
            lock.release()
        if number:
            facts = identity.facts
            return SessionContext(facts.anonymous() if anonymous else facts, number)
        return self._decide_event(event_id, event_timestamp, anonymous=anonymous)

    def set_background(self, background: bool) -> None:  # noqa: FBT001  # the specification's signature, and .NET's
        """Say that the app lost the focus (``True``) or won it back (``False``).

        The same value again changes nothing, but ``False`` always starts the checker. A toggle is no activity; it is
        judged by the timeout of the state that is left.

        Raises:
            TypeError: it is no ``bool``.
            SessionClosedError: after `close`.

        """
        options.boolean("background", background)
        with one_call():
            given = "background" if background else "foreground"
            self._change("set_background", given, lambda core, now: core.set_background(now, background=background))
            if self._continues:
                self._save_activity()

    def touch(self) -> None:
        """Say that the user did something that is not tracked: the timeout starts anew.

        A session that has timed out already is not revived.
        """
        self._change("touch", "touch", Lifecycle.touch)

    def start_new_session(self) -> None:
        """End the current session now, if it has events; the new id can be read at once."""
        self._change("start_new_session", "new-session", Lifecycle.start_new_session)

    # Checking

    def start_checker(self) -> None:
        """Let ticks come, and sessions expire, again."""
        self._change("start_checker", "resume", Lifecycle.start_checker)

    def stop_checker(self) -> None:
        """Suspend expiry (a film is playing) until `start_checker`, an event, or foregrounding."""
        self._change("stop_checker", "stop", Lifecycle.stop_checker)

    # Saving

    def save(self) -> None:
        """Write now how far the newest numbered session has come; a pending one is never written.

        It returns when that is durable, also with a store that saves in the background: on an event loop, call it by
        ``await asyncio.to_thread(session.save)``.

        Raises:
            Exception: what went wrong, as the store raised it: `OSError` (`TimeoutError`: the lock was not free for
                1 s), or what a store of your own raises.
            SessionClosedError: after `close`.

        """
        with one_call():
            if self._closed:
                raise SessionClosedError(self.save.__name__)
            error = self._ledger.save(self._progress(), wait=True)
        self._tell()
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop the checker, save, release; twice is fine. What fails to be saved is logged and is in `save_error`.

        A store that saves in the background is not waited for; the interpreter's exit does that.
        """
        self._close()

    def __enter__(self) -> Self:
        """Return the session, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    # Settings

    @property
    def foreground_timeout(self) -> float:
        """Seconds until a session expires in focus; settable at any time (a `timedelta` too), effective at once."""
        return self._lifecycle.foreground_timeout

    @foreground_timeout.setter
    def foreground_timeout(self, value: Seconds) -> None:
        foreground = options.seconds("foreground_timeout", value)
        self._change("foreground_timeout", "timeouts", lambda core, now: core.set_timeouts(now, foreground=foreground))

    @property
    def background_timeout(self) -> float:
        """The same, out of focus."""
        return self._lifecycle.background_timeout

    @background_timeout.setter
    def background_timeout(self, value: Seconds) -> None:
        background = options.seconds("background_timeout", value)
        self._change("background_timeout", "timeouts", lambda core, now: core.set_timeouts(now, background=background))
