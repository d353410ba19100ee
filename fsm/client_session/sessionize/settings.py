"""The settings that decide which events of a log share a session, checked and in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from client_session import arguments
from client_session.graph import Command, Input
from client_session.input_log import LOGGED
from client_session.visitors import ids
from client_session.visitors.decision import CLOCK, limit_microseconds
from client_session_persistence.snapshot import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client_session.arguments import Seconds

INPUTS: tuple[str, ...] = (*LOGGED, CLOCK)
"""The inputs that a log may have."""
EVENTS: tuple[str, ...] = (Input.EVENT, Input.PASSIVE)
"""The inputs that have an event id."""
RESETS: tuple[str, ...] = ("start", Command.FORGET)
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
REMEMBERED_EVENTS = 8
"""An event is dropped if it has the same id as one of the user's last events before it, this many at most."""
NEVER = 2**63 - 1
"""The limit, in microseconds, of sessions that have none."""


@attrs.frozen
class Settings:
    """The limits in microseconds (`NEVER`: no limit), whether focus changes are activity, and the ids' namespace."""

    foreground_timeout: int
    background_timeout: int
    max_duration: int
    extend_on_focus_change: bool
    namespace: str

    @classmethod
    def checked(
        cls,
        foreground_timeout: Seconds,
        background_timeout: Seconds,
        max_duration: Seconds | None,
        *,
        extend_on_focus_change: bool,
        namespace: str,
    ) -> Settings:
        """Return the settings; raise `TypeError` or `ValueError` as `VisitorSessions` does."""
        return cls(
            _microseconds(arguments.timeout("foreground_timeout", foreground_timeout)),
            _microseconds(arguments.timeout("background_timeout", background_timeout)),
            _microseconds(arguments.duration_limit("max_duration", max_duration)),
            arguments.boolean("extend_on_focus_change", extend_on_focus_change),
            arguments.namespace(namespace),
        )

    def session_id(self, user_id: str, first_event_id: str) -> str:
        """Return the id of the user's session that begins with an event."""
        return ids.session_id(self.namespace, user_id, first_event_id)


def column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the name of each of a log's columns; ``columns`` has those that differ from `LOG_COLUMNS`.

    Raises:
        TypeError: a name is not a ``str``.
        ValueError: a key is not one of `LOG_COLUMNS`, a name is empty, or two names are equal.

    """
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
