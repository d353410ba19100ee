"""A decision in the making."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.identity import Identity
    from fsm.lifecycle import Lifecycle


class OvertakenError(Exception):
    """The session has changed since the draft was made; what it would save must not be."""


class Draft:
    """What a session would become: its own once all is decided, unless the session changed meanwhile."""

    __slots__ = ("closed", "event_count_before", "identity", "lifecycle", "notices", "now")

    identity: Identity

    def __init__(self, lifecycle: Lifecycle, identity: Identity, now: float) -> None:
        """Decide at ``now``, on copies of the session's lifecycle and identity."""
        self.lifecycle = lifecycle.copy()
        self.identity = identity.copy()
        self.now = now
        self.event_count_before = self.lifecycle.event_count
        self.closed = False
        self.notices: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def tell(self, call: Callable[..., object], *args: object) -> None:
        """Call back when the decision stands and the lock is released."""
        self.notices.append((call, args))
