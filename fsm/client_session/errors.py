"""The error that a closed session raises."""

from __future__ import annotations

import attrs


@attrs.define(repr=False, slots=False)
class SessionClosedError(RuntimeError):
    """A method was called after ``close()``."""

    method: str

    def __str__(self) -> str:
        """Name the method and say what to do instead."""
        return f"{self.method} was called on a closed session; construct a new ClientSession"
