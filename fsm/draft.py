"""A decision in the making."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm.history import changed, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.clock import Clock
    from fsm.explanation import Beginning, Ending
    from fsm.identity import Identity
    from fsm.lifecycle import Lifecycle


class OvertakenError(Exception):
    """The session has changed since the draft was made; what it would save must not be."""


class Draft:
    """What a session would become: its own once all is decided, unless the session changed meanwhile."""

    __slots__ = ("begun", "closed", "ended", "event_count_before", "identity", "lifecycle", "notices", "now")

    def __init__(self, lifecycle: Lifecycle, identity: Identity, now: float) -> None:
        """Decide at ``now``, on copies of the session's lifecycle and identity."""
        self.lifecycle = lifecycle.copy()
        self.identity = identity.copy()
        self.now = now
        self.event_count_before = self.lifecycle.event_count
        self.closed = False
        self.ended: Ending | None = None
        self.begun: Beginning | None = None
        self.notices: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def tell(self, call: Callable[..., object], *args: object) -> None:
        """Call back when the decision stands and the lock is released."""
        self.notices.append((call, args))

    def entry(self, given: str, before: Lifecycle, clock: Clock) -> bytes:
        """Pack for the history what this decision changed; nothing if it changed no more than the last activity."""
        if not (self.ended or self.begun or self.closed or changed(before, self.lifecycle)):
            return b""
        idle_seconds = self.now - before.last_activity
        return pack(
            clock.now(), given, before, self.lifecycle, idle_seconds=idle_seconds, ended=self.ended, begun=self.begun
        )
