"""A clock and a scheduler that stand still until they are told to move."""

from __future__ import annotations

import math
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from client_session_persistence.snapshot import as_utc

if TYPE_CHECKING:
    from client_session.clock import Clock
    from client_session.ticking.scheduler import Ticking

START = datetime(2026, 1, 1, tzinfo=UTC)
"""What a manual clock's wall shows at first, unless told otherwise."""


class ManualClock:
    """A `Clock` that stands still until it is told to move. Not thread-safe."""

    def __init__(self, wall: datetime = START) -> None:
        """Start at 0.0 seconds, with the wall clock at ``wall`` (aware)."""
        self._seconds = 0.0
        self._wall = as_utc(wall)

    def monotonic(self) -> float:
        """Return the seconds that have passed, asleep or awake."""
        return self._seconds

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass. It cannot go backwards (`ValueError`)."""
        if not (math.isfinite(seconds) and seconds >= 0):
            msg = f"seconds must be finite and not negative, not {seconds!r}"
            raise ValueError(msg)
        self._seconds += seconds
        self._wall += timedelta(seconds=seconds)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: both clocks go on, and no scheduler gets a turn meanwhile."""
        self.advance(seconds)

    def set_wall(self, wall: datetime) -> None:
        """Set the wall clock (aware), as a user or NTP would; the monotonic clock goes on unmoved."""
        self._wall = as_utc(wall)


class ManualScheduler:
    """A `Scheduler` that never ticks by itself. Not thread-safe."""

    def __init__(self) -> None:
        """Start with nothing to tick."""
        self._due: weakref.WeakKeyDictionary[Ticking, float] = weakref.WeakKeyDictionary()

    def __contains__(self, session: object) -> bool:
        """Tell whether the session is being ticked."""
        return session in self._due

    def start(self, session: Ticking, now: float) -> None:
        """Tick the session from ``now + check_interval`` on, whenever `run_due` says so."""
        self._due[session] = now + session.check_interval

    def stop(self, session: Ticking) -> None:
        """Tick the session no more."""
        self._due.pop(session, None)

    def next_due(self) -> float | None:
        """Return the time of the earliest tick to come, on the monotonic clock; ``None`` if there is none."""
        return min(self._due.values(), default=None)

    def run_due(self, clock: Clock) -> int:
        """Send each session that has ticks due by the clock's time one tick, and return how many were sent.

        A session of which several are due gets one, as after a busy or sleeping spell of a real scheduler.
        """
        now = clock.monotonic()
        due = [session for session, at in self._due.items() if at <= now]
        for session in due:
            self._due[session] = now + session.check_interval
            session.tick()
        return len(due)
