"""Saying what happened, in the same plain words everywhere: `explain()`, the command line, and log lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from fsm.graph import SessionState
from fsm.lifecycle import EndReason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


@attrs.frozen
class Ending:
    """A session that ended, and why. ``event_count`` is 0 only if empty sessions count."""

    session_index: int
    event_count: int
    reason: EndReason


@attrs.frozen
class Beginning:
    """A session that began, or was continued after a restart. Its id is in lower case."""

    session_index: int
    session_id: str
    is_continued: bool = False


@attrs.frozen(kw_only=True)
class Explanation:
    """One decision: an input that changed more than the time of the last activity, and what it changed.

    ``input`` is called as in traces (`fsm.trace`): ``event``, ``tick``, ``background``, ``foreground``, ``touch``,
    ``resume``, ``stop``, ``new-session``, ``timeouts``, and besides ``start`` and ``close``. ``at`` is the wall clock's
    time, aware, in UTC. As text, it is one line.
    """

    at: datetime
    input: str
    before: SessionState
    after: SessionState
    idle_seconds: float
    """Since the last activity, or a new session's start; negative if a saved one's lies in the future."""
    timeout: float
    """In seconds: the one in force, of the state that was left."""
    new_timeout: float
    """In seconds: the one in force afterwards."""
    was_checker_running: bool
    is_checker_running: bool
    ended: Ending | None
    begun: Beginning | None

    def __str__(self) -> str:
        """Say when, what came, and what it did."""
        return f"{time_text(self.at)} {self.input}: {'; '.join(self.clauses)}"

    @property
    def clauses(self) -> tuple[str, ...]:
        """What happened, in words: the end of a session first, then a beginning, then the rest."""
        return tuple(self._clauses())

    def _clauses(self) -> Iterator[str]:
        if self.ended:
            yield _ending(self.ended, self.idle_seconds, self.timeout)
        if self.begun:
            yield self._beginning(self.begun)
        elif self.input == "start":
            yield f"the saved session does not go on, {silence(self.idle_seconds, self.timeout)}"
        elif self.ended and self.input != "close":
            yield "a new one waits for its first event"
        if self.input in {"background", "foreground"} and _in_focus(self.before) is not _in_focus(self.after):
            won_or_lost = "is back in" if _in_focus(self.after) else "lost the"
            yield f"the app {won_or_lost} focus, with a timeout of {seconds_text(self.new_timeout)}"
        if self.input == "timeouts":
            yield self._timeouts()
        if self.input == "close":
            if not self.ended:
                yield "closed, and no session ended"
        elif self.is_checker_running is not self.was_checker_running:
            rests = "nothing expires until the checker runs again" if self.input == "stop" else "the checker rests"
            yield "the checker runs again" if self.is_checker_running else rests

    def _beginning(self, begun: Beginning) -> str:
        if begun.is_continued:
            return restart(begun.session_index, self.idle_seconds, self.timeout)
        if self.input == "event":
            return f"session {begun.session_index} begins"
        return f"session {begun.session_index} is counted before its first event"

    def _timeouts(self) -> str:
        if self.new_timeout == self.timeout:
            return f"the other focus has another timeout, and {seconds_text(self.timeout)} stays in force"
        return f"the timeout is {seconds_text(self.new_timeout)} from now on, not {seconds_text(self.timeout)}"


def time_text(at: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def seconds_text(seconds: float) -> str:
    """Return a duration, exact to the millisecond."""
    return f"{seconds:,.3f}".rstrip("0").rstrip(".") + " s"


def events_text(count: int) -> str:
    """Return a number of events."""
    return f"{count or 'no'} event{'' if count == 1 else 's'}"


def silence(idle_seconds: float, timeout: float, where: str = "") -> str:
    """Return how long there was no activity, beside the timeout that decides."""
    limit = f"(timeout {seconds_text(timeout)})"
    if timeout % 1 == 0:
        idle_seconds = math.floor(idle_seconds)  # which is on the same side of the timeout
    if idle_seconds < 0:
        return f"its last activity lying {seconds_text(-idle_seconds)} in the future {limit}"
    return f"after {seconds_text(idle_seconds)} without activity{where} {limit}"


def restart(session_index: int, idle_seconds: float, timeout: float) -> str:
    """Return whether a saved session goes on after so long, and why."""
    verb = "goes on" if 0 <= idle_seconds < timeout else "does not go on"
    return f"session {session_index} {verb}, {silence(idle_seconds, timeout)}"


def _ending(ended: Ending, idle_seconds: float, timeout: float) -> str:
    which = f"session {ended.session_index} ({events_text(ended.event_count)}) ended"
    match ended.reason:
        case EndReason.TIMEOUT:
            return f"{which} {silence(idle_seconds, timeout, ' in the foreground')}"
        case EndReason.BACKGROUND_TIMEOUT:
            return f"{which} {silence(idle_seconds, timeout, ' in the background')}"
        case EndReason.NEW_SESSION:
            return f"{which} by hand"
        case EndReason.CLOSE:
            return f"{which} at the close"


def _in_focus(state: SessionState) -> bool:
    return state is SessionState.FOREGROUND_ACTIVE
