"""A clock and a scheduler that a test controls."""

from __future__ import annotations

import sys
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client_session_persistence.snapshot import as_utc, shifted, shown

if TYPE_CHECKING:
    from client_session.clock import Clock
    from client_session.ticking.scheduler import Ticking

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The default wall time at which a manual clock starts."""


class ManualClock:
    """A `Clock` that moves only when you advance it. Not thread-safe."""

    def __init__(self, wall: datetime = START) -> None:
        """Start at monotonic time 0.0 and wall time ``wall``, an aware datetime."""
        self._seconds = 0.0
        self._wall = as_utc(wall, "wall")

    def monotonic(self) -> float:
        """Return the seconds since the clock was constructed, including simulated sleep."""
        return self._seconds

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Advance both clocks; the wall clock stops at the end of the year 9999.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative or not finite.

        """
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            msg = f"seconds must be a number, not {shown(seconds)}"
            raise TypeError(msg)
        if not 0 <= seconds <= sys.float_info.max:
            msg = f"seconds must be finite and non-negative, not {shown(seconds)}"
            raise ValueError(msg)
        self._seconds += seconds
        self._wall = shifted(self._wall, seconds)

    def suspend(self, seconds: float) -> None:
        """Simulate a sleeping machine: advance both clocks without running checks."""
        self.advance(seconds)

    def set_wall(self, wall: datetime) -> None:
        """Set the wall clock to an aware time, as a user or NTP would; the monotonic clock is not affected."""
        self._wall = as_utc(wall, "wall")


class ManualScheduler:
    """A `Scheduler` that ticks only when you call `run_due`. Not thread-safe."""

    def __init__(self) -> None:
        """Start with no sessions."""
        self._due: weakref.WeakKeyDictionary[Ticking, float] = weakref.WeakKeyDictionary()

    def __contains__(self, session: object) -> bool:
        """Return whether the session is scheduled."""
        return session in self._due

    def start(self, session: Ticking, now: float) -> None:
        """Schedule the session's ticks, the first at ``now + check_interval``."""
        self._due[session] = now + session.check_interval

    def stop(self, session: Ticking) -> None:
        """Stop ticking the session."""
        self._due.pop(session, None)

    def next_due(self) -> float | None:
        """Return the monotonic time of the next tick, or ``None`` if no tick is scheduled."""
        return min(self._due.values(), default=None)

    def run_due(self, clock: Clock) -> int:
        """Tick each session that is due, and return the number of ticks.

        A session that missed several ticks is ticked only once, as by a real scheduler after the machine has been
        busy or asleep.
        """
        now = clock.monotonic()
        due = [session for session, at in self._due.items() if at <= now]
        for session in due:
            self._due[session] = now + session.check_interval
            session.tick()
        return len(due)
