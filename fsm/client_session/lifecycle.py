"""The lifecycle core, which takes inputs and times and returns decisions. It does no I/O and has no clock or lock.

Times are monotonic, in seconds. Two rules group events into sessions: the table in `client_session.graph`, and
*check first* (`Lifecycle._check`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from client_session.focus_time import FocusTime
from client_session.graph import INITIAL, ROWS, Command, EndReason, Input, SessionState
from client_session.machine import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session.graph import Row


@attrs.frozen
class Ended:
    """Decision: the current session has ended. ``event_count`` can be 0 only with ``count_empty_sessions``."""

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
Decisions = tuple[Decision, ...]

_FOREGROUND = SessionState.FOREGROUND_ACTIVE


@attrs.define(eq=False)
class Lifecycle:
    """The lifecycle of one session object; it is also the cursor that the machine moves.

    Every method that takes ``now`` may end the session or change the state, and returns its decisions in order.
    Not thread-safe: the session object calls it with its lock held.
    """

    foreground_timeout: float
    background_timeout: float
    last_activity: float
    """The time of the last event or `Command.TOUCH`, or of the current session's start."""
    count_empty_sessions: bool = False
    event_count: int = 0
    """The number of events in the current session; 0 while it is pending."""
    state: SessionState = INITIAL
    checker_running: bool = True
    observer: Callable[[Row], object] | None = None
    """Called with each row that is taken, before the row's effects run."""
    last_event: float = attrs.field(init=False, default=0.0)
    _now: float = attrs.field(init=False, default=0.0)
    _decisions: Decisions = attrs.field(init=False, default=())
    _focus_since: float = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.last_activity, takes_self=True)
    )
    """When focus timing began: at the first event or at a restart."""
    _focus_time: FocusTime | None = attrs.field(init=False, default=None)
    """``None`` until the session's first focus change."""

    def copy(self) -> Lifecycle:
        """Return an independent copy for a draft to change."""
        copied = Lifecycle.__new__(Lifecycle)
        for name in _FIELDS:
            setattr(copied, name, getattr(self, name))
        return copied

    def resume_saved(self, event_count: int, seconds_since_activity: float) -> None:
        """Continue a session from an earlier run."""
        self.event_count = event_count
        self.last_activity -= seconds_since_activity
        self.last_event = self.last_activity

    def successor(self, now: float) -> Lifecycle:
        """Return a lifecycle in the same state with a pending session, for example for a forked child."""
        return Lifecycle(
            self.foreground_timeout,
            self.background_timeout,
            now,
            self.count_empty_sessions,
            state=self.state,
            checker_running=self.checker_running,
        )

    @property
    def timeout(self) -> float:
        """The timeout in force, in seconds."""
        return self.foreground_timeout if self.state is _FOREGROUND else self.background_timeout

    def expires_in(self, now: float) -> float | None:
        """Return the seconds until the session expires: 0.0 if expiry is due, ``None`` if it cannot expire."""
        if not (self.checker_running and (self.event_count or self.count_empty_sessions)) or self.timeout == math.inf:
            return None
        return max(0.0, self.timeout - (now - self.last_activity))

    def try_count_event(self, now: float) -> int:
        """Count an event and return its number in the session, or return 0 if the event may change the state.

        The short path: if the session has events, is being checked, and has not timed out, the machine would only count
        the event. If this returns 0, the caller must send `Input.EVENT`.
        """
        timeout = self.foreground_timeout if self.state is _FOREGROUND else self.background_timeout
        # No function is called from here on, so no signal handler can interrupt and call the session.
        if self.event_count and self.checker_running and now - self.last_activity < timeout:
            self.last_activity = self.last_event = now
            self.event_count = number = self.event_count + 1
            return number
        return 0

    def is_tick_noop(self, now: float) -> bool:
        """Return True if a tick is known to have no effect, so that the machine can be skipped."""
        if self.state is SessionState.EXPIRED_CHECKER_STOPPED:
            return False
        if not self.checker_running or now - self.last_activity < self.timeout:
            return True
        # In the foreground, a tick can only renew the session, and pending sessions are not renewed.
        pending = not (self.event_count or self.count_empty_sessions)
        return pending and self.state is _FOREGROUND

    def decide(self, given: Input | Command, now: float) -> Decisions:
        """Apply an input or a command without arguments."""
        self._now = now
        match given:
            case Input.TICK:
                if not self.is_tick_noop(now):
                    self._send(Input.TICK)
            case Command.START_CHECKER:
                # A session that timed out while checking was stopped manually expires at the next check.
                if self.state is SessionState.EXPIRED_CHECKER_STOPPED:
                    self._send(Input.RESUME)
                self.checker_running = True
            case Command():
                self._check()
                if given is Command.TOUCH:
                    self.last_activity = now
                elif given is Command.STOP_CHECKER:
                    self.checker_running = False
                elif given is Command.NEW_SESSION and self.event_count:
                    self._end(EndReason.NEW_SESSION)
                    self._begin()
            case Input():
                self._check()
                self._send(given)
        return self._decided()

    def set_timeouts(self, now: float, foreground: float | None, background: float | None) -> Decisions:
        """Set one or both timeouts. A session that has already timed out under the old timeouts ends."""
        self._now = now
        self._check()
        self.foreground_timeout = foreground or self.foreground_timeout
        self.background_timeout = background or self.background_timeout
        return self._decided()

    def close(self, now: float, *, may_continue: bool) -> Decisions:
        """Stop permanently. The session ends unless the next run may continue it."""
        self._now = now
        self._check()
        if self.event_count and not may_continue:
            self._end(EndReason.CLOSE)
        self.checker_running = False
        return self._decided()

    def _check(self) -> None:
        """Check first: perform the check that a tick would have performed by now, so that tick times do not matter.

        The check uses the timeout that applied before the input, and only a session that has events is checked.
        """
        if self.checker_running and self.event_count and self.is_over():
            self._send(Input.TICK)

    def _send(self, given: Input) -> None:
        before = self.state
        if self.observer is not None:
            row = ROWS[before, given]
            if row.guard is None or self.is_over():
                self.observer(row)
        send(self, given)
        if self.state is before:
            return
        self._decisions += (StateChanged(before, given, self.state),)
        if self.event_count:
            self._focus_time = self._current_focus_time().toggle(
                self._now, was_foreground=before is _FOREGROUND, last_activity=self.last_activity
            )

    def _decided(self) -> Decisions:
        decisions, self._decisions = self._decisions, ()
        return decisions

    def _current_focus_time(self) -> FocusTime:
        return self._focus_time or FocusTime(self._focus_since)

    def _end(self, reason: EndReason) -> None:
        foreground, background = self._current_focus_time().until(
            self.last_activity, foreground=self.state is _FOREGROUND
        )
        self._decisions += (
            Ended(reason, self.event_count, self.last_event, self.last_activity, foreground, background),
        )

    def _begin(self) -> None:
        self.event_count = 0
        self.last_activity = self._now

    # The guard and the effects; client_session.machine derives their method names from the table.

    def is_over(self) -> bool:
        """Guard: the time since the last activity is at least the timeout."""
        return self._now - self.last_activity >= self.timeout

    def do_activity(self) -> None:
        """Effect: count the event."""
        if not self.event_count:
            self._focus_since, self._focus_time = self._now, None
        self.event_count += 1
        self.last_activity = self.last_event = self._now
        self.checker_running = True

    def do_renew(self) -> None:
        """Effect: replace the session with a pending one if it has events (always, with ``count_empty_sessions``)."""
        if self.event_count or self.count_empty_sessions:
            self._end(EndReason.TIMEOUT if self.state is _FOREGROUND else EndReason.BACKGROUND_TIMEOUT)
            self._begin()

    def do_start_checker(self) -> None:
        """Effect: start checking."""
        self.checker_running = True

    def do_stop_checker(self) -> None:
        """Effect: stop checking."""
        self.checker_running = False


_FIELDS = tuple(field.name for field in attrs.fields(Lifecycle))
