"""A minimal hand-written session without validation, saving or callbacks: a lower bound on the cost of an event."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic


@dataclass(slots=True)
class Entity:
    """The eight fields of the entity attached to every event."""

    user_id: str
    session_id: str
    session_index: int
    event_index: int
    previous_session_id: str | None
    storage_mechanism: str
    first_event_id: str | None
    first_event_timestamp: str | None


class MinimalSession:
    """A session that, for each event, takes a lock, reads the clock, compares times, counts, and returns an entity."""

    __slots__ = (
        "_event_index",
        "_first_event_id",
        "_first_event_timestamp",
        "_last_activity",
        "_lock",
        "_previous_session_id",
        "_session_id",
        "_session_index",
        "_timeout",
        "_user_id",
    )

    def __init__(self, timeout: float = 600.0) -> None:
        """Start without a session; the first event begins one."""
        self._lock = threading.Lock()
        self._timeout = timeout
        self._user_id = str(uuid.uuid4())
        self._session_id: str | None = None
        self._session_index = 0
        self._last_activity = -timeout

    def get_session_context(self, event_id: str) -> Entity:
        """Count an event and return its entity."""
        with self._lock:
            now = monotonic()
            if now - self._last_activity >= self._timeout or self._session_id is None:
                self._previous_session_id = self._session_id
                self._session_id = str(uuid.uuid4())
                self._session_index += 1
                self._event_index = 0
                self._first_event_id = event_id
                self._first_event_timestamp = datetime.now(UTC).isoformat()
            self._last_activity = now
            self._event_index += 1
            return Entity(
                self._user_id,
                self._session_id,
                self._session_index,
                self._event_index,
                self._previous_session_id,
                "LOCAL_STORAGE",
                self._first_event_id,
                self._first_event_timestamp,
            )
