"""The error that a closed session raises."""

from __future__ import annotations


class SessionClosedError(RuntimeError):
    """Raised when a method is called, or a property set, after ``close()``."""

    def __init__(self, method: str, verb: str = "called") -> None:
        """Store the name of the method (or the property) and what was done with it."""
        super().__init__(method, verb)
        self.method = method
        self._verb = verb

    def __str__(self) -> str:
        """Return a message that names the method and says what to do instead."""
        return f"{self.method} was {self._verb} on a closed session; construct a new ClientSession"
