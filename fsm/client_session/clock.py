"""Clocks: a monotonic clock that includes system sleep, for elapsed time, and a wall clock, for timestamps only."""

from __future__ import annotations

import functools
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs


class Clock(Protocol):
    """A monotonic clock and a wall clock. Both methods must be thread-safe."""

    def monotonic(self) -> float:
        """Return a time in seconds that never decreases and keeps counting while the machine sleeps."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time as an aware datetime in UTC."""
        ...


def sleep_counting_clock(platform: str) -> int | None:
    """Return the id of the platform's monotonic clock that includes system sleep, or ``None`` if there is none.

    Linux and Android: ``CLOCK_BOOTTIME`` (man 2 clock_gettime: "includes any time that the system is suspended").
    macOS and iOS: ``CLOCK_MONOTONIC``, which includes sleep there, unlike `time.monotonic`.
    """
    boot, monotonic = "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"
    clocks = {"linux": boot, "android": boot, "darwin": monotonic, "ios": monotonic}
    return getattr(time, clocks.get(platform, ""), None)


_CLOCK_ID = sleep_counting_clock(sys.platform)


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # Not wrapped in a method, since every event calls it. On Windows, time.monotonic includes sleep.
    monotonic = staticmethod(time.monotonic if _CLOCK_ID is None else functools.partial(time.clock_gettime, _CLOCK_ID))

    def now(self) -> datetime:
        """Return the wall clock's time as an aware datetime in UTC."""
        return datetime.now(UTC)


SYSTEM_CLOCK = SystemClock()
"""The default clock."""

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def shifted(time: datetime, seconds: float) -> datetime:
    """Add seconds to a time in UTC. A result outside the years 1 to 9999 becomes the first or last time in them."""
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:
        return _FIRST if seconds < 0 else _LAST


@attrs.frozen(weakref_slot=False)  # one instance per session in memory
class Anchor:
    """One instant as read from both clocks, used to convert monotonic times to wall times.

    Times converted with the same anchor stay consistent even if the wall clock is set.
    """

    monotonic: float
    wall: datetime

    def wall_time(self, at: float) -> datetime:
        """Convert a monotonic time to a wall time."""
        return shifted(self.wall, at - self.monotonic)

    def moved(self, by: Anchor) -> Anchor:
        """Return this anchor, shifted to match any adjustment of the wall clock between this anchor and ``by``.

        Shifts of less than a second are ignored: they result from rounding and slewing, and would make a saved time
        depend on when it was saved.
        """
        shift = (by.wall - self.wall_time(by.monotonic)).total_seconds()
        return Anchor(self.monotonic, shifted(self.wall, shift)) if abs(shift) >= 1 else self
