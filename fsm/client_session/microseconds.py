"""Times and limits in whole microseconds, the unit of visitors and logs."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def limit_microseconds(seconds: float) -> float:
    """Return a limit that is greater than 0 in whole microseconds, at least one, or infinity.

    Live and offline, times are whole microseconds. A limit that is not can only come from the rounding of floats.
    """
    number = seconds * 1e6
    return max(1, round(number)) if number < math.inf else math.inf


def time_at(at: int) -> datetime:
    """Return the time at a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=at)
