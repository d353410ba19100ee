"""A reference for sessionizing: a fold over the records of a log, based only on the text of the specification.

It imports neither the table nor the session, and prefers clarity to speed. Times are numbers in any unit, in which the
limits are too.
"""

from __future__ import annotations

import math
from collections import deque

import attrs

REMEMBERED = 8
"""An event is dropped if one of the user's last events before it, this many at most, has the same id."""


@attrs.frozen
class Place:
    """The place of an event in its session. Sessions are identified by user and index."""

    user_id: str
    session_index: int
    event_index: int
    first_event_id: str


@attrs.define
class _User:
    """What the past inputs of a user still determine. A user's log begins in focus, with checking started."""

    in_focus: bool = True
    expired: bool = False
    checking: bool = True
    index: int = 0
    """The index of the newest session that has events."""
    events: int = 0
    """The number of events in the current session; 0 while it is pending."""
    first_event_id: str = ""
    started: float = 0.0
    last_activity: float = 0.0
    last_record: float = 0.0
    recent: deque[str | None] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED))
    """The ids of the user's last events in the log."""


@attrs.define
class Fold:
    """Groups the events of a log into sessions. Its limits can be set between records."""

    foreground_timeout: float
    background_timeout: float
    max_duration: float = math.inf
    extend_on_focus_change: bool = False
    _users: dict[str, _User] = attrs.field(init=False, factory=dict[str, "_User"])

    def add(  # noqa: C901, PLR0912  # one case per input
        self, user_id: str, time: float, given: str, event_id: str | None = None
    ) -> Place | None:
        """Apply one record. Return the event's place, if the record is an event that belongs to a session.

        Raises:
            ValueError: the input is unknown.

        """
        user = self._users.setdefault(user_id, _User(last_record=time))
        since_last, user.last_record = time - user.last_record, time
        if given == "clock":
            # The clock was set back: no time has passed since the last record, whatever the clock says.
            user.started, user.last_activity = user.started + since_last, user.last_activity + since_last
            return None
        if given in {"event", "passive"}:
            is_repeated = event_id in user.recent
            user.recent.append(event_id)
            if is_repeated:
                return None
        self.check(user_id, time)
        counts = False
        match given:
            case "event":
                if not user.events:
                    user.index, user.first_event_id, user.started = user.index + 1, str(event_id), time
                user.expired, user.checking, user.last_activity = False, True, time
                counts = True
            case "passive":
                counts = user.events > 0
            case "touch":
                user.last_activity = time
            case "background":
                if user.in_focus and self.extend_on_focus_change:
                    user.last_activity = time
                user.in_focus = False
            case "foreground":
                if not (user.in_focus or user.expired) and self.extend_on_focus_change:
                    user.last_activity = time
                user.in_focus, user.expired, user.checking = True, False, True
            case "new-session":
                user.events = 0
            case "forget":  # what follows is another user's, who happens to have the same id
                self._users[user_id] = _User(last_record=time, recent=user.recent)
            case "start":
                user.events, user.in_focus, user.expired, user.checking = 0, True, False, True
            case "start-checker":
                user.expired, user.checking = False, True
            case "stop-checker":
                user.checking = False
            case _:
                msg = f"unknown input {given!r}"
                raise ValueError(msg)
        if not counts:
            return None
        user.events += 1
        return Place(user_id, user.index, user.events, user.first_event_id)

    def check(self, user_id: str, time: float) -> None:
        """Perform the check that a tick would perform at this time."""
        user = self._users.setdefault(user_id, _User())
        timeout = self.foreground_timeout if user.in_focus else self.background_timeout
        is_over = time - user.last_activity >= timeout or time - user.started >= self.max_duration
        if user.checking and user.events and is_over:
            user.events = 0
            if not user.in_focus:
                user.expired, user.checking = True, False
