"""Clocks: a monotonic clock that includes system sleep, for elapsed time, and a wall clock, for timestamps only."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from datetime import UTC, datetime
from typing import Protocol

import attrs

from client_session_persistence.snapshot import as_utc, shifted, shown


class Clock(Protocol):
    """A monotonic clock and a wall clock. Both methods must be thread-safe.

    If a clock goes backwards or returns an invalid time, the session logs one warning and continues with valid times.
    """

    def monotonic(self) -> float:
        """Return a time in seconds that never decreases and keeps counting while the machine sleeps."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time as an aware datetime in UTC."""
        ...


def sleep_counting_clock(platform: str) -> int | None:
    """Return the id of the platform's monotonic clock that includes system sleep, or ``None`` if there is none.

    The clock is tried once, because some kernels, emulators and system call filters refuse it.

    Linux and Android: ``CLOCK_BOOTTIME`` (man 2 clock_gettime: "includes any time that the system is suspended").
    macOS and iOS: ``CLOCK_MONOTONIC``, which includes sleep there, unlike `time.monotonic`.
    """
    boot, monotonic = "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"
    clocks = {"linux": boot, "android": boot, "darwin": monotonic, "ios": monotonic}
    clock: int | None = getattr(time, clocks.get(platform, ""), None)
    if clock is not None:
        with contextlib.suppress(OSError):
            time.clock_gettime(clock)
            return clock
    return None


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

_MAX_SECONDS = 1e300
"""The difference between two readings must not overflow."""
_MAX_SECONDS_BACK = 60.0


class CheckedClock:
    """An embedder's clock, with readings that a session can rely on. Thread-safe if the embedder's clock is.

    If the monotonic clock goes backwards, time stands still until the clock catches up. If the clock is more than a
    minute behind, time continues immediately, at the clock's pace. A reading that is not a finite number is replaced
    with the last result. A wall time without a time zone is taken as UTC; any other invalid wall time is replaced with
    the last valid one.
    """

    __slots__ = ("_clock", "_faults", "_state", "_wall")

    def __init__(self, clock: Clock) -> None:
        """Read the clock once. Raise `TypeError` if a method returns a value of the wrong type."""
        seconds, wall = clock.monotonic(), clock.now()
        if not _is_number(seconds):
            msg = f"clock.monotonic() must return a number of seconds, not {shown(seconds)}"
            raise TypeError(msg)
        if not isinstance(wall, datetime):
            msg = f"clock.now() must return an aware datetime, not {shown(wall)}"
            raise TypeError(msg)
        self._clock = clock
        self._faults: dict[str, str | None] = {"monotonic": None, "now": None}
        """The first fault of each method; an empty string once it has been taken."""
        self._state = 0.0, float(seconds) if abs(seconds) < _MAX_SECONDS else 0.0
        """The offset to add to readings, and the last result; one tuple, so that threads never see a partial change."""
        self._wall = SYSTEM_CLOCK.now()

    def monotonic(self) -> float:
        """Return a time in seconds that never decreases."""
        seconds = self._clock.monotonic()
        offset, last = self._state
        if not (_is_number(seconds) and abs(seconds) < _MAX_SECONDS):
            self._note("monotonic", f"returned {shown(seconds)}, which is not a finite number")
            return last
        now = seconds + offset
        if now < last:
            self._note("monotonic", f"went backwards by {last - now:g} s")
            if last - now > _MAX_SECONDS_BACK:
                offset += last - now
            now = last
        self._state = offset, now
        return now

    def now(self) -> datetime:
        """Return the wall clock's time as an aware datetime in UTC."""
        wall = self._clock.now()
        try:
            if isinstance(wall, datetime) and wall.tzinfo is None:
                self._note("now", f"returned a time without a time zone, {shown(wall)}, which is taken as UTC")
                wall = wall.replace(tzinfo=UTC)
            self._wall = as_utc(wall, "its time")
        except (TypeError, ValueError) as error:
            self._note("now", f"returned an invalid time: {error}")
        return self._wall

    def take_faults(self) -> list[str]:
        """Describe the first fault of each method, unless an earlier call has described it."""
        faults = [(method, fault) for method, fault in self._faults.items() if fault]
        self._faults.update((method, "") for method, _ in faults)
        return [f"The session's clock does not work correctly: {method}() {fault}" for method, fault in faults]

    def _note(self, method: str, fault: str) -> None:
        if self._faults[method] is None:
            self._faults[method] = fault


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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

    def adjusted(self, later: Anchor) -> Anchor:
        """Return this anchor, shifted by any adjustment made to the wall clock between this anchor and ``later``.

        Shifts of less than a second are ignored: they result from rounding and slewing, and would make a saved time
        depend on when it was saved.
        """
        shift = (later.wall - self.wall_time(later.monotonic)).total_seconds()
        return Anchor(self.monotonic, shifted(self.wall, shift)) if abs(shift) >= 1 else self

    def at(self, wall: datetime) -> Anchor:
        """Return the anchor at another wall time that converts times in the same way."""
        return Anchor(self.monotonic + (wall - self.wall).total_seconds(), wall)
