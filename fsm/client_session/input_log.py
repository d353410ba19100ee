"""The log of inputs: a record of each input that decides which events share a session, for sessionizing later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from client_session.explanation import START
from client_session.graph import Command, Input, SessionState
from client_session_persistence.snapshot import iso_time

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.clock import Anchor
    from client_session.lifecycle import Lifecycle

REMEMBERED_EVENTS = 8
"""How many of a user's last events are recognized if they are sent again: those of a visitor, or those in a log."""
CLOCK = "clock"
"""The name in logs of a state store's clock having been set back."""
LOGGED: tuple[str, ...] = (
    START,
    *(given for given in Input if given not in {Input.TICK, Input.RESUME}),  # ticks do not affect the result
    *(given for given in Command if given not in {Command.TIMEOUTS, Command.CLOSE}),
)
"""The inputs that are logged, by name."""


@attrs.frozen
class InputRecord:
    """An input of one user, as it was decided. Appended to a log, such records are what sessionizing reads.

    ``time`` is aware and in UTC: the wall clock's time when the run began, plus the monotonic time since. ``sequence``
    orders the records of one run. ``input`` is ``start`` (a run began, in focus), ``event``, ``passive``,
    ``background``, ``foreground``, ``touch``, ``new-session``, ``start-checker``, ``stop-checker`` or ``forget``.
    ``event_id`` is set for events and passive events.
    """

    user_id: str
    time: datetime
    sequence: int
    input: str
    event_id: str | None = None

    def to_dict(self) -> dict[str, str | int | None]:
        """Return the record with its time as an RFC 3339 string in UTC."""
        return {**attrs.asdict(self), "time": iso_time(self.time)}

    def to_json(self) -> str:
        """Return the result of `to_dict` as a line of compact JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


@attrs.frozen(weakref_slot=False)
class InputLog:
    """A position in a session object's log. Immutable, so that a draft that extends the log can be discarded."""

    anchor: Anchor
    """The time when the run began."""
    sequence: int = 0
    """The number of the next record."""
    user_id: str | None = None
    """The user of the last record."""
    is_started: bool = True
    """Whether the run's start is logged; if not, as in a forked child, the next input logs it."""

    def add(
        self, given: str, now: Anchor, user_id: str, before: Lifecycle, event_id: str | None = None
    ) -> tuple[InputLog, list[InputRecord]]:
        """Return the log after an input, and its new records.

        A user's records begin in the foreground, with checking started. If the user has changed since the last record,
        records for the actual state ``before`` the input precede the input's own record.
        """
        if given not in LOGGED:
            return self, []
        inputs: list[str] = [] if self.is_started else [START]
        if inputs or (self.user_id is not None and self.user_id != user_id):
            if before.state is not SessionState.FOREGROUND_ACTIVE:
                inputs.append(Input.BACKGROUND)
            if not (before.checker_running or before.state is SessionState.EXPIRED_CHECKER_STOPPED):
                inputs.append(Command.STOP_CHECKER)
        inputs.append(given)
        time = self.anchor.wall_time(now.monotonic)
        records = [InputRecord(user_id, time, self.sequence + number, name) for number, name in enumerate(inputs)]
        records[-1] = attrs.evolve(records[-1], event_id=event_id)
        return InputLog(self.anchor, self.sequence + len(records), user_id), records
