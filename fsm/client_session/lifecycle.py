"""The lifecycle core, which takes inputs and times and returns decisions. It does no I/O and has no clock or lock.

Times are monotonic, in seconds. Two rules group events into sessions: the table in `client_session.graph`, and
*check first* (`Lifecycle._check`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from client_session.focus_time import UNKNOWN, FocusTime
from client_session.graph import INITIAL, ROWS, Command, EndReason, Input, SessionState
from client_session.machine import guard_method, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session.graph import Row


@attrs.frozen
class Ended:
    """Decision: the current session has ended. ``event_count`` can be 0 only with ``count_empty_sessions``.

    The seconds in the foreground and in the background are ``None`` if a part of the session was in an earlier run.
    """

    reason: EndReason
    event_count: int
    last_event: float
    last_activity: float
    foreground_seconds: float | None
    background_seconds: float | None


@attrs.frozen
class StateChanged:
    """Decision: an input moved the lifecycle from one state to another."""

    before: SessionState
    input: Input
    after: SessionState


Decision = Ended | StateChanged
Decisions = tuple[Decision, ...]

_FOREGROUND = SessionState.FOREGROUND_ACTIVE
_MANUAL_ENDS = {Command.NEW_SESSION: EndReason.NEW_SESSION, Command.FORGET: EndReason.FORGET}


@attrs.define(eq=False)
class Lifecycle:
    """The lifecycle of one session object; it is also the cursor that the machine moves.

    Every method that takes ``now`` may end the session or change the state, and returns its decisions in order.
    Not thread-safe: the session object calls it with its lock held.
    """

    foreground_timeout: float
    background_timeout: float
    last_activity: float
    """The time of the last activity, or of the current session's start. Events, `Command.TOUCH` and, if so configured,
    focus changes are activity."""
    count_empty_sessions: bool = False
    max_duration: float = math.inf
    extend_on_focus_change: bool = False
    has_short_path: bool = True
    """Whether `try_count_event` may count events."""
    event_count: int = 0
    """The number of events in the current session; 0 while it is pending."""
    state: SessionState = INITIAL
    checker_running: bool = True
    observer: Callable[[Row], object] | None = None
    """Called with each row that is taken, before the row's effects run."""
    started: float = 0.0
    """The time of the current session's first event; meaningless while it is pending."""
    last_event: float = attrs.field(init=False, default=0.0)
    short_path_timeout: float = attrs.field(init=False, default=0.0)
    """The timeout in force if an event would only be counted, or 0."""
    _now: float = attrs.field(init=False, default=0.0)
    _decisions: Decisions = attrs.field(init=False, default=())
    _focus_time: FocusTime | None = attrs.field(init=False, default=None)
    """``None`` until the session's first focus change."""

    def __attrs_post_init__(self) -> None:
        """Derive the timeout of the short path."""
        self._decided()

    def copy(self) -> Lifecycle:
        """Return an independent copy for a draft to change."""
        copied = Lifecycle.__new__(Lifecycle)
        for name in _FIELDS:
            setattr(copied, name, getattr(self, name))
        return copied

    def resume_saved(self, event_count: int, seconds_since_activity: float, seconds_since_start: float) -> None:
        """Continue a session from an earlier run."""
        self.event_count = event_count
        self.started = self.last_activity - seconds_since_start
        self.last_activity -= seconds_since_activity
        self.last_event = self.last_activity
        self._focus_time = UNKNOWN
        self._decided()

    def successor(self, now: float) -> Lifecycle:
        """Return a lifecycle in the same state with a pending session, for example for a forked child."""
        return Lifecycle(
            self.foreground_timeout,
            self.background_timeout,
            now,
            self.count_empty_sessions,
            self.max_duration,
            self.extend_on_focus_change,
            self.has_short_path,
            state=self.state,
            checker_running=self.checker_running,
        )

    @property
    def timeout(self) -> float:
        """The timeout in force, in seconds."""
        return self.foreground_timeout if self.state is _FOREGROUND else self.background_timeout

    @property
    def over_at(self) -> float:
        """The time at which the session reaches its first limit, if nothing happens and checking is not stopped."""
        return min(self.last_activity + self.timeout, self._max_duration_at)

    @property
    def _max_duration_at(self) -> float:
        return self.started + self.max_duration if self.event_count else math.inf

    def expires_in(self, now: float) -> float | None:
        """Return the seconds until the session expires: 0.0 if expiry is due, ``None`` if it cannot expire."""
        if not (self.checker_running and (self.event_count or self.count_empty_sessions)):
            return None
        seconds = self.timeout - (now - self.last_activity)
        if self.event_count:
            seconds = min(seconds, self.max_duration - (now - self.started))
        return None if seconds == math.inf else max(0.0, seconds)

    def idle_in_focus(self, now: float) -> float:
        """Return the seconds since the last activity or the last focus change, whichever is later."""
        since = self._focus_time.since if self._focus_time else self.started
        return now - max(self.last_activity, since)

    def try_count_event(self, now: float, extend: bool) -> int:  # noqa: FBT001  # a keyword argument takes twice as long
        """Count an event and return its number in the session, or return 0 if the event may change the state.

        The short path: if the session has events, is being checked, and is not over, the machine would only count the
        event. If this returns 0, the caller must send `Input.EVENT`, or, unless ``extend``, `Input.PASSIVE`.
        """
        # No function is called here, so no signal handler can interrupt and call the session.
        if now - self.last_activity < self.short_path_timeout and now - self.started < self.max_duration:
            if extend:
                self.last_activity = self.last_event = now
            self.event_count = number = self.event_count + 1
            return number
        return 0

    def is_tick_noop(self, now: float) -> bool:
        """Return True if a tick is known to have no effect, so that the machine can be skipped."""
        if self.short_path_timeout > now - self.last_activity and self.max_duration > now - self.started:
            return True  # as for most ticks of most sessions
        if self.state is SessionState.EXPIRED_CHECKER_STOPPED:
            return False
        if not self.checker_running or not (self._is_idle(now) or self._is_too_long(now)):
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
                elif given in _MANUAL_ENDS and self.event_count:
                    self._end(_MANUAL_ENDS[given])
                    self._begin()
            case Input():
                self._check()
                self._send(given)
        return self._decided()

    def set_limits(
        self,
        now: float,
        foreground_timeout: float | None = None,
        background_timeout: float | None = None,
        max_duration: float | None = None,
    ) -> Decisions:
        """Set some of the limits (`Command.TIMEOUTS`). A session that is already over under the old limits ends."""
        self._now = now
        self._check()
        self.foreground_timeout = foreground_timeout or self.foreground_timeout
        self.background_timeout = background_timeout or self.background_timeout
        self.max_duration = max_duration or self.max_duration
        return self._decided()

    def end(self, reason: EndReason, now: float) -> Decisions:
        """End a session that has events, without a check."""
        self._now = now
        self._end(reason)
        self._begin()
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
            if row.guard is None or getattr(self, guard_method(row.guard))():
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
        has_short_path = self.has_short_path and self.event_count and self.checker_running
        self.short_path_timeout = self.timeout if has_short_path else 0.0
        decisions, self._decisions = self._decisions, ()
        return decisions

    def _current_focus_time(self) -> FocusTime:
        return self._focus_time or FocusTime(self.started)

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

    def _is_idle(self, now: float) -> bool:
        return now - self.last_activity >= self.timeout

    def _is_too_long(self, now: float) -> bool:
        return self.event_count > 0 and now - self.started >= self.max_duration

    # The guards and the effects; client_session.machine derives their method names from the table.

    def is_over(self) -> bool:
        """Guard: the session is idle for the timeout or longer, or has reached its maximum duration."""
        return self._is_idle(self._now) or self._is_too_long(self._now)

    def has_events(self) -> bool:
        """Guard: the session is not pending."""
        return self.event_count > 0

    def do_activity(self) -> None:
        """Effect: count the event as activity."""
        if not self.event_count:
            self.started, self._focus_time = self._now, None
        self.event_count += 1
        self.last_activity = self.last_event = self._now
        self.checker_running = True

    def do_count(self) -> None:
        """Effect: count the event only."""
        self.event_count += 1

    def do_renew(self) -> None:
        """Effect: replace the session with a pending one if it has events (always, with ``count_empty_sessions``)."""
        if self.event_count or self.count_empty_sessions:
            self._end(self._limit_reached_first())
            self._begin()

    def _limit_reached_first(self) -> EndReason:
        if self._is_too_long(self._now) and not (
            self._is_idle(self._now) and self.last_activity + self.timeout <= self._max_duration_at
        ):
            return EndReason.MAX_DURATION
        return EndReason.TIMEOUT if self.state is _FOREGROUND else EndReason.BACKGROUND_TIMEOUT

    def do_start_checker(self) -> None:
        """Effect: start checking."""
        self.checker_running = True

    def do_stop_checker(self) -> None:
        """Effect: stop checking."""
        self.checker_running = False

    def do_touch(self) -> None:
        """Effect: restart the timeout if focus changes are activity."""
        if self.extend_on_focus_change:
            self.last_activity = self._now


_FIELDS = tuple(field.name for field in attrs.fields(Lifecycle))
