"""What sends the ticks: the contract."""

from __future__ import annotations

from typing import Protocol


class Ticking(Protocol):
    """What a scheduler ticks: a session."""

    @property
    def check_interval(self) -> float:
        """How often to tick, in seconds."""
        ...

    def tick(self) -> None:
        """Check now."""


class Scheduler(Protocol):
    """Calls ``session.tick()`` every ``session.check_interval`` seconds, from `start` until `stop`.

    Ticks may be late, early, lost or doubled: which events share a session does not depend on them. Hold the session
    weakly (`weakref.ref`; a bound ``session.tick`` would keep it alive). Both methods are called with the session's
    lock held, so neither may wait for a tick that is under way.
    """

    def start(self, session: Ticking, now: float) -> None:
        """Let ticks come from ``now`` on, at the interval that the session has at this moment.

        Of a session that is being ticked already, only the interval changes. ``now`` is the session's clock, in
        seconds; a scheduler that runs on real time has no use for it.

        Raises:
            RuntimeError: no ticks can come now. The session logs it, and expires at its next event.

        """

    def stop(self, session: Ticking) -> None:
        """Let no more ticks come; one that is under way may still end. Of a session that is not ticked: nothing."""
