"""Invariants of the entities that an installation's sessions returned, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session.entity import SessionContext

INVARIANTS = {
    "one user": "All entities have the same user.",
    "unbroken chain": "Sessions are numbered 1, 2, 3… without gaps, and each has its predecessor's id.",
    "one first event": "All entities of a session have the same first event, with the same time.",
    "events counted": "A session's events are numbered 1, 2, 3… without gaps.",
}
"""The name and meaning of each invariant."""


class InvariantError(AssertionError):
    """An invariant does not hold; the message names the invariant and shows the values."""

    def __init__(self, name: str, detail: str) -> None:
        """Store the arguments as attributes."""
        super().__init__(name, detail)
        self.name = name
        self.detail = detail

    def __str__(self) -> str:
        """Return the name, the meaning, and the detail."""
        return f"{self.name}: {INVARIANTS.get(self.name, '')} {self.detail}".replace("  ", " ")


def require(name: str, holds: object, detail: str) -> None:
    """Raise `InvariantError` unless the invariant holds."""
    if not holds:
        raise InvariantError(name, detail)


def check_invariants(contexts: Iterable[SessionContext], *, first_index: int = 1) -> None:
    """Check that an installation's entities satisfy the invariants.

    If several processes share a save file, their sessions may overlap, so order the sessions by first event, and
    each session's entities by event index. Leave out anonymous entities, since they have no user.

    Args:
        contexts: all entities, or those of consecutive sessions, in order.
        first_index: the index of the first of these sessions; above 1 if the save file already had sessions.

    Raises:
        InvariantError: an `AssertionError` that names the invariant.

    """
    sessions: dict[str, list[SessionContext]] = {}
    users: set[str] = set()
    for context in contexts:
        users.add(context.user_id)
        sessions.setdefault(context.session_id, []).append(context)
    require("one user", len(users) <= 1, f"Got {sorted(users)}.")
    previous: SessionContext | None = None
    for expected, events in enumerate(sessions.values(), start=first_index):
        first = events[0]
        indexes = {context.session_index for context in events}
        require(
            "unbroken chain", indexes == {expected}, f"Session {first.session_id}: expected {expected}, got {indexes}."
        )
        previous_ids = {context.previous_session_id for context in events}
        if previous is not None or first_index == 1:
            before = previous and previous.session_id
            follows = previous_ids == {before}
            require("unbroken chain", follows, f"Session {expected}: previous is {previous_ids}, not {before}.")
        firsts = {(context.first_event_id, context.first_event_timestamp) for context in events}
        require("one first event", len(firsts) == 1 and first.first_event_id, f"Session {expected}: first is {firsts}.")
        numbers = [context.event_index for context in events]
        complete = list(range(numbers[0], numbers[0] + len(numbers)))
        begun = numbers[0] == 1 or (previous is None and first_index != 1)
        require("events counted", numbers == complete and begun, f"Session {expected}: got event indexes {numbers}.")
        previous = first
