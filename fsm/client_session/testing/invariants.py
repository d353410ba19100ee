"""What holds of all entities of one installation, in the order in which they were handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session.entity import SessionContext

INVARIANTS = {
    "one user": "All entities name one user.",
    "unbroken chain": "Indexes count 1, 2, 3… without gaps, one for each session, and each session's previous one is "
    "the session before it.",
    "one first event": "All entities of a session name one first event, with one time.",
    "events counted": "The events of a session are numbered 1, 2, 3… without gaps.",
}
"""Name and sentence of each."""


class InvariantError(AssertionError):
    """An invariant does not hold; the message says which, and of what."""

    def __init__(self, name: str, detail: str) -> None:
        """Keep the facts."""
        super().__init__(name, detail)
        self.name = name
        self.detail = detail

    def __str__(self) -> str:
        """Say what was promised, and what was found."""
        return f"{self.name}: {INVARIANTS.get(self.name, '')} {self.detail}".replace("  ", " ")


def require(name: str, holds: object, detail: str) -> None:
    """Raise `InvariantError` unless it holds."""
    if not holds:
        raise InvariantError(name, detail)


def check_invariants(contexts: Iterable[SessionContext], *, first_index: int = 1) -> None:
    """Check what holds of all entities of one installation.

    Sessions of several processes on one save file may overlap; each one's entities come in its own order, and
    sessions in the order of their first events. Anonymous entities are not for this: they name no user.

    Args:
        contexts: every entity that was handed out, in order, or a run of sessions.
        first_index: the first one's session index, if the save file was not new.

    Raises:
        InvariantError: an `AssertionError` that names the invariant.

    """
    sessions: dict[str, list[SessionContext]] = {}
    users: set[str] = set()
    for context in contexts:
        users.add(context.user_id)
        sessions.setdefault(context.session_id, []).append(context)
    require("one user", len(users) <= 1, f"Found {sorted(users)}.")
    previous: SessionContext | None = None
    for expected, events in enumerate(sessions.values(), start=first_index):
        first = events[0]
        indexes = {context.session_index for context in events}
        require("unbroken chain", indexes == {expected}, f"Session {first.session_id} has {indexes}, not {expected}.")
        befores = {context.previous_session_id for context in events}
        if previous is not None or first_index == 1:
            before = previous and previous.session_id
            require("unbroken chain", befores == {before}, f"Session {expected} follows {befores}, not {before}.")
        firsts = {(context.first_event_id, context.first_event_timestamp) for context in events}
        require("one first event", len(firsts) == 1 and first.first_event_id, f"Session {expected} has {firsts}.")
        numbers = [context.event_index for context in events]
        complete = list(range(numbers[0], numbers[0] + len(numbers)))
        begun = numbers[0] == 1 or (previous is None and first_index != 1)
        require("events counted", numbers == complete and begun, f"Session {expected} has {numbers}.")
        previous = first
