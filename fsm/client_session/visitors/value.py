"""A visitor's state, and the small value in which a state store keeps it.

Times are in microseconds since 1970, so that they are exact and can be compared with those in a log.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import attrs

from client_session.graph import INITIAL, SessionState
from client_session.input_log import REMEMBERED_EVENTS
from client_session_persistence.snapshot import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1
ID_SIZE = 16
_STATES = tuple(SessionState)

# Version; state and flags; swap count; writer; index of the newest session; times of the last activity, the last event
# and the last input; number of sessions. Then, if flagged, when the newest session began, and its predecessor's id.
_HEADER = struct.Struct("<BBIIIqqqB")
_TIME = struct.Struct("<q")
# Event count, time of the first event, number of remembered events. Then the first event's id, unless it is remembered,
# and the ids of the remembered events.
_SESSION = struct.Struct("<IqB")
# A session is current; the oldest one has a predecessor; the newest one's first event has a time of its own.
_IS_CURRENT, _HAS_PREVIOUS, _HAS_OWN_START, _ALL_FLAGS = 4, 8, 16, 31
# The CRC-32 of the key and the rest of the value.
_CHECKSUM = struct.Struct("<I")

_MAX_NEWER_VERSION = 31
"""The last version that this package can ever have: values that begin with printable characters are someone else's."""
_MIN_TIME, _MAX_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the calendar."""


class NewerStateError(StoreError):
    """A visitor's state was written by a newer version of this package, and must not be overwritten."""


@attrs.define  # never changed; attrs.frozen would take twice as long to create
class VisitorSessionState:
    """One of a visitor's sessions: what its entities share, and those of its events that are remembered."""

    first_event_id: bytes
    first_event_time: int
    """The time of the first event: its own timestamp, or when it was recorded."""
    event_count: int
    event_ids: bytes
    """The ids of its last events, 16 bytes each, in order."""

    def counted(self, event_id: bytes) -> VisitorSessionState:
        """Return the session with one more event, remembering at most `REMEMBERED_EVENTS`."""
        event_ids = (self.event_ids + event_id)[-REMEMBERED_EVENTS * ID_SIZE :]
        return VisitorSessionState(self.first_event_id, self.first_event_time, self.event_count + 1, event_ids)

    def remembering(self, size: int) -> VisitorSessionState:
        """Return the session with at most this many bytes of event ids."""
        if len(self.event_ids) <= size:
            return self
        event_ids = self.event_ids[-size:] if size else b""
        return VisitorSessionState(self.first_event_id, self.first_event_time, self.event_count, event_ids)

    def event_index(self, event_id: bytes) -> int:
        """Return the event's index in the session, or 0 if it is not remembered."""
        ids, start = self.event_ids, 0
        while (found := ids.find(event_id, start)) % ID_SIZE:
            if found < 0:
                return 0
            start = found + 1
        return self.event_count - len(ids) // ID_SIZE + found // ID_SIZE + 1


@attrs.define  # likewise
class VisitorState:
    """Everything that is known about a visitor. Never changed. The default is that of a new visitor."""

    lifecycle: SessionState = INITIAL
    session_index: int = 0
    """The index of the newest session; 0 if the visitor has had none."""
    is_pending: bool = True
    """Whether the newest session has ended, so that the next event begins another."""
    last_activity: int = 0
    started: int = 0
    """When the newest session's first event was recorded."""
    last_event: int = 0
    last_input: int = 0
    """When the last input that changed the state was applied; no later one is earlier."""
    sessions: tuple[VisitorSessionState, ...] = ()
    """The newest session, then older ones of which events are remembered."""
    previous_session_id: bytes | None = None
    """The id of the session before the oldest one in ``sessions``."""
    swaps: int = 0
    """How often the state was replaced."""

    def encode(self, key: str, writer: int) -> bytes:
        """Return the value to store under a key.

        ``writer`` is a number that distinguishes values that are written at the same time.
        """
        flags = _STATES.index(self.lifecycle)
        flags |= 0 if self.is_pending else _IS_CURRENT
        flags |= 0 if self.previous_session_id is None else _HAS_PREVIOUS
        flags |= 0 if self.started == _start_of(self.sessions) else _HAS_OWN_START
        parts = [
            _HEADER.pack(
                VERSION,
                flags,
                self.swaps & 0xFFFFFFFF,
                writer,
                self.session_index,
                self.last_activity,
                self.last_event,
                self.last_input,
                len(self.sessions),
            ),
            _TIME.pack(self.started) if flags & _HAS_OWN_START else b"",
            self.previous_session_id or b"",
        ]
        for session in self.sessions:
            count = len(session.event_ids) // ID_SIZE
            first = b"" if count == session.event_count else session.first_event_id
            parts += (_SESSION.pack(session.event_count, session.first_event_time, count), first, session.event_ids)
        body = b"".join(parts)
        return body + _checksum(key, body)


NEW_VISITOR = VisitorState()


def decode(key: str, value: bytes | None) -> VisitorState:
    """Return the state in the value that is stored under a key; ``None`` is a new visitor's.

    Raises:
        NewerStateError: a newer version of this package wrote the value.
        StoreError: the value is corrupt, or was written by another program or for another key.

    """
    if value is None:
        return NEW_VISITOR
    if value and VERSION < value[0] <= _MAX_NEWER_VERSION:
        msg = f"the visitor's state has version {value[0]}, which is newer than {VERSION}; upgrade client-session"
        raise NewerStateError(msg)
    body = value[: -_CHECKSUM.size]
    try:
        if value[len(body) :] != _checksum(key, body):
            raise ValueError  # noqa: TRY301  # with the message below
        return _decode(body)
    except (struct.error, IndexError, ValueError):
        msg = f"the stored value of {len(value)} bytes is corrupt, or not this visitor's state; nothing was written"
        raise StoreError(msg) from None


def _start_of(sessions: Sequence[VisitorSessionState]) -> int:
    """Return when the newest session began, unless its first event has a time of its own."""
    return sessions[0].first_event_time if sessions else 0


def _checksum(key: str, body: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(key.encode())))


def _decode(value: bytes) -> VisitorState:
    version, flags, swaps, _, index, last_activity, last_event, last_input, count = _HEADER.unpack_from(value)
    position = _HEADER.size
    own_start: int | None = None
    if flags & _HAS_OWN_START:
        (own_start,), position = _TIME.unpack_from(value, position), position + _TIME.size
    previous: bytes | None = None
    if flags & _HAS_PREVIOUS:
        previous, position = value[position : position + ID_SIZE], position + ID_SIZE
    sessions: list[VisitorSessionState] = []
    for _ in range(count):
        event_count, first_time, remembered = _SESSION.unpack_from(value, position)
        position += _SESSION.size
        first_id = value[position : position + ID_SIZE]
        if remembered != event_count:
            position += ID_SIZE
        event_ids = value[position : position + remembered * ID_SIZE]
        position += remembered * ID_SIZE
        if not 0 < remembered <= event_count:
            raise ValueError
        sessions.append(VisitorSessionState(first_id, first_time, event_count, event_ids))
    is_pending = not flags & _IS_CURRENT
    start = _start_of(sessions)
    started = start if own_start is None else own_start
    times = (last_activity, started, last_event, last_input, *(session.first_event_time for session in sessions))
    if (
        (version, position) != (VERSION, len(value))
        or flags > _ALL_FLAGS
        or index < len(sessions)
        or (index > len(sessions)) != (previous is not None)
        or not (is_pending or sessions)
        or own_start == start
        or not _MIN_TIME <= min(times) <= max(times) <= _MAX_TIME
    ):
        raise ValueError
    return VisitorState(
        _STATES[int(flags) & 3],
        index,
        is_pending,
        last_activity,
        started,
        last_event,
        last_input,
        tuple(sessions),
        previous,
        swaps,
    )
