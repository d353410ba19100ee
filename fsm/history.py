"""The last decisions of a session, packed: a process may keep 100,000 sessions, and few are ever asked.

A history is immutable, so that a decision's draft can prolong it and be thrown away, and it is read without a lock.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fsm.explanation import Beginning, Ending, Explanation
from fsm.graph import SessionState
from fsm.lifecycle import EndReason
from persistence.snapshot import MAX_INDEX

if TYPE_CHECKING:
    from fsm.lifecycle import Lifecycle

LIMIT = 32
"""Decisions that a history holds."""

# When (microseconds), idle seconds, timeouts before and after; the id that began; three counts; what is a choice.
_ENTRY = struct.Struct("<q3d16s3I3B")
_INPUTS = (
    "start", "event", "tick", "background", "foreground", "touch", "resume", "stop", "new-session", "timeouts", "close",
)  # fmt: skip
_STATES = tuple(SessionState)
_REASONS = (None, *EndReason)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def changed(before: Lifecycle, after: Lifecycle) -> bool:
    """Tell whether a lifecycle has become another than by activity."""
    return (
        after.state is not before.state
        or after.checker_running is not before.checker_running
        or after.foreground_timeout != before.foreground_timeout
        or after.background_timeout != before.background_timeout
    )


def pack(  # noqa: PLR0913  # what an explanation says
    at: datetime,
    given: str,
    before: Lifecycle,
    after: Lifecycle,
    *,
    idle_seconds: float,
    ended: Ending | None = None,
    begun: Beginning | None = None,
) -> bytes:
    """Pack what an input changed."""
    return _ENTRY.pack(
        (at - _EPOCH) // _MICROSECOND,
        idle_seconds,
        before.timeout,
        after.timeout,
        bytes.fromhex(begun.session_id.replace("-", "")) if begun else b"",
        begun.session_index if begun else 0,
        ended.session_index if ended else 0,
        min(ended.event_count, MAX_INDEX) if ended else 0,
        _INPUTS.index(given),
        _STATES.index(before.state) << 4 | _STATES.index(after.state) << 2
        | before.checker_running << 1 | after.checker_running,
        _REASONS.index(ended.reason if ended else None) << 2
        | (begun is not None) << 1 | (begun is not None and begun.is_continued),
    )  # fmt: skip


def prolonged(history: bytes, entry: bytes) -> bytes:
    """Return a history with one more entry, and no more than the last ones."""
    return (history + entry)[-LIMIT * _ENTRY.size :]


def unpack(history: bytes) -> tuple[Explanation, ...]:
    """Return what a history holds, the oldest decision first."""
    return tuple(_explanation(*fields) for fields in _ENTRY.iter_unpack(history))


def _explanation(  # noqa: PLR0913, PLR0917  # as many as are packed
    at: int,
    idle_seconds: float,
    timeout: float,
    new_timeout: float,
    begun_id: bytes,
    begun_index: int,
    ended_index: int,
    event_count: int,
    given: int,
    states: int,
    sessions: int,
) -> Explanation:
    reason = _REASONS[sessions >> 2]
    return Explanation(
        at=_EPOCH + at * _MICROSECOND,
        input=_INPUTS[given],
        before=_STATES[states >> 4],
        after=_STATES[states >> 2 & 3],
        idle_seconds=idle_seconds,
        timeout=timeout,
        new_timeout=new_timeout,
        was_checker_running=bool(states & 2),
        is_checker_running=bool(states & 1),
        ended=Ending(ended_index, event_count, reason) if reason else None,
        begun=Beginning(begun_index, str(uuid.UUID(bytes=begun_id)), bool(sessions & 1)) if sessions & 2 else None,
    )
