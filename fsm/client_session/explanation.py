"""Explanations of decisions, with the same wording in `explain()`, on the command line, and in the log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from client_session.graph import Command, EndReason, Input, SessionState
from client_session_persistence.snapshot import idle_time, shifted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from client_session_persistence import Snapshot

START = "start"
"""How explanations name the start of a run. All other inputs are named as in the graph."""


@attrs.frozen
class Ending:
    """A session that ended, and why. ``event_count`` is 0 only if empty sessions are counted."""

    session_index: int
    event_count: int
    reason: EndReason


@attrs.frozen
class Beginning:
    """A session that began, or continued after a restart. Its id is in lowercase."""

    session_index: int
    session_id: str
    is_continued: bool = False


@attrs.frozen(kw_only=True)
class Explanation:
    """One decision: an input that changed anything besides the time of the last activity, and what it changed.

    ``input`` is one of the names that traces use (`client_session.testing.trace`), ``start``, or ``close``.
    ``at`` is the wall clock's time as an aware datetime in UTC. ``str()`` returns one line.
    """

    at: datetime
    input: str
    before: SessionState
    after: SessionState
    idle_seconds: float
    """Seconds since the last activity or a new session's start; negative if the saved activity is in the future."""
    idle_in_focus: float
    """The part of ``idle_seconds`` since the last focus change."""
    timeout: float
    """The timeout in force before the decision (that of the old state), in seconds."""
    new_timeout: float
    """The timeout in force after the decision, in seconds."""
    max_duration: float
    """The maximum duration of a session before the decision, in seconds; infinite if there is none."""
    new_max_duration: float
    """The maximum duration of a session after the decision."""
    was_checker_running: bool
    is_checker_running: bool
    ended: Ending | None
    begun: Beginning | None

    def __str__(self) -> str:
        """Return the time, the input, and what it changed, as one line."""
        return f"{_time_text(self.at)} {self.input}: {'; '.join(self.clauses)}"

    @property
    def clauses(self) -> tuple[str, ...]:
        """The changes, in words: first a session's end, then a session's beginning, then everything else."""
        return (*self._session_clauses(), *self._other_clauses())

    def _session_clauses(self) -> Iterator[str]:
        if self.ended:
            events = _events_text(self.ended.event_count)
            yield f"session {self.ended.session_index} ({events}) ended: {self._why_ended()}"
        if self.begun and self.begun.is_continued:
            yield f"session {self.begun.session_index} continues: {_idle_text(self.idle_seconds, self.timeout)}"
        elif self.begun:
            begins = "begins" if self.input == Input.EVENT else "is counted before its first event"
            yield f"session {self.begun.session_index} {begins}"
        elif self.ended and self.input != Command.CLOSE:
            yield "the next session is pending"

    def _why_ended(self) -> str:
        match self.ended and self.ended.reason:
            case EndReason.MAX_DURATION:
                return f"it reached the maximum duration of {_seconds_text(self.max_duration)}"
            case EndReason.NEW_SESSION:
                return "a new session was started manually"
            case EndReason.FORGET:
                return "its user was forgotten"
            case EndReason.CLOSE:
                return "closed"
            case reason:
                focus = "foreground" if reason is EndReason.TIMEOUT else "background"
        if self.idle_in_focus >= self.idle_seconds:
            return _idle_text(self.idle_seconds, self.timeout, f" in the {focus}")
        in_focus = math.floor(self.idle_in_focus) if self.timeout % 1 == 0 else self.idle_in_focus
        last = "second" if in_focus == 1 else _seconds_text(in_focus)
        return _idle_text(self.idle_seconds, self.timeout, f", the last {last} in the {focus}")

    def _other_clauses(self) -> Iterator[str]:
        was_in_focus, in_focus = (state is SessionState.FOREGROUND_ACTIVE for state in (self.before, self.after))
        if self.input in {Input.BACKGROUND, Input.FOREGROUND} and was_in_focus is not in_focus:
            moved = "came to the foreground" if in_focus else "went to the background"
            yield f"the app {moved} (timeout {_seconds_text(self.new_timeout)})"
        if self.new_max_duration != self.max_duration:
            durations = (_seconds_text(duration) for duration in (self.max_duration, self.new_max_duration))
            yield "the maximum duration changed from {} to {}".format(*durations)
        elif self.input == Command.TIMEOUTS and self.new_timeout == self.timeout:
            yield f"the other timeout changed; {_seconds_text(self.timeout)} remains in force"
        elif self.input == Command.TIMEOUTS:
            yield f"the timeout changed from {_seconds_text(self.timeout)} to {_seconds_text(self.new_timeout)}"
        if self.input == Command.CLOSE:
            if not self.ended:
                yield "closed; no session ended"
        elif self.is_checker_running is not self.was_checker_running:
            stopped_manually = self.input == Command.STOP_CHECKER
            stopped = "nothing expires until checking starts again" if stopped_manually else "checking has stopped"
            yield "checking has started again" if self.is_checker_running else stopped


def describe_save_file(
    saved: Snapshot, now: datetime, foreground_timeout: float, background_timeout: float
) -> Iterator[str]:
    """Describe a save file's newest session, and what a run that starts at ``now`` would do with it."""
    if saved.session_id is None:
        yield "no session yet: the next event begins session 1"
        return
    index = saved.session_index
    events = "" if saved.event_index is None else f" ({_events_text(saved.event_index)})"
    began = f" began at {_time_text(saved.first_event_timestamp)}" if saved.first_event_timestamp else ""
    yield f"session {index}{events}{began}"
    previous = saved.previous_session_id
    yield f"its previous session is {previous}" if previous else "it is the user's first session"
    if saved.last_activity:
        yield f"its last activity was at {_time_text(saved.last_activity)}"
    idle, otherwise = idle_time(saved, now), ""
    timeout = background_timeout if saved.background else foreground_timeout
    if idle is None:
        reasons = {None: "its progress is not recorded (the .NET tracker does not save it)", 0: "it has no events"}
        reason = "it began without continue_on_restart" if saved.last_activity else "it has ended"
        yield f"it cannot be resumed: {reasons.get(saved.event_index, reason)}"
    else:
        seconds = idle.total_seconds()
        verb = "continue" if 0 <= seconds < timeout else "not continue"
        yield f"with continue_on_restart, it would {verb} now: {_idle_text(seconds, timeout)}"
        if 0 <= seconds < timeout:
            until = shifted(now, timeout - seconds)
            yield (
                f"it can be resumed until {_time_text(until)}" if math.isfinite(timeout) else "it can always be resumed"
            )
            otherwise = "otherwise "
    yield f"{otherwise}the next event begins session {index + 1}"


def _time_text(at: datetime) -> str:
    return f"{at.replace(tzinfo=None).isoformat(' ', 'seconds')}Z"  # strftime writes years before 1000 differently


def _seconds_text(seconds: float) -> str:
    if math.isinf(seconds):
        return "infinite"
    if 1e-9 <= abs(seconds) < 1e-3 or abs(seconds) >= 1e12:  # noqa: PLR2004  # below 1e-9, floats are inexact
        return f"{seconds:g} s"
    return f"{seconds:,.3f}".rstrip("0").rstrip(".") + " s"


def _events_text(count: int) -> str:
    return f"{count or 'no'} event{'' if count == 1 else 's'}"


def _idle_text(idle_seconds: float, timeout: float, where: str = "") -> str:
    limit = f"(timeout {_seconds_text(timeout)})"
    if timeout % 1 == 0:
        idle_seconds = math.floor(idle_seconds)  # if rounded up, 599.9 s would look like the timeout of 600 s
    if idle_seconds < 0:
        return f"last activity {_seconds_text(-idle_seconds)} in the future {limit}"
    return f"idle for {_seconds_text(idle_seconds)}{where} {limit}"
