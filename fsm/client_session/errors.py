"""The error that a closed session raises."""

from __future__ import annotations


class SessionClosedError(RuntimeError):
    """A method was called after ``close()``."""

    def __init__(self, method: str) -> None:
        """Name the method."""
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        """Name the method and say what to do instead."""
        return f"{self.method} was called on a closed session; construct a new ClientSession"
