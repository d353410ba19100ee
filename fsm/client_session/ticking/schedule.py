"""The tick schedule: weakly referenced sessions, grouped by check interval."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

import attrs

from client_session.errors import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_session.ticking.scheduler import Ticking

_logger = logging.getLogger(__name__)

Reference = weakref.ref["Ticking"]
Request = tuple[Reference, float | None]
"""A change to the schedule: a session and its new interval in seconds, or ``None`` to remove the session."""


def reference_to(session: Ticking, callback: Callable[[Reference], None] | None = None) -> Reference:
    """Return a weak reference to a session; ``callback`` gets the reference after the session is garbage-collected."""
    reference = weakref.ref(session, callback)
    hash(reference)  # cached while the session is alive, so that a dead reference can still be looked up
    return reference


def tick_session(reference: Reference) -> None:
    """Tick a session if it still exists. Log any error, so that the other sessions are still ticked."""
    try:
        if (session := reference()) is not None:
            session.tick()
    except SessionClosedError:
        pass  # the session was closed after its tick was scheduled
    except Exception:
        _logger.exception("A session's tick failed; checking continues")


@attrs.define
class _Group:
    """The sessions with the same check interval, which are ticked together."""

    due: float
    sessions: set[Reference] = attrs.field(factory=set[Reference])


@attrs.define
class TickSchedule:
    """Sessions grouped by check interval. Any thread may read it; only one thread at a time may change it."""

    by_interval: dict[float, _Group] = attrs.field(factory=dict[float, _Group])

    def __len__(self) -> int:
        """Return the number of sessions."""
        return sum(len(group.sessions) for group in list(self.by_interval.values()))

    def set(self, session: Reference, interval: float | None) -> None:
        """Set a session's tick interval; ``None`` removes the session.

        References to the same live session are equal; a dead reference equals only itself.
        """
        for known, group in list(self.by_interval.items()):
            group.sessions.discard(session)
            if not group.sessions:
                del self.by_interval[known]
        if interval is not None:
            due = time.monotonic() + interval
            self.by_interval.setdefault(interval, _Group(due)).sessions.add(session)

    def seconds_until_due(self) -> float | None:
        """Return the seconds until the next tick is due, or ``None`` if there are no sessions."""
        due = [group.due for group in list(self.by_interval.values())]
        return (
            min(max(0.0, min(due) - time.monotonic()), threading.TIMEOUT_MAX) if due else None
        )  # a longer wait would overflow

    def due(self) -> Iterator[Reference]:
        """Schedule the next tick of each group that is due now, and yield the group's sessions."""
        now = time.monotonic()
        for interval, group in list(self.by_interval.items()):
            if group.due <= now:
                group.due = now + interval
                yield from list(group.sessions)
