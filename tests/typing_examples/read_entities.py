"""The entity and the summary, and the callables that receive them."""

from __future__ import annotations

import functools
import uuid
from datetime import UTC, datetime
from typing import assert_type

from client_session import (
    ClientSession,
    EndReason,
    EntityData,
    Explanation,
    Input,
    SessionContext,
    SessionState,
    SessionSummary,
)

session = ClientSession("session.xml")
entity = session.get_session_context(uuid.uuid4())
assert_type(entity, SessionContext)
assert_type(entity.user_id, str)
assert_type(entity.session_id, str)
assert_type(entity.previous_session_id, str | None)
assert_type(entity.session_index, int)
assert_type(entity.event_index, int)
assert_type(entity.storage_mechanism, str)
assert_type(entity.first_event_id, str | None)
assert_type(entity.first_event_timestamp, str | None)
assert_type(entity.schema, str)
assert_type(entity.data, EntityData)
assert_type(entity.data, dict[str, str | int | None])
assert_type(entity.to_dict(version="1-0-1"), dict[str, str | EntityData])
assert_type(entity.to_json(), str)
session.get_session_context(str(uuid.uuid4()), datetime.now(UTC), anonymous=True)

entity.event_index = 2  # type: ignore[misc]
entity.userId  # type: ignore[attr-defined]  # noqa: B018
session.get_session_context(1)  # type: ignore[call-overload]
session.get_session_context(uuid.uuid4(), "2026-01-01T00:00:00Z")  # type: ignore[call-overload]
session.get_session_context(uuid.uuid4(), None, True)  # type: ignore[call-overload]  # noqa: FBT003
session.get_session_context()  # type: ignore[call-overload]

assert_type(session.session_index, int | None)
assert_type(session.expires_in, float | None)
assert_type(session.save_error, Exception | None)
assert_type(session.state, SessionState)
assert_type(session.explain(), tuple[Explanation, ...])


def on_start(context: SessionContext) -> None:
    """Accept an entity."""
    assert_type(context.event_index, int)


def on_end(summary: SessionSummary) -> str:
    """Accept a summary; a callback's return value is ignored."""
    assert_type(summary.last_event_time, datetime)
    assert_type(summary.foreground_seconds, float | None)
    assert_type(summary.reason, EndReason)
    return summary.reason


def on_change(before: SessionState, trigger: Input, after: SessionState, *, label: str = "") -> None:
    """Accept a state change."""
    assert_type(before, SessionState)
    print(label, before, trigger, after)


class Analytics:
    """An object whose methods are callbacks."""

    def on_end(self, summary: SessionSummary) -> None:
        """Accept a summary."""


ClientSession("session.xml", on_session_start=on_start, on_session_end=on_end, on_state_change=on_change)
ClientSession("session.xml", on_session_start=print, on_session_end=Analytics().on_end)
ClientSession("session.xml", on_state_change=functools.partial(on_change, label="session"))
ClientSession("session.xml", on_session_start=lambda context: context.session_index)

ClientSession("session.xml", on_session_start=on_end)  # type: ignore[arg-type]
ClientSession("session.xml", on_session_end=on_start)  # type: ignore[arg-type]
ClientSession("session.xml", on_session_end=Analytics.on_end)  # type: ignore[arg-type]
ClientSession("session.xml", on_state_change=on_start)  # type: ignore[arg-type]
ClientSession("session.xml", on_session_start="on_start")  # type: ignore[arg-type]
