"""Who is ticked when: sessions, held weakly, in rounds of one check interval each, which are ticked together."""

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
Wish = tuple[Reference, float | None]
"""A session, and the interval at which it is to be ticked from now on; ``None``: no more."""


def refer(session: Ticking, callback: Callable[[Reference], None] | None = None) -> Reference:
    """Return a reference to a session; the callback is called with it when the session is gone."""
    reference = weakref.ref(session, callback)
    hash(reference)  # is kept, so that the reference can be looked for when the session is gone
    return reference


def tick(reference: Reference) -> None:
    """Tick a session, if it is still there. A failing tick is logged, and stops no other."""
    session = reference()
    if session is None:
        return
    try:
        session.tick()
    except SessionClosedError:
        pass  # closed between the look-up and the tick
    except Exception:
        _logger.exception("A session's tick failed; the checker goes on")


@attrs.define
class _Round:
    """The sessions of one check interval, ticked together."""

    due: float
    sessions: set[Reference] = attrs.field(factory=set[Reference])


@attrs.define
class Rounds:
    """Rounds by interval. One thread at a time may change them; any may look."""

    by_interval: dict[float, _Round] = attrs.field(factory=dict[float, _Round])

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return sum(len(members.sessions) for members in list(self.by_interval.values()))

    def set(self, session: Reference, interval: float | None) -> None:
        """Tick a session at an interval, or (``None``) no more.

        References to a living session are equal; a dead one's equals itself alone.
        """
        for known, members in list(self.by_interval.items()):
            members.sessions.discard(session)
            if not members.sessions:
                del self.by_interval[known]
        if interval is not None:
            due = time.monotonic() + interval
            self.by_interval.setdefault(interval, _Round(due)).sessions.add(session)

    def seconds_until_due(self) -> float | None:
        """Return how long there is nothing to do; ``None`` while there is nobody to tick."""
        due = min((members.due for members in list(self.by_interval.values())), default=None)
        if due is None:
            return None
        return min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)  # a longer wait overflows

    def due(self) -> Iterator[Reference]:
        """Yield each session whose round is due when this is first asked; the round's next time is set before."""
        now = time.monotonic()
        for interval, members in list(self.by_interval.items()):
            if members.due <= now:
                members.due = now + interval
                yield from list(members.sessions)
