"""What a session hands out: the ``client_session`` entity of each event, and the summary of an ended session."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import attrs

from client_session_persistence.snapshot import MAX_INDEX, iso_time

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.graph import EndReason
    from client_session_persistence import Snapshot

SCHEMA = "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"
"""The schema of entities, in Iglu Central."""
ZERO_USER_ID = "00000000-0000-0000-0000-000000000000"
"""The user id of anonymous events, as in the mobile trackers."""

_NEWER_KEYS: dict[str, tuple[str, ...]] = {"1-0-2": (), "1-0-1": ("eventIndex", "firstEventTimestamp")}

EntityData = dict[str, str | int | None]
"""The data of an entity, by the schema's keys."""


@attrs.frozen(weakref_slot=False)  # one for each session in memory
class SessionFacts:
    """The fields that all entities of a session share."""

    user_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    storage_mechanism: str
    first_event_id: str | None
    first_event_time: datetime | None

    @functools.cached_property
    def first_event_timestamp(self) -> str | None:
        """The time of the first event as RFC 3339 text."""
        return None if self.first_event_time is None else iso_time(self.first_event_time)

    @functools.cached_property
    def json(self) -> tuple[str, str]:
        """The JSON text of an entity, before and after its event index: only the index differs between events."""
        text = json.dumps({"schema": SCHEMA, "data": self.data(0)}, separators=(",", ":"))
        before, after = text.split('"eventIndex":0')
        return f'{before}"eventIndex":', after

    def data(self, event_index: int) -> EntityData:
        """Return the data of an entity, with the schema's keys in the schema's order."""
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
        """Return the facts of a saved session (`ValueError` if the snapshot has none)."""
        if snapshot.session_id is None:
            msg = f"the snapshot must have a session: {snapshot!r}"
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
        """Return a copy without user and previous session."""
        return attrs.evolve(self, user_id=ZERO_USER_ID, previous_session_id=None)


@attrs.define(repr=False, unsafe_hash=True)  # created for every event; attrs' frozen takes twice as long
class SessionContext:
    """The entity of one event, as `ClientSession.get_session_context` returns it.

    Its public attributes are read-only; entities with the same data are equal. Ids and times are text, as in the JSON.
    Every entity validates against client_session 1-0-2.
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
        """The previous session; ``None`` in a user's first session, and if the event is anonymous."""
        return self._facts.previous_session_id

    @property
    def session_index(self) -> int:
        """The number of the session, from 1."""
        return self._facts.session_index

    @property
    def event_index(self) -> int:
        """The number of the event in its session, from 1 to the schema's maximum of 2³¹ - 1, where it stays."""
        return min(self._event_number, MAX_INDEX)

    @property
    def storage_mechanism(self) -> str:
        """``LOCAL_STORAGE``, as the .NET tracker reports."""
        return self._facts.storage_mechanism

    @property
    def first_event_id(self) -> str | None:
        """The id of the session's first event, in lower case."""
        return self._facts.first_event_id

    @property
    def first_event_timestamp(self) -> str | None:
        """The time of the session's first event, as RFC 3339 text in UTC."""
        return self._facts.first_event_timestamp

    @property
    def schema(self) -> str:
        """The Iglu URI of the schema."""
        return SCHEMA

    @property
    def data(self) -> EntityData:
        """A new ``dict`` with the schema's keys."""
        return self._facts.data(self.event_index)

    def to_dict(self, version: str = "1-0-2") -> dict[str, str | EntityData]:
        """Return a new ``{"schema": ..., "data": ...}``.

        Args:
            version: the version of the schema. ``1-0-1``, which the .NET tracker sends, does not have ``eventIndex``
                and ``firstEventTimestamp``.

        Raises:
            ValueError: the version is unknown.

        """
        if version not in _NEWER_KEYS:
            msg = f"version must be one of {', '.join(_NEWER_KEYS)}, not {version!r}"
            raise ValueError(msg)
        data = {key: value for key, value in self.data.items() if key not in _NEWER_KEYS[version]}
        return {"schema": SCHEMA.replace("1-0-2", version), "data": data}

    def to_json(self) -> str:
        """Return `to_dict` as compact JSON text."""
        before, after = self._facts.json
        return f"{before}{self.event_index}{after}"

    def __repr__(self) -> str:
        """Show the data."""
        fields = ", ".join(f"{key}={value!r}" for key, value in self.data.items())
        return f"SessionContext({fields})"


@attrs.frozen(kw_only=True)
class SessionSummary:
    """A session that has ended: its ids, times, and duration in each focus, and why it ended.

    A session ends at its last activity (an event or `ClientSession.touch`), not when the end is noticed. Times are
    aware, in UTC. Foreground and background seconds run from the first event to the last activity; for a session that
    continued after a restart, from the restart.
    """

    user_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    first_event_id: str | None
    first_event_time: datetime | None
    last_event_time: datetime
    event_count: int
    foreground_seconds: float
    background_seconds: float
    reason: EndReason
