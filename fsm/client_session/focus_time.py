"""The time that a session spent in the foreground and in the background."""

from __future__ import annotations

import math

import attrs


@attrs.frozen(weakref_slot=False)  # one instance per session in memory
class FocusTime:
    """The seconds that a session spent in the foreground and in the background, up to its last activity.

    Time after the last activity is not counted until there is more activity. Therefore, a focus change stores two pairs
    of totals: one up to the change, and one up to the last activity before it.
    """

    since: float
    """The monotonic time at which the session began or its focus last changed."""
    foreground: float = 0.0
    """Seconds in the foreground before ``since``."""
    background: float = 0.0
    """Seconds in the background before ``since``."""
    _at_activity: tuple[float, float] = (0.0, 0.0)

    def toggle(self, now: float, *, was_foreground: bool, last_activity: float) -> FocusTime:
        """Return the focus time after a focus change."""
        at_activity = self._until(last_activity, foreground=was_foreground)
        return FocusTime(now, *self._plus(now, foreground=was_foreground), at_activity)

    def until(self, last_activity: float, *, foreground: bool) -> tuple[float | None, float | None]:
        """Return the foreground and background seconds up to the last activity, given whether the app has focus.

        They are ``None`` if they are not known.
        """
        seconds = self._until(last_activity, foreground=foreground)
        return (None, None) if math.isnan(sum(seconds)) else seconds

    def _until(self, last_activity: float, *, foreground: bool) -> tuple[float, float]:
        if last_activity < self.since:
            return self._at_activity
        return self._plus(last_activity, foreground=foreground)

    def _plus(self, now: float, *, foreground: bool) -> tuple[float, float]:
        elapsed = max(0.0, now - self.since)  # a clock that goes backwards must not take time away
        if foreground:
            return self.foreground + elapsed, self.background
        return self.foreground, self.background + elapsed


UNKNOWN = FocusTime(math.nan, math.nan, math.nan)
"""The focus time of a session that continued after a restart."""
