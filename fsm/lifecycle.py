"""The lifecycle core: it is told inputs and times, and returns decisions. No I/O, no clock, no lock.

Times are seconds on a monotonic clock. Which events share a session follows from two rules: the table in `fsm.graph`,
and *check first* (`Lifecycle._check`).
"""

from __future__ import annotations

import enum
import math

import attrs

from fsm.focus_time import FocusTime
from fsm.graph import INITIAL, Input, SessionState
from fsm.machine import send


class EndReason(enum.StrEnum):
    """Why a session ended."""

    TIMEOUT = "timeout"
    BACKGROUND_TIMEOUT = "background-timeout"
    NEW_SESSION = "new-session"
    CLOSE = "close"


@attrs.frozen
class Ended:
    """Decision: the current session is over. ``event_count`` is 0 only if empty sessions count."""

    reason: EndReason
    event_count: int
    last_event: float
    last_activity: float
    foreground_seconds: float
    background_seconds: float


@attrs.frozen
class StateChanged:
    """Decision: an input moved the lifecycle from one state to another."""

    before: SessionState
    input: Input
    after: SessionState


Decision = Ended | StateChanged

_FOREGROUND = SessionState.FOREGROUND_ACTIVE


@attrs.define(eq=False)
class Lifecycle:
    """The lifecycle of one session object, and the cursor that the machine moves.

    Every method that takes ``now`` may end the session or change the state; it returns what was decided, in order.
    Not thread-safe: the session object holds its lock.
    """

    foreground_timeout: float
    background_timeout: float
    last_activity: float
    """The last event, `touch`, or the start of the present session."""
    count_empty_sessions: bool = False
    event_count: int = 0
    """Events of the present session; 0 while it is pending."""
    state: SessionState = INITIAL
    checker_running: bool = True
    last_event: float = attrs.field(init=False, default=0.0)
    _now: float = attrs.field(init=False, default=0.0)
    _decisions: tuple[Decision, ...] = attrs.field(init=False, default=())
    _begun: float = attrs.field(init=False, default=attrs.Factory(lambda self: self.last_activity, takes_self=True))
    """When the focus began to be timed: at the first event, or at a restart."""
    _focus_time: FocusTime | None = attrs.field(init=False, default=None)
    """From the session's first toggle on."""

    def copy(self) -> Lifecycle:
        """Return another of the same, to decide on."""
        copied = Lifecycle(
            self.foreground_timeout,
            self.background_timeout,
            self.last_activity,
            count_empty_sessions=self.count_empty_sessions,
            event_count=self.event_count,
            state=self.state,
            checker_running=self.checker_running,
        )
        copied.last_event = self.last_event
        copied._begun = self._begun
        copied._focus_time = self._focus_time
        return copied

    def retire(self) -> None:
        """Let no event be counted here any more: whoever is about to must look for this one's successor."""
        self.last_activity = -math.inf

    def go_on(self, event_count: int, seconds_since_activity: float) -> None:
        """Go on with a session that another run began."""
        self.event_count = event_count
        self.last_activity -= seconds_since_activity
        self.last_event = self.last_activity

    def after_fork(self, now: float) -> Lifecycle:
        """Return a child process's own lifecycle: a pending session in the same state."""
        return Lifecycle(
            self.foreground_timeout,
            self.background_timeout,
            now,
            count_empty_sessions=self.count_empty_sessions,
            state=self.state,
            checker_running=self.checker_running,
        )

    @property
    def timeout(self) -> float:
        """The timeout in force, in seconds."""
        if self.state is _FOREGROUND:
            return self.foreground_timeout
        return self.background_timeout

    def expires_in(self, now: float) -> float | None:
        """Return the seconds until the session would expire, 0.0 when it has, ``None`` while it cannot."""
        if not (self.checker_running and (self.event_count or self.count_empty_sessions)):
            return None
        return max(0.0, self.timeout - (now - self.last_activity))

    def continue_session(self, now: float) -> int:
        """Count an event that changes no state, and return its number in the session; else return 0.

        The short path: an active, checked session in time needs no machine. 0 means: ask `event`.
        """
        timeout = self.foreground_timeout if self.state is _FOREGROUND else self.background_timeout
        # From here on nothing is called: a signal handler that calls the session cannot come between.
        if self.event_count and self.checker_running and now - self.last_activity < timeout:
            self.last_activity = self.last_event = now
            self.event_count = number = self.event_count + 1
            return number
        return 0

    def event(self, now: float) -> tuple[Decision, ...]:
        """Decide on a tracked event."""
        return self._apply(now, Input.EVENT)

    def set_background(self, now: float, *, background: bool) -> tuple[Decision, ...]:
        """Decide on a focus that was lost or won."""
        return self._apply(now, Input.BACKGROUND if background else Input.FOREGROUND)

    def tick(self, now: float) -> tuple[Decision, ...]:
        """Check now, if the checker is running."""
        if not self.is_tick_idle(now):
            self._now = now
            self._send(Input.TICK)
        return self._decided()

    def is_tick_idle(self, now: float) -> bool:
        """Tell whether a tick would certainly find nothing to do, so that the machine need not be asked."""
        if self.state is SessionState.EXPIRED_CHECKER_STOPPED:
            return False
        if not self.checker_running or now - self.last_activity < self.timeout:
            return True
        # Timed out in focus, the table's one arrow renews; and a pending session is never replaced.
        pending = not (self.event_count or self.count_empty_sessions)
        return pending and self.state is SessionState.FOREGROUND_ACTIVE

    def touch(self, now: float) -> tuple[Decision, ...]:
        """Note activity that is no event: the timeout starts anew, unless it was over already."""
        self._check(now)
        self.last_activity = now
        return self._decided()

    def start_new_session(self, now: float) -> tuple[Decision, ...]:
        """End the session, if it has events and has not just timed out."""
        self._check(now)
        if self.event_count:
            self._end(EndReason.NEW_SESSION)
            self._begin()
        return self._decided()

    def start_checker(self, now: float) -> tuple[Decision, ...]:
        """Let ticks come. A session that timed out while the checker was stopped by hand expires at the next check."""
        if self.state is SessionState.EXPIRED_CHECKER_STOPPED:
            self._now = now
            self._send(Input.RESUME)
        self.checker_running = True
        return self._decided()

    def stop_checker(self, now: float) -> tuple[Decision, ...]:
        """Suspend expiry, of a session that had not timed out before."""
        self._check(now)
        self.checker_running = False
        return self._decided()

    def set_timeouts(
        self, now: float, *, foreground: float | None = None, background: float | None = None
    ) -> tuple[Decision, ...]:
        """Set a timeout, or both; a session that had timed out under the old ones is over."""
        self._check(now)
        self.foreground_timeout = foreground or self.foreground_timeout
        self.background_timeout = background or self.background_timeout
        return self._decided()

    def close(self, now: float, *, may_continue: bool) -> tuple[Decision, ...]:
        """Stop for good; the session ends, unless the next start may continue it."""
        self._check(now)
        if self.event_count and not may_continue:
            self._end(EndReason.CLOSE)
        self.checker_running = False
        return self._decided()

    def _apply(self, now: float, given: Input) -> tuple[Decision, ...]:
        self._check(now)
        self._send(given)
        return self._decided()

    def _check(self, now: float) -> None:
        """Make the check that a tick would have made by now, so that it does not matter whether one came.

        Under the timeout of the state that is being left, and only for a session that has events.
        """
        self._now = now
        if self.checker_running and self.event_count and self.is_timed_out():
            self._send(Input.TICK)

    def _send(self, given: Input) -> None:
        before = self.state
        send(self, given)
        if self.state is before:
            return
        self._decisions += (StateChanged(before, given, self.state),)
        if self.event_count:
            self._focus_time = self._timed_focus().toggle(
                self._now,
                was_foreground=before is SessionState.FOREGROUND_ACTIVE,
                last_activity=self.last_activity,
            )

    def _decided(self) -> tuple[Decision, ...]:
        decisions, self._decisions = self._decisions, ()
        return decisions

    def _timed_focus(self) -> FocusTime:
        return self._focus_time or FocusTime(self._begun)

    def _end(self, reason: EndReason) -> None:
        foreground, background = self._timed_focus().until(
            self.last_activity, foreground=self.state is SessionState.FOREGROUND_ACTIVE
        )
        self._decisions += (
            Ended(reason, self.event_count, self.last_event, self.last_activity, foreground, background),
        )

    def _begin(self) -> None:
        self.event_count = 0
        self.last_activity = self._now

    # The guard and the effects, by the names that fsm.machine derives from the table's.

    def is_timed_out(self) -> bool:
        """Guard: equal counts as timed out."""
        return self._now - self.last_activity >= self.timeout

    def do_activity(self) -> None:
        """Effect: count the event."""
        if not self.event_count:
            self._begun, self._focus_time = self._now, None
        self.event_count += 1
        self.last_activity = self.last_event = self._now
        self.checker_running = True

    def do_renew(self) -> None:
        """Effect: replace a session that has events by a pending one (or any, if empty sessions count)."""
        if self.event_count or self.count_empty_sessions:
            in_foreground = self.state is SessionState.FOREGROUND_ACTIVE
            self._end(EndReason.TIMEOUT if in_foreground else EndReason.BACKGROUND_TIMEOUT)
            self._begin()

    def do_start_checker(self) -> None:
        """Effect: let ticks come."""
        self.checker_running = True

    def do_stop_checker(self) -> None:
        """Effect: let no ticks come."""
        self.checker_running = False
