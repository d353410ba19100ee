"""What is told of a session when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.lifecycle import EndReason


@attrs.frozen(kw_only=True)
class SessionSummary:
    """A session with events that has ended: which one, from when to when, how long in each focus, and why.

    Its end is the last activity, not the moment when the end was noticed. Times are aware, in UTC. The seconds in
    foreground and background run from the first event to the last activity (an event or `ClientSession.touch`); of a
    session continued after a restart, since that restart.
    """

    user_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    first_event_id: str | None
    first_event_time: datetime | None
    last_event_time: datetime
    event_count: int
    foreground_seconds: float
    background_seconds: float
    reason: EndReason
