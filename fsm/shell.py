"""The shell round the lifecycle core: clock, lock, store, ticks, callbacks and forks."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING

from fsm import options
from fsm.clock import Anchor
from fsm.errors import SessionClosedError
from fsm.identity import Identity
from fsm.ledger import Ledger
from fsm.lifecycle import Ended, EndReason, Lifecycle
from fsm.notices import Notices
from fsm.reading import SessionReading
from persistence.waiting import one_call

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from fsm.clock import Clock
    from fsm.entity import SessionContext
    from fsm.graph import Input, SessionState
    from fsm.lifecycle import Decision
    from fsm.notices import Logger
    from fsm.options import Seconds
    from fsm.scheduler import Scheduler
    from fsm.summary import SessionSummary
    from persistence import Snapshot, SnapshotStore


class SessionShell(SessionReading):
    """How a session decides and carries out what was decided: at one moment, under one lock, told after its release."""

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

    def __init__(  # noqa: PLR0913  # the checked arguments of ClientSession
        self,
        *,
        foreground_timeout: float,
        background_timeout: float,
        check_interval: float,
        count_empty_sessions: bool,
        continue_on_restart: bool,
        store: SnapshotStore,
        logger: Logger,
        clock: Clock,
        scheduler: Scheduler,
        on_session_start: Callable[[SessionContext], object] | None,
        on_session_end: Callable[[SessionSummary], object] | None,
        on_state_change: Callable[[SessionState, Input, SessionState], object] | None,
    ) -> None:
        """Load the user, continue or begin a session, and let ticks come."""
        self._check_interval = check_interval
        self._continues = continue_on_restart
        self._clock = clock
        self._scheduler = scheduler
        self._on_session_start = on_session_start
        self._on_session_end = on_session_end
        self._on_state_change = on_state_change
        self._lock = threading.RLock()
        self._closed = False
        self._scheduled = False
        self._notices = Notices(logger)
        with one_call():
            self._ledger = Ledger(store, logger, self._notices)
            moment = self._moment()
            self._identity = Identity(self._ledger, moment)
            self._lifecycle = Lifecycle(
                foreground_timeout, background_timeout, moment.monotonic, count_empty_sessions=count_empty_sessions
            )
            timeout = timedelta(seconds=foreground_timeout)
            if continue_on_restart and (saved := self._identity.continue_saved(moment, timeout)):
                self._lifecycle.go_on(*saved)
            elif count_empty_sessions:
                self._identity.number(moment)
        self._keep_scheduled(moment.monotonic)
        _live_sessions.add(self)
        self._notices.deliver()

    # What a scheduler needs

    def tick(self) -> None:
        """Check now whether the session has timed out, and try again to save what could not be saved.

        The scheduler calls it; call it from a GUI's or a game's loop to need no thread. While the checker is stopped,
        nothing expires.
        """
        # Most ticks find nothing to do, and there may be many sessions.
        with self._lock:
            idle = not self._closed and self._lifecycle.is_tick_idle(self._clock.monotonic())
        error = self._ledger.error
        if idle and error is None and not self._continues:
            return
        # A lock that is known to be held is not waited for: the next tick will try again.
        with one_call(patient=not isinstance(error, TimeoutError)):
            if not idle:
                with self._deciding("tick") as now:
                    self._carry_out(self._lifecycle.tick(now))
            if self._continues or self._ledger.error is not None:
                self._save_activity()

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
            with one_call(), self._lock:
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

    def _close(self) -> None:
        with one_call():
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


_live_sessions: weakref.WeakSet[SessionShell] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_live_sessions):
        session._after_fork()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
