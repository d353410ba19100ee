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

    Ticks may be late, early, lost or duplicated: they do not affect which session an event joins. Schedulers must keep
    only weak references to sessions (a bound ``session.tick`` would keep a session alive). The session's lock is held
    while either method runs, so neither method may wait for a running tick.
    """

    def start(self, session: Ticking, now: float) -> None:
        """Start ticking a session at its current interval, or change the interval if the session is already ticked.

        ``now`` is the session's monotonic time in seconds; a scheduler that runs in real time can ignore it.

        Raises:
            RuntimeError: ticking cannot start now. The session logs the error, and expires at its next event.

        """

    def stop(self, session: Ticking) -> None:
        """Stop ticking a session, without waiting for a running tick. No effect if the session is not ticked."""
