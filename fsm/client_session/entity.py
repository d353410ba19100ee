"""A session's output: the ``client_session`` entity of each event, and the summary of an ended session."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import attrs

from client_session_persistence.snapshot import MAX_INDEX, iso_time, shown

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.graph import EndReason
    from client_session_persistence import Snapshot

SCHEMA = "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"
"""The schema of the entities, in Iglu Central."""
ZERO_USER_ID = "00000000-0000-0000-0000-000000000000"
"""The user id of anonymous events, as in the mobile trackers."""

_NEWER_KEYS: dict[str, tuple[str, ...]] = {"1-0-2": (), "1-0-1": ("eventIndex", "firstEventTimestamp")}

_ATTRIBUTES = (
    "user_id", "session_id", "session_index", "event_index", "previous_session_id", "storage_mechanism",
    "first_event_id", "first_event_timestamp",
)  # fmt: skip
"""The attributes of an entity, in the schema's order."""

_COMPACT = json.JSONEncoder(separators=(",", ":"))

EntityData = dict[str, str | int | None]
"""An entity's data, with the schema's keys."""


@attrs.frozen(weakref_slot=False)  # one instance per session in memory
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
        """The time of the first event as an RFC 3339 string."""
        return None if self.first_event_time is None else iso_time(self.first_event_time)

    @functools.cached_property
    def json(self) -> tuple[str, str]:
        """An entity's JSON before and after the event index, which is the only part that differs between events."""
        text = _COMPACT.encode({"schema": SCHEMA, "data": self.data(0)})
        before, after = text.split('"eventIndex":0')
        return f'{before}"eventIndex":', after

    def data(self, event_index: int) -> EntityData:
        """Return an entity's data, with the schema's keys in the schema's order."""
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
    def from_snapshot(cls, snapshot: Snapshot) -> SessionFacts:
        """Return the facts of a saved session; raise `ValueError` if the snapshot has no session."""
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
        """Return a copy without the user or the previous session."""
        return attrs.evolve(self, user_id=ZERO_USER_ID, previous_session_id=None)


@attrs.define(repr=False, unsafe_hash=True)  # created for every event; attrs.frozen would take twice as long
class SessionContext:
    """The entity of one event, as returned by `ClientSession.get_session_context`.

    Its public attributes are read-only. Entities with the same data are equal. Ids and times are strings, as in JSON.
    Every entity validates against client_session 1-0-2.
    """

    _facts: SessionFacts
    _event_number: int

    @property
    def user_id(self) -> str:
        """The id of this installation's user; the zero UUID if the event is anonymous."""
        return self._facts.user_id

    @property
    def session_id(self) -> str:
        """The id of the session that the event belongs to."""
        return self._facts.session_id

    @property
    def previous_session_id(self) -> str | None:
        """The id of the previous session; ``None`` in a user's first session or if the event is anonymous."""
        return self._facts.previous_session_id

    @property
    def session_index(self) -> int:
        """The session's number, starting at 1."""
        return self._facts.session_index

    @property
    def event_index(self) -> int:
        """The event's number in its session, starting at 1 and capped at the schema's maximum of 2³¹ - 1."""
        return min(self._event_number, MAX_INDEX)

    @property
    def storage_mechanism(self) -> str:
        """Where the session's store keeps its data: ``LOCAL_STORAGE``, as in the .NET tracker, or ``SQLITE``."""
        return self._facts.storage_mechanism

    @property
    def first_event_id(self) -> str | None:
        """The id of the session's first event, in lowercase."""
        return self._facts.first_event_id

    @property
    def first_event_timestamp(self) -> str | None:
        """The time of the session's first event, as an RFC 3339 string in UTC."""
        return self._facts.first_event_timestamp

    @property
    def schema(self) -> str:
        """The Iglu URI of the schema."""
        return SCHEMA

    @property
    def data(self) -> EntityData:
        """The entity's data as a new ``dict`` with the schema's keys."""
        return self._facts.data(self.event_index)

    def to_dict(self, version: str = "1-0-2") -> dict[str, str | EntityData]:
        """Return the entity as a new ``{"schema": ..., "data": ...}``.

        Args:
            version: the version of the schema. ``1-0-1``, which the .NET tracker sends, does not have ``eventIndex``
                or ``firstEventTimestamp``.

        Raises:
            TypeError: the version is not a ``str``.
            ValueError: the version is unknown.

        """
        if not isinstance(version, str):
            msg = f"version must be a str, not {shown(version)}"
            raise TypeError(msg)
        if version not in _NEWER_KEYS:
            msg = f"version must be one of {', '.join(_NEWER_KEYS)}, not {shown(version)}"
            raise ValueError(msg)
        data = {key: value for key, value in self.data.items() if key not in _NEWER_KEYS[version]}
        return {"schema": SCHEMA.replace("1-0-2", version), "data": data}

    def to_json(self) -> str:
        """Return the result of `to_dict` as compact JSON."""
        before, after = self._facts.json
        number = self._event_number
        return f"{before}{number if number < MAX_INDEX else MAX_INDEX}{after}"  # noqa: FURB136  # min() is twice as slow

    def anonymized(self) -> SessionContext:
        """Return the entity without the user and the previous session."""
        return SessionContext(self._facts.anonymous(), self._event_number)

    def __repr__(self) -> str:
        """Show the attributes."""
        return f"SessionContext({', '.join(f'{name}={getattr(self, name)!r}' for name in _ATTRIBUTES)})"


@attrs.frozen(kw_only=True)
class SessionSummary:
    """A session that has ended: its ids and times, how long it was in the foreground and background, and why it ended.

    A session ends at its last activity (an event or `ClientSession.touch`), not when the end is detected. Times are
    aware and in UTC, and in order: ``first_event_time <= last_event_time <= last_activity_time``. They are the times at
    which the events were recorded; only entities carry an event's own timestamp. The foreground and background seconds
    are measured from the first event to the last activity, and are ``None`` for a visitor's session, and for one that
    continued after a restart.

    A run with ``continue_on_restart`` also reports the end of a session whose program is gone. Its times and its event
    count are those that the program last saved, and its last event counts as the last activity.
    """

    user_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    first_event_id: str | None
    first_event_time: datetime
    last_event_time: datetime
    last_activity_time: datetime
    event_count: int
    foreground_seconds: float | None
    background_seconds: float | None
    reason: EndReason
