"""Time: a monotonic clock that counts system sleep decides, the wall clock only stamps."""

from __future__ import annotations

import functools
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs


class Clock(Protocol):
    """Two clocks in one. Both methods may be called from any thread."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards and go on while the machine sleeps."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...


def sleep_counting_clock(platform: str) -> int | None:
    """Return the id of the platform's monotonic clock that counts system sleep, or ``None`` if there is no such id.

    Linux and Android: ``CLOCK_BOOTTIME`` (man 2 clock_gettime: "includes any time that the system is suspended").
    macOS and iOS: ``CLOCK_MONOTONIC``, which there counts sleep; `time.monotonic` there does not.
    """
    if platform in {"linux", "android"}:
        return getattr(time, "CLOCK_BOOTTIME", None)
    if platform in {"darwin", "ios"}:
        return getattr(time, "CLOCK_MONOTONIC", None)
    return None


_CLOCK_ID = sleep_counting_clock(sys.platform)


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # No function of ours in between: it is called for every event.
    monotonic = staticmethod(
        time.monotonic  # counts sleep on Windows
        if _CLOCK_ID is None
        else functools.partial(time.clock_gettime, _CLOCK_ID)
    )

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        return datetime.now(UTC)


SYSTEM_CLOCK = SystemClock()
"""The clock of every session that is given no other."""


@attrs.frozen(weakref_slot=False)  # one for each session in memory
class Anchor:
    """One moment on both clocks, by which times on the monotonic one become times of day.

    So the times of a session agree with each other whatever happens to the wall clock meanwhile.
    """

    monotonic: float
    wall: datetime

    def wall_time(self, at: float) -> datetime:
        """Return the time of day of a monotonic time."""
        return self.wall + timedelta(seconds=at - self.monotonic)

    def moved(self, by: Anchor) -> Anchor:
        """Return this moment in the terms of a later one, if the wall clock has been set in between.

        Less than a second is rounding and slewing, which must not make a saved time depend on when it was saved.
        """
        shift = by.wall - self.wall_time(by.monotonic)
        return Anchor(self.monotonic, self.wall + shift) if abs(shift) >= _SET_BY_HAND else self


_SET_BY_HAND = timedelta(seconds=1)
