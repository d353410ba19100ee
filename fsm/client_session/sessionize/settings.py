"""The settings that decide which events of a log share a session, checked and in microseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict, Unpack

import attrs

from client_session import arguments, ids
from client_session.explanation import START
from client_session.graph import Command, Input
from client_session.input_log import CLOCK, LOGGED, REMEMBERED_EVENTS
from client_session.microseconds import limit_microseconds
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from client_session.arguments import Seconds

INPUTS: tuple[str, ...] = (*LOGGED, CLOCK)
"""The inputs that a log may have."""
EVENTS: tuple[str, ...] = (Input.EVENT, Input.PASSIVE)
"""The inputs that have an event id."""
RESETS: tuple[str, ...] = (START, Command.FORGET)
"""The inputs after which the user is in the foreground, checking is started, and no session is current."""
LOG_COLUMNS = ("user_id", "time", "sequence", "input", "event_id")
ENTITY_COLUMNS = (
    "session_id",
    "previous_session_id",
    "session_index",
    "event_index",
    "first_event_id",
    "first_event_timestamp",
)
RECENT = tuple(f"recent_event_id_{number}" for number in range(1, REMEMBERED_EVENTS + 1))
"""The columns of the ids of a user's last events, newest first. Another event with one of these ids is dropped."""
STATE_COLUMNS = (
    "user_id",
    "time",
    "in_background",
    "is_checking",
    "is_over",
    "last_activity",
    "session_start",
    "session_index",
    "event_index",
    "first_event_id",
    "first_event_timestamp",
    "previous_session_id",
    *RECENT,
)
"""The columns of a table of carried states: those of `UserState`, with a column for each recent event id."""
NEVER = 2**63 - 1
"""The limit, in microseconds, of sessions that have none."""


class SessionSettings(TypedDict, total=False):
    """The keyword arguments that decide which events share a session: those of `VisitorSessions`, with its defaults."""

    foreground_timeout: Seconds
    """Time until an idle session in the foreground expires: seconds or a ``timedelta``; 600 by default."""
    background_timeout: Seconds
    """The same for a session in the background; 300 by default."""
    max_duration: Seconds | None
    """Time from its first event after which a session ends; no limit by default."""
    extend_on_focus_change: bool
    """Whether a focus change is activity; ``False`` by default."""
    namespace: str
    """The namespace of the sessions' ids; ``"default"`` by default."""


@attrs.frozen
class Settings:
    """The limits in microseconds (`NEVER`: no limit), whether focus changes are activity, and the ids' namespace."""

    foreground_timeout: int
    background_timeout: int
    max_duration: int
    extend_on_focus_change: bool
    namespace: str

    @classmethod
    def checked(cls, **settings: Unpack[SessionSettings]) -> Settings:
        """Return the settings; raise `TypeError` or `ValueError` as `VisitorSessions` does."""
        names = SessionSettings.__annotations__
        if unknown := next((name for name in settings if name not in names), None):
            msg = f"{unknown} is not an argument; the settings are {', '.join(names)}"
            raise TypeError(msg)
        return cls(
            _microseconds(arguments.timeout("foreground_timeout", settings.get("foreground_timeout", 600))),
            _microseconds(arguments.timeout("background_timeout", settings.get("background_timeout", 300))),
            _microseconds(arguments.duration_limit("max_duration", settings.get("max_duration"))),
            arguments.boolean("extend_on_focus_change", settings.get("extend_on_focus_change", False)),
            arguments.namespace(settings.get("namespace", "default")),
        )

    def session_id(self, user_id: str, first_event_id: str) -> str:
        """Return the id of the user's session that begins with an event."""
        return ids.session_id(self.namespace, user_id, first_event_id)


def column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the name of each of a log's columns; ``columns`` has those that differ from `LOG_COLUMNS`.

    Raises:
        TypeError: ``columns`` is neither a mapping nor ``None``, or a name is not a ``str``.
        ValueError: a key is not one of `LOG_COLUMNS`, a name is empty, or two names are equal.

    """
    if not (columns is None or isinstance(columns, Mapping)):
        msg = f'columns must be a mapping such as {{"user_id": "who"}}, or None, not {shown(columns)}'
        raise TypeError(msg)
    names: dict[str, str] = {column: column for column in LOG_COLUMNS}
    for column, name in (columns or {}).items():
        if column not in names:
            msg = f"columns may rename {', '.join(LOG_COLUMNS)}, not {shown(column)}"
            raise ValueError(msg)
        if not isinstance(name, str):
            msg = f"columns[{column!r}] must be the name of a column, not {shown(name)}"
            raise TypeError(msg)
        if not name or "\0" in name:
            msg = f"columns[{column!r}] must be the name of a column, not {shown(name)}"
            raise ValueError(msg)
        names[column] = name
    taken = [*names.values(), *ENTITY_COLUMNS]
    if repeated := sorted({name for name in taken if taken.count(name) > 1}):
        msg = f"the names of a log's columns must differ from each other and from the entity's: {', '.join(repeated)}"
        raise ValueError(msg)
    return names


def _microseconds(seconds: float) -> int:
    return int(min(limit_microseconds(seconds), NEVER))
