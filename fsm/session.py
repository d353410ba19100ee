"""The session object: the shell round the lifecycle core, with clock, lock, store, ticks and callbacks."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from fsm import options
from fsm.checker import SHARED_CHECKER
from fsm.clock import Anchor, SystemClock
from fsm.entity import SessionContext
from fsm.errors import SessionClosedError
from fsm.identity import Identity
from fsm.ledger import Ledger
from fsm.lifecycle import Ended, EndReason, Lifecycle
from fsm.notices import Notices
from fsm.reading import SessionReading
from persistence.snapshot import as_utc, is_uuid_text

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Generator, Iterable
    from datetime import datetime
    from types import TracebackType

    from fsm.clock import Clock
    from fsm.graph import Input, SessionState
    from fsm.lifecycle import Decision
    from fsm.notices import Logger
    from fsm.options import Seconds
    from fsm.scheduler import Scheduler
    from fsm.summary import SessionSummary
    from persistence import Snapshot, SnapshotStore


class ClientSession(SessionReading):
    """Says which tracked events belong together: a run of events with no gap as long as the timeout.

    Any method may be called from any thread, and from a child after ``os.fork()``. Which events share a session
    depends on the times of events and focus changes alone, never on when ticks come. No failure to load or save is
    raised, but by `save`: the session goes on in memory, and `save_error` tells.

    Callbacks run on the thread that caused them, after the session's lock is released, in order; they may call the
    session again. One that raises is logged and changes nothing else.
    """

    __slots__ = (
        "_check_interval",
        "_closed",
        "_continues",
        "_lock",
        "_notices",
        "_on_session_end",
        "_on_session_start",
        "_on_state_change",
        "_scheduled",
        "_scheduler",
    )

    def __init__(  # noqa: PLR0913  # the specification's constructor
        self,
        save_path: str | os.PathLike[str] | None = None,
        foreground_timeout: Seconds = 600,
        background_timeout: Seconds = 300,
        check_interval: Seconds = 15,
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
            logger: a `logging.Logger` or anything with its methods; ``None``: this module's own.
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
        foreground = options.seconds("foreground_timeout", foreground_timeout)
        background = options.seconds("background_timeout", background_timeout)
        self._check_interval = options.seconds("check_interval", check_interval)
        options.boolean("count_empty_sessions", count_empty_sessions)
        self._continues = options.boolean("continue_on_restart", continue_on_restart)
        self._clock: Clock = SystemClock() if clock is None else clock
        options.require_methods("clock", self._clock, "monotonic", "now")
        self._scheduler: Scheduler = SHARED_CHECKER if scheduler is None else scheduler
        options.require_methods("scheduler", self._scheduler, "start", "stop")
        logger = logging.getLogger(__name__) if logger is None else logger
        options.require_methods("logger", logger, "debug", "info", "warning", "exception")
        options.callback("on_session_start", on_session_start)
        options.callback("on_session_end", on_session_end)
        options.callback("on_state_change", on_state_change)
        store = options.the_store(save_path, store)
        self._on_session_start = on_session_start
        self._on_session_end = on_session_end
        self._on_state_change = on_state_change

        self._lock = threading.RLock()
        self._closed = False
        self._scheduled = False
        self._notices = Notices(logger)
        self._ledger = Ledger(store, logger, self._notices)
        moment = self._moment()
        self._identity = Identity(self._ledger, moment)
        self._lifecycle = Lifecycle(foreground, background, moment.monotonic, count_empty_sessions=count_empty_sessions)
        if self._continues and (saved := self._identity.continue_saved(moment, timedelta(seconds=foreground))):
            self._lifecycle.go_on(*saved)
        elif count_empty_sessions:
            self._identity.number(moment)
        self._keep_scheduled(moment.monotonic)
        _live_sessions.add(self)
        self._notices.deliver()

    # Events and focus

    def get_session_context(
        self,
        event_id: uuid.UUID | str,
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
        if type(event_id) is not str or not is_uuid_text(event_id):
            event_id = options.event_id_text(event_id)
        if event_timestamp is not None:
            event_timestamp = as_utc(event_timestamp)
        # The short path: nothing changes state, so the machine is not asked.
        with self._lock:
            number = self._lifecycle.continue_session(self._clock.monotonic())
            if number:
                self._identity.last_event_time = event_timestamp
                facts = self._identity.facts
                return SessionContext(facts.anonymous() if anonymous else facts, number)
        with self._deciding("get_session_context") as now:
            self._carry_out(self._lifecycle.event(now))
            number = self._lifecycle.event_count
            if number == 1:
                self._identity.number(self._moment(now), event_id.lower(), event_timestamp)
            self._identity.last_event_time = event_timestamp
            facts = self._identity.facts
            context = SessionContext(facts.anonymous() if anonymous else facts, number)
            if number == 1 and self._on_session_start is not None:
                self._notices.add(self._on_session_start, context)
        return context

    def set_background(self, background: bool) -> None:  # noqa: FBT001  # the specification's signature, and .NET's
        """Say that the app lost the focus (``True``) or won it back (``False``).

        The same value again changes nothing, but ``False`` always starts the checker. A toggle is no activity; it is
        judged by the timeout of the state that is left.

        Raises:
            TypeError: it is no ``bool``.
            SessionClosedError: after `close`.

        """
        options.boolean("background", background)
        with self._deciding("set_background") as now:
            self._carry_out(self._lifecycle.set_background(now, background=background))
        if self._continues:
            self._save_activity()

    def touch(self) -> None:
        """Say that the user did something that is not tracked: the timeout starts anew.

        A session that has timed out already is not revived.
        """
        with self._deciding("touch") as now:
            self._carry_out(self._lifecycle.touch(now))

    def start_new_session(self) -> None:
        """End the current session now, if it has events; the new id can be read at once."""
        with self._deciding("start_new_session") as now:
            self._carry_out(self._lifecycle.start_new_session(now))

    # Checking

    def tick(self) -> None:
        """Check now whether the session has timed out, and try again to save what could not be saved.

        The scheduler calls it; call it from a GUI's or a game's loop to need no thread. While the checker is stopped,
        nothing expires.
        """
        # Most ticks find nothing to do, and there may be many sessions.
        with self._lock:
            idle = not self._closed and self._lifecycle.is_tick_idle(self._clock.monotonic())
        if not idle:
            with self._deciding("tick") as now:
                self._carry_out(self._lifecycle.tick(now))
        if self._continues or self._ledger.error is not None:
            self._save_activity()

    def start_checker(self) -> None:
        """Let ticks come, and sessions expire, again."""
        with self._deciding("start_checker") as now:
            self._carry_out(self._lifecycle.start_checker(now))

    def stop_checker(self) -> None:
        """Suspend expiry (a film is playing) until `start_checker`, an event, or foregrounding."""
        with self._deciding("stop_checker") as now:
            self._carry_out(self._lifecycle.stop_checker(now))

    # Saving

    def save(self) -> None:
        """Write now how far the newest numbered session has come; a pending one is never written.

        Raises:
            Exception: what went wrong, as the store raised it: `OSError` (`TimeoutError`: the lock was not free for
                1 s), or what a store of your own raises.
            SessionClosedError: after `close`.

        """
        with self._deciding("save"):
            record = self._progress()
        error = self._ledger.save(record)
        self._notices.deliver()
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop the checker, save, release; twice is fine. What fails to be saved is logged and is in `save_error`."""
        with self._lock:
            if self._closed:
                return
            now = self._clock.monotonic()
            self._carry_out(self._lifecycle.close(now, may_continue=self._continues))
            self._closed = True
            self._keep_scheduled(now)
            _live_sessions.discard(self)
        self._save_activity()
        self._notices.deliver()

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
        with self._deciding("foreground_timeout") as now:
            background = self._lifecycle.background_timeout
            self._carry_out(self._lifecycle.set_timeouts(now, foreground=foreground, background=background))

    @property
    def background_timeout(self) -> float:
        """The same, out of focus."""
        return self._lifecycle.background_timeout

    @background_timeout.setter
    def background_timeout(self, value: Seconds) -> None:
        background = options.seconds("background_timeout", value)
        with self._deciding("background_timeout") as now:
            foreground = self._lifecycle.foreground_timeout
            self._carry_out(self._lifecycle.set_timeouts(now, foreground=foreground, background=background))

    @property
    def check_interval(self) -> float:
        """Seconds between ticks; settable at any time (a `timedelta` too), effective at once."""
        return self._check_interval

    @check_interval.setter
    def check_interval(self, value: Seconds) -> None:
        interval = options.seconds("check_interval", value)
        with self._deciding("check_interval") as now:
            self._check_interval = interval
            if self._scheduled:
                self._scheduler.start(self, now)

    # Deciding, and carrying out what was decided

    @contextlib.contextmanager
    def _deciding(self, method: str) -> Generator[float]:
        """Hold the lock of an open session for a decision at one moment; afterwards tell whom it concerns."""
        try:
            with self._lock:
                if self._closed:
                    raise SessionClosedError(method)
                now = self._clock.monotonic()
                yield now
                self._keep_scheduled(now)
        finally:
            self._notices.deliver()

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Ended):
                self._end(decision)
            elif self._on_state_change is not None:
                self._notices.add(self._on_state_change, decision.before, decision.input, decision.after)

    def _end(self, ended: Ended) -> None:
        moment = self._moment()
        summary = self._identity.end(ended, moment)
        if ended.event_count and self._on_session_end is not None:
            self._notices.add(self._on_session_end, summary)
        if ended.reason is not EndReason.CLOSE:
            self._identity.renew()
            if self._lifecycle.count_empty_sessions:
                self._identity.number(moment)

    def _keep_scheduled(self, now: float) -> None:
        running, was_running = self._lifecycle.checker_running, self._scheduled
        self._scheduled = running
        if running and not was_running:
            self._scheduler.start(self, now)
        elif was_running and not running:
            self._scheduler.stop(self)

    def _moment(self, now: float | None = None) -> Anchor:
        return Anchor(self._clock.monotonic() if now is None else now, self._clock.now())

    def _progress(self) -> Snapshot | None:
        lifecycle = self._lifecycle
        return self._identity.progress(lifecycle.event_count, lifecycle.last_activity, self._moment())

    def _save_activity(self) -> None:
        """Save what a restart would need, if the store lacks it or failed before. The lock is free meanwhile."""
        with self._lock:
            record = self._progress()
        if self._ledger.error is not None or not self._ledger.has(record):
            self._ledger.save(record)
            self._notices.deliver()

    def _after_fork(self) -> None:
        """Begin a session of the child's own: the present one, its number and its end are the parent's."""
        self._lock = threading.RLock()
        self._notices = self._notices.after_fork()
        self._ledger.after_fork()
        moment = self._moment()
        self._lifecycle = self._lifecycle.after_fork(moment.monotonic)
        self._identity = Identity(self._ledger, moment)
        self._scheduled = False
        self._keep_scheduled(moment.monotonic)


_live_sessions: weakref.WeakSet[ClientSession] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_live_sessions):
        session._after_fork()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
