"""The error that a closed session raises."""

from __future__ import annotations


class SessionClosedError(RuntimeError):
    """Raised when a method is called after ``close()``."""

    def __init__(self, method: str) -> None:
        """Store the method's name."""
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        """Return a message that names the method and says what to do instead."""
        return f"{self.method} was called on a closed session; construct a new ClientSession"
