"""The shell round the lifecycle core: clock, lock, store, ticks, callbacks and forks."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from fsm import history, options
from fsm.clock import Anchor
from fsm.draft import Draft, OvertakenError
from fsm.entity import SessionContext
from fsm.errors import SessionClosedError
from fsm.explanation import Ending
from fsm.identity import Identity
from fsm.ledger import Ledger
from fsm.lifecycle import Ended, EndReason, Lifecycle
from fsm.locks import is_held
from fsm.notices import Notices
from fsm.reading import SessionReading
from persistence.waiting import one_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from fsm.clock import Clock
    from fsm.graph import Input, SessionState
    from fsm.lifecycle import Decision
    from fsm.notices import Logger
    from fsm.options import Seconds
    from fsm.scheduler import Scheduler
    from fsm.summary import SessionSummary
    from persistence import Snapshot, SnapshotStore


Result = TypeVar("Result")


class SessionShell(SessionReading):
    """How a session decides and carries out what was decided: at one moment, under one lock, told after its release."""

    __slots__ = (
        "_check_interval",
        "_closed",
        "_continues",
        "_lock",
        "_logger",
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
        self._logger = logger
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
        self._history = self._identity.entry_of_start(self._lifecycle, moment, continues=continue_on_restart)
        self._keep_scheduled(moment.monotonic)
        _live_sessions.add(self)
        if self._history:
            self._notices.explain(self._history)
        self._notices.deliver()

    # What a scheduler needs

    def tick(self) -> None:
        """Check now whether the session has timed out, and try again to save what could not be saved.

        The scheduler calls it; call it from a GUI's or a game's loop to need no thread. While the checker is stopped,
        nothing expires.
        """
        # Most ticks find nothing to do, and there may be many sessions. What another thread changes just now, which no
        # lock keeps it from, the next tick finds.
        idle = self._lifecycle.is_tick_idle(self._clock.monotonic()) and not self._closed
        error = self._ledger.error
        if idle and error is None and not self._continues:
            return
        # A lock that is known to be held is not waited for: the next tick will try again.
        with one_call(patient=not isinstance(error, TimeoutError)):
            if not idle:
                self._change("tick", "tick", Lifecycle.tick)
            if self._continues or self._ledger.error is not None:
                self._save_activity()

    @property
    def check_interval(self) -> float:
        """Seconds between ticks; settable at any time (a `timedelta` too), effective at once."""
        return self._check_interval

    @check_interval.setter
    def check_interval(self, value: Seconds) -> None:
        interval = options.seconds("check_interval", value)

        def change(draft: Draft) -> None:
            self._check_interval = interval
            if self._scheduled:
                self._start_ticks(draft.now)

        self._decide("check_interval", change)

    # Deciding, and carrying out what was decided

    def _decide(self, method: str, decide: Callable[[Draft], Result], given: str = "") -> Result:
        """Let ``decide`` decide on a draft, under the lock of an open session; afterwards tell whom it concerns.

        ``given`` is what an explanation calls the input that came.

        Under the lock there is still one who may come between: a signal handler or a finalizer on this very thread, or
        a fork in one, that calls the session. It finds the session as it was before; and what it changed stands, for
        then the draft is thrown away and another is made.
        """
        try:
            with one_call(), self._lock:
                is_outermost = self._identity.spare_ids is None
                while True:
                    if self._closed:
                        raise SessionClosedError(method)
                    before, identity = self._lifecycle, self._identity
                    draft = Draft(before, identity, self._clock.monotonic())
                    if self._lifecycle is not before:
                        continue
                    try:
                        result = decide(draft)
                    except OvertakenError:
                        continue
                    entry = draft.entry(given, before, self._clock)
                    prolonged = history.prolonged(self._history, entry)
                    # Nothing is called from here until the draft stands, so that nobody comes between. A child that
                    # is forked later has notices of its own: what is told here is the parent's to tell.
                    if self._lifecycle is before and before.event_count == draft.event_count_before:
                        notices = self._notices
                        self._lifecycle, self._identity, self._closed = draft.lifecycle, draft.identity, draft.closed
                        self._history = prolonged
                        break
                before.retire()
                if is_outermost:
                    self._identity.spare_ids = None
                for call, args in draft.notices:
                    notices.add(call, *args)
                self._keep_scheduled(draft.now)
            if entry:
                notices.explain(entry)
            return result
        finally:
            self._tell()

    def _decide_event(
        self, event_id: UUID | str, event_timestamp: datetime | None, *, anonymous: bool
    ) -> SessionContext:
        """Decide on an event that changes more than the count; return its entity."""

        def record(draft: Draft) -> SessionContext:
            self._carry_out(draft, draft.lifecycle.event(draft.now))
            number = draft.lifecycle.event_count
            if number == 1:
                draft.identity.number(self._moment(draft.now), options.event_id_text(event_id), event_timestamp)
                draft.begun = draft.identity.beginning()
            draft.identity.last_event_time = event_timestamp
            facts = draft.identity.facts
            context = SessionContext(facts.anonymous() if anonymous else facts, number)
            if number == 1 and self._on_session_start is not None:
                draft.tell(self._on_session_start, context)
            return context

        return self._decide("get_session_context", record, "event")

    def _change(self, method: str, given: str, change: Callable[[Lifecycle, float], Iterable[Decision]]) -> None:
        """Let the lifecycle of an open session change."""
        self._decide(method, lambda draft: self._carry_out(draft, change(draft.lifecycle, draft.now)), given)

    def _tell(self) -> None:
        """Deliver the notices, unless this call came between another's: then that one does, when it holds no lock."""
        if not (is_held(self._lock) or self._ledger.is_busy):
            self._notices.deliver()

    def _carry_out(self, draft: Draft, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Ended):
                self._end(draft, decision)
            elif self._on_state_change is not None:
                draft.tell(self._on_state_change, decision.before, decision.input, decision.after)

    def _end(self, draft: Draft, ended: Ended) -> None:
        moment = self._moment()
        summary = draft.identity.end(ended, moment)
        draft.ended = Ending(summary.session_index, ended.event_count, ended.reason)
        if ended.event_count and self._on_session_end is not None:
            draft.tell(self._on_session_end, summary)
        if ended.reason is not EndReason.CLOSE:
            draft.identity.renew()
            if draft.lifecycle.count_empty_sessions:
                draft.identity.number(moment)
                draft.begun = draft.identity.beginning()

    def _keep_scheduled(self, now: float) -> None:
        """Tell the scheduler what it was not told yet."""
        while (running := self._lifecycle.checker_running) is not self._scheduled:
            self._scheduled = running
            if running:
                self._start_ticks(now)
            else:
                self._scheduler.stop(self)
            self._scheduled = running  # was told last, whoever came between

    def _start_ticks(self, now: float) -> None:
        try:
            self._scheduler.start(self, now)
        except RuntimeError as error:
            self._notices.add(self._logger.warning, "%s; sessions expire at their next event", error)

    def _moment(self, now: float | None = None) -> Anchor:
        return Anchor(self._clock.monotonic() if now is None else now, self._clock.now())

    def _progress(self) -> Snapshot | None:
        moment = self._moment()
        with self._lock:
            lifecycle, identity = self._lifecycle, self._identity
            return identity.progress(lifecycle.event_count, lifecycle.last_activity, moment)

    def _save_activity(self) -> None:
        """Save what a restart would need, if the store lacks it or failed before. The lock is free meanwhile."""
        record = self._progress()
        if self._ledger.error is not None or not self._ledger.has(record):
            self._ledger.save(record)
            self._tell()

    def _close(self) -> None:
        def close(draft: Draft) -> None:
            self._carry_out(draft, draft.lifecycle.close(draft.now, may_continue=self._continues))
            draft.closed = True

        with one_call(), contextlib.suppress(SessionClosedError):
            self._decide("close", close, "close")
            _live_sessions.discard(self)
            self._save_activity()

    def _after_fork(self) -> None:
        """Begin a session of the child's own: the present one, its number and its end are the parent's."""
        self._lock = threading.RLock()
        self._notices = self._notices.after_fork()
        self._ledger.after_fork()
        moment = self._moment()
        before = self._lifecycle
        self._lifecycle = before.after_fork(moment.monotonic)
        before.retire()
        self._identity = Identity(self._ledger, moment)
        self._history = b""
        self._scheduled = False
        self._keep_scheduled(moment.monotonic)


_live_sessions: weakref.WeakSet[SessionShell] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_live_sessions):
        session._after_fork()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
