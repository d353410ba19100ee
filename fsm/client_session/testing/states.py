"""A visitor state store whose time a test controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.microseconds import microseconds

if TYPE_CHECKING:
    from client_session.clock import Clock
    from client_session_persistence.states import ReadResult, SwapResult


class ManualStates:
    """A `StateStore` in memory, with the wall time of a `ManualClock`. Not thread-safe.

    Examples:
        >>> clock = ManualClock()
        >>> visitor = VisitorSessions(ManualStates(clock)).of("anna")
        >>> entity = visitor.get_session_context(uuid.uuid4())
        >>> clock.advance(600)
        >>> print(visitor.current())
        None

    """

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._entries: dict[str, tuple[bytes, float]] = {}

    @property
    def is_local(self) -> bool:
        """``True``: calls cost no round trip, so hosts read a value before they swap it."""
        return True

    def read(self, key: str) -> ReadResult:
        """Return the value, unless it has expired, and the clock's time."""
        now = microseconds(self._clock.now())
        value, until = self._entries.get(key, (None, 0.0))
        return (value if now < until else None), now

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Replace the value if it equals ``old``, and keep the new one for ``keep`` seconds."""
        value, now = self.read(key)
        if value != old:
            return False, value, now
        self._entries[key] = new, now + keep * 1e6
        return True, new, now

    def delete(self, key: str) -> None:
        """Delete the value, if any."""
        self._entries.pop(key, None)
