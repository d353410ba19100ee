"""A session's last decisions, packed to save memory: a process may have 100,000 sessions, but few histories are read.

A history is immutable, so a draft that extends it can be discarded, and reading it requires no lock.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from client_session.explanation import START, Beginning, Ending, Explanation
from client_session.graph import Command, EndReason, Input, SessionState
from client_session_persistence.snapshot import MAX_INDEX

if TYPE_CHECKING:
    from client_session.clock import Anchor
    from client_session.lifecycle import Lifecycle

LIMIT = 32
"""The maximum number of decisions in a history."""

# Time in microseconds; idle seconds, in total and since the last focus change; timeouts before and after; maximum
# durations before and after; id and index of the session that began; index and event count of the session that ended;
# then one byte each: input, state before and after, whether the checker was running before and after, reason, and
# whether a session began (1) or continued (2).
_ENTRY = struct.Struct("<q6d16s3I7B")
_INPUTS: tuple[str, ...] = (START, *Input, *Command)
_STATES = tuple(SessionState)
_REASONS = (None, *EndReason)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_changed(before: Lifecycle, after: Lifecycle) -> bool:
    """Return whether two lifecycles differ in anything other than their activity."""
    return (
        after.state is not before.state
        or after.checker_running is not before.checker_running
        or after.foreground_timeout != before.foreground_timeout
        or after.background_timeout != before.background_timeout
        or after.max_duration != before.max_duration
    )


def pack(  # noqa: PLR0913  # the fields of an explanation
    at: Anchor,
    given: str,
    before: Lifecycle,
    after: Lifecycle,
    *,
    ended: Ending | None = None,
    begun: Beginning | None = None,
) -> bytes:
    """Pack an input and what it changed into a history entry."""
    return _ENTRY.pack(
        (at.wall - _EPOCH) // _MICROSECOND,
        at.monotonic - before.last_activity,
        before.idle_in_focus(at.monotonic),
        before.timeout,
        after.timeout,
        before.max_duration,
        after.max_duration,
        bytes.fromhex(begun.session_id.replace("-", "")) if begun else b"",
        begun.session_index if begun else 0,
        ended.session_index if ended else 0,
        min(ended.event_count, MAX_INDEX) if ended else 0,
        _INPUTS.index(given),
        _STATES.index(before.state),
        _STATES.index(after.state),
        before.checker_running,
        after.checker_running,
        _REASONS.index(ended.reason if ended else None),
        1 + begun.is_continued if begun else 0,
    )


def append(history: bytes, entry: bytes) -> bytes:
    """Return a history with one more entry, limited to the last `LIMIT` entries."""
    return (history + entry)[-LIMIT * _ENTRY.size :]


def unpack(history: bytes) -> tuple[Explanation, ...]:
    """Return the decisions in a history, oldest first."""
    return tuple(map(_explanation, _ENTRY.iter_unpack(history)))


def _explanation(fields: tuple[Any, ...]) -> Explanation:
    at, idle_seconds, idle_in_focus, timeout, new_timeout, max_duration, new_max_duration = fields[:7]
    begun_id, begun_index, ended_index, event_count = fields[7:11]
    choices: tuple[int, ...] = fields[11:]
    given, before, after, was_checker_running, is_checker_running, reason_number, begun = choices
    reason = _REASONS[reason_number]
    return Explanation(
        at=_EPOCH + at * _MICROSECOND,
        input=_INPUTS[given],
        before=_STATES[before],
        after=_STATES[after],
        idle_seconds=idle_seconds,
        idle_in_focus=idle_in_focus,
        timeout=timeout,
        new_timeout=new_timeout,
        max_duration=max_duration,
        new_max_duration=new_max_duration,
        was_checker_running=bool(was_checker_running),
        is_checker_running=bool(is_checker_running),
        ended=Ending(ended_index, event_count, reason) if reason else None,
        begun=Beginning(begun_index, str(uuid.UUID(bytes=begun_id)), begun > 1) if begun else None,
    )
