"""Who is ticked when: sessions, held weakly, in rounds of one check interval each, which are ticked together."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

import attrs

from fsm.errors import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.scheduler import Ticking

_logger = logging.getLogger(__name__)


class Reference(weakref.ref["Ticking"]):
    """A session, known by its id also when it is gone."""

    __slots__ = ("key",)

    key: int

    @classmethod
    def to(cls, session: Ticking, forget: Callable[[Reference], object]) -> Reference:
        """Return a reference to a session; ``forget`` is called with it when the session is gone."""
        reference = cls(session, forget)
        reference.key = id(session)
        return reference

    def tick(self) -> None:
        """Tick the session, if it is still there. A failing tick is logged, and stops no other."""
        session = self()
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
    sessions: dict[int, Reference] = attrs.field(factory=dict[int, Reference])


@attrs.define
class Rounds:
    """Rounds by interval, and each session's interval by its id. One thread at a time may change them; any may look."""

    by_interval: dict[float, _Round] = attrs.field(factory=dict[float, _Round])
    interval_of: dict[int, float] = attrs.field(factory=dict[int, float])

    def add(self, session: Reference, interval: float) -> None:
        """Tick a session from one interval on; of one that is here already, the interval changes."""
        self.discard(session.key)
        now = time.monotonic()
        self.by_interval.setdefault(interval, _Round(now + interval)).sessions[session.key] = session
        self.interval_of[session.key] = interval

    def discard(self, key: int, only: Reference | None = None) -> None:
        """Forget a session; with ``only``, not one that got a dead one's id since."""
        interval = self.interval_of.get(key)
        if interval is None:
            return
        sessions = self.by_interval[interval].sessions
        if only is not None and sessions[key] is not only:
            return
        del sessions[key], self.interval_of[key]
        if not sessions:
            del self.by_interval[interval]

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
                yield from list(members.sessions.values())
