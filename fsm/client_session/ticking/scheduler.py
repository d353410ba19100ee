"""The protocol for schedulers, which tick sessions."""

from __future__ import annotations

from typing import Protocol


class Ticking(Protocol):
    """The part of a session that a scheduler uses."""

    @property
    def check_interval(self) -> float:
        """Seconds between ticks."""
        ...

    def tick(self) -> None:
        """Check now whether the session has expired."""


class Scheduler(Protocol):
    """Calls ``session.tick()`` every ``session.check_interval`` seconds between `start` and `stop`.

    Ticks may be late, early, lost or doubled: they do not affect which events share a session. Hold the session weakly
    (`weakref.ref`; a bound ``session.tick`` would keep it alive). The session's lock is held during both methods, so
    neither may wait for a running tick.
    """

    def start(self, session: Ticking, now: float) -> None:
        """Start ticking a session at its current interval; if it is already being ticked, change its interval.

        ``now`` is the session's monotonic time in seconds; a scheduler that runs in real time can ignore it.

        Raises:
            RuntimeError: ticking cannot start now. The session logs the error, and expires at its next event.

        """

    def stop(self, session: Ticking) -> None:
        """Stop ticking a session, without waiting for a running tick. No effect if it is not being ticked."""
