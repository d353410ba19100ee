"""A state store in which another host always changes a visitor's state first."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from client_session.visitors import VisitorSessions
from client_session_persistence import MemoryStates

if TYPE_CHECKING:
    from client_session_persistence import ReadResult, SwapResult


class ContendedStates:
    """A store whose visitor ``anna`` is tracked by another host before each swap, so that the swap fails."""

    def __init__(self) -> None:
        """Start empty."""
        self._states = MemoryStates()
        self._rival = VisitorSessions(self._states).of("anna")

    def read(self, key: str) -> ReadResult:
        """Read the value."""
        return self._states.read(key)

    def swap(self, key: str, old: bytes | None, new: bytes, keep: float) -> SwapResult:
        """Track the other host's event, then try to replace the value."""
        self._rival.get_session_context(uuid.uuid4())
        return self._states.swap(key, old, new, keep)

    def delete(self, key: str) -> None:
        """Delete the value."""
        self._states.delete(key)
