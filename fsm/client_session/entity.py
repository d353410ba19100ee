"""The ``client_session`` entity that a tracker attaches to every event.

Schema: ``iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2`` (Iglu Central).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import attrs

from client_session_persistence.snapshot import MAX_INDEX, iso_time

if TYPE_CHECKING:
    from datetime import datetime

    from client_session_persistence import Snapshot

SCHEMA = "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"

ZERO_USER_ID = "00000000-0000-0000-0000-000000000000"
"""The user of anonymous events, as the mobile trackers send it."""

_NEWER_KEYS: dict[str, frozenset[str]] = {
    "1-0-2": frozenset(),
    "1-0-1": frozenset({"eventIndex", "firstEventTimestamp"}),
}

EntityData = dict[str, str | int | None]


@attrs.frozen(weakref_slot=False)  # one for each session in memory
class SessionFacts:
    """What all entities of one session have in common."""

    user_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    storage_mechanism: str
    first_event_id: str | None
    first_event_time: datetime | None
    _timestamp: str | None = attrs.field(init=False, default=None, eq=False, repr=False)
    _json: tuple[str, str] | None = attrs.field(init=False, default=None, eq=False, repr=False)

    @property
    def first_event_timestamp(self) -> str | None:
        """The time of the first event as RFC 3339 text."""
        if self._timestamp is None and self.first_event_time is not None:
            object.__setattr__(self, "_timestamp", iso_time(self.first_event_time))
        return self._timestamp

    @property
    def json(self) -> tuple[str, str]:
        """The JSON text of an entity, before and after its event's number: between two events nothing else changes."""
        if self._json is None:
            text = json.dumps({"schema": SCHEMA, "data": self.data(0)}, separators=(",", ":"))
            before, after = text.split('"eventIndex":0')
            object.__setattr__(self, "_json", (f'{before}"eventIndex":', after))
        return cast("tuple[str, str]", self._json)

    def data(self, event_index: int) -> EntityData:
        """Return an entity's data, with the schema's keys in its order."""
        return {
            "userId": self.user_id,
            "sessionId": self.session_id,
            "sessionIndex": self.session_index,
            "eventIndex": event_index,
            "previousSessionId": self.previous_session_id,
            "storageMechanism": self.storage_mechanism,
            "firstEventId": self.first_event_id,
            "firstEventTimestamp": self.first_event_timestamp,
        }

    @classmethod
    def of(cls, snapshot: Snapshot) -> SessionFacts:
        """Take the facts of a numbered session."""
        if snapshot.session_id is None:
            msg = f"{snapshot!r} holds no session"
            raise ValueError(msg)
        return cls(
            snapshot.user_id,
            snapshot.session_id,
            snapshot.previous_session_id,
            snapshot.session_index,
            snapshot.storage_mechanism,
            snapshot.first_event_id,
            snapshot.first_event_timestamp,
        )

    def anonymous(self) -> SessionFacts:
        """Return the same without user and previous session."""
        return attrs.evolve(self, user_id=ZERO_USER_ID, previous_session_id=None)


@attrs.define(repr=False, unsafe_hash=True)  # one is made for every event, and attrs' frozen takes twice the time
class SessionContext:
    """The entity of one event: immutable (nothing public of it can be set), and equal to another of the same data.

    Handed out by `ClientSession.get_session_context`. Ids and times are text, as in the entity. It validates against
    client_session 1-0-2.
    """

    _facts: SessionFacts
    _event_number: int

    @property
    def user_id(self) -> str:
        """The user of this installation; the zero UUID if the event is anonymous."""
        return self._facts.user_id

    @property
    def session_id(self) -> str:
        """The session that the event belongs to."""
        return self._facts.session_id

    @property
    def previous_session_id(self) -> str | None:
        """The session before it; ``None`` for a user's first one, and if the event is anonymous."""
        return self._facts.previous_session_id

    @property
    def session_index(self) -> int:
        """The session's number, from 1."""
        return self._facts.session_index

    @property
    def event_index(self) -> int:
        """The event's number in its session, from 1 (it stays at the schema's maximum of 2³¹ - 1)."""
        return min(self._event_number, MAX_INDEX)

    @property
    def storage_mechanism(self) -> str:
        """``LOCAL_STORAGE``, as the .NET tracker says."""
        return self._facts.storage_mechanism

    @property
    def first_event_id(self) -> str | None:
        """The id of the session's first event, in lower case."""
        return self._facts.first_event_id

    @property
    def first_event_timestamp(self) -> str | None:
        """When the session's first event was tracked, as RFC 3339 text in UTC."""
        return self._facts.first_event_timestamp

    @property
    def schema(self) -> str:
        """The Iglu URI of the schema of `data`."""
        return SCHEMA

    @property
    def data(self) -> EntityData:
        """A fresh ``dict`` with the schema's keys."""
        return self._facts.data(self.event_index)

    def to_dict(self, version: str = "1-0-2") -> dict[str, str | EntityData]:
        """Return ``{"schema": ..., "data": ...}``, fresh.

        Args:
            version: of the schema. ``1-0-1``, which the .NET tracker sends, lacks ``eventIndex`` and
                ``firstEventTimestamp``.

        Raises:
            ValueError: another version.

        """
        if version not in _NEWER_KEYS:
            msg = f"version must be one of {', '.join(_NEWER_KEYS)}, not {version!r}"
            raise ValueError(msg)
        newer = _NEWER_KEYS[version]
        data = {key: value for key, value in self.data.items() if key not in newer}
        return {"schema": SCHEMA.replace("1-0-2", version), "data": data}

    def to_json(self) -> str:
        """Return `to_dict` as compact JSON text."""
        before, after = self._facts.json
        return f"{before}{self.event_index}{after}"

    def __repr__(self) -> str:
        """Show the data."""
        fields = ", ".join(f"{key}={value!r}" for key, value in self.data.items())
        return f"SessionContext({fields})"
