"""Event ids that are easy to tell apart in test output."""

from __future__ import annotations


def event_id(number: int) -> str:
    """Return the text of a UUID that ends in a number."""
    return f"00000000-0000-4000-8000-{number:012d}"
