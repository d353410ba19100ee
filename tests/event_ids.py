"""Event ids that are easy to tell apart in test output."""

from __future__ import annotations


def event_id(number: int) -> str:
    """Return a UUID string that ends with the given number."""
    return f"00000000-0000-4000-8000-{number:012d}"
