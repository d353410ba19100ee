"""The log of inputs: a fold over its records must give the events the places that their entities report."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from client_session.graph import Command, Input
from client_session.input_log import LOGGED
from client_session.testing.manual import START
from client_session.testing.trace import LIMITS, External, Step
from client_session.verify.reference import Fold

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.entity import SessionContext
    from client_session.input_log import InputRecord
    from client_session.testing.driver import SessionOptions
    from client_session.verify.reference import Place


class LogCheck:
    """Folds the records of a session's inputs as they arrive, and compares them with each step of its trace."""

    def __init__(self, options: SessionOptions) -> None:
        """Start before the first run."""
        self._options = options
        self._fold = Fold(0.0, 0.0, extend_on_focus_change=options.extend_on_focus_change)
        self._received: list[tuple[InputRecord, Place | None]] = []
        self._sequence = 0
        self._at = START
        self._wall = START
        """The wall clock's time at the start of the run, which was at the time ``_at`` of the trace."""
        self._wall_offset = timedelta(0)
        self._session_ids: dict[tuple[str, int], str] = {}
        self._has_all_sessions = True
        """Whether no other process has numbered a session of this user."""
        self._has_all_times = True
        """Whether elapsed times in the log are those that the session used."""

    def start(self, user_id: str) -> str:
        """Compare the records received so far with the start of the first run. Return the difference, or ``""``."""
        return self.compare(Step(START, External.RESTART), user_id, None)

    def receive(self, record: InputRecord) -> None:
        """Fold a record; pass this method as ``on_input``."""
        if record.sequence == 0:
            options = self._options
            self._fold.foreground_timeout = options.foreground_timeout
            self._fold.background_timeout = options.background_timeout
            self._fold.max_duration = math.inf if options.max_duration is None else options.max_duration
            self._sequence = 0
        time = (record.time - START).total_seconds()
        self._received.append((record, self._fold.add(record.user_id, time, record.input, record.event_id)))

    def compare(self, step: Step, user_id: str, context: SessionContext | None) -> str:
        """Compare the records received since the last step with this step. Return the difference, or ``""``.

        ``user_id`` is the user before the step, and ``context`` is the entity that the step returned.
        """
        records = [record for record, _ in self._received]
        place = self._received[-1][1] if self._received else None
        self._received.clear()
        match step.input:
            case External.WALL:
                # A run that resumes a session judges elapsed time by the wall clock as it was before it was set.
                self._has_all_times = self._has_all_times and not self._options.continue_on_restart
                self._wall_offset = (step.to or step.at) - step.at
            case External.RESTART:
                self._at, self._wall = step.at, step.at + self._wall_offset
            case External.OTHER:
                self._has_all_sessions = False
            case Command.TIMEOUTS:
                self._set_limits(step, user_id)
            case _:
                pass
        fault = self._compare_records(step, user_id, records)
        if step.input in {Input.EVENT, Input.PASSIVE} and not fault and self._has_all_times:
            fault = self._compare_entity(place, context)
        if step.input is Command.FORGET:
            self._has_all_sessions = True
        return fault

    def _time(self, at: datetime) -> datetime:
        return self._wall + (at - self._at)

    def _set_limits(self, step: Step, user_id: str) -> None:
        time = (self._time(step.at) - START).total_seconds()
        for name in LIMITS:
            self._fold.check(user_id, time)
            setattr(self._fold, name, getattr(step, name))

    def _compare_records(self, step: Step, user_id: str, records: list[InputRecord]) -> str:
        for record in records:
            if (record.sequence, record.user_id, record.time) != (self._sequence, user_id, self._time(step.at)):
                return f"Expected number {self._sequence} of user {user_id} at {self._time(step.at)}, got {record}."
            self._sequence += 1
        given = records[-1].input if records else None
        if step.input is External.RESTART:
            is_logged = given in {External.START, Input.FOREGROUND}
        elif step.input in LOGGED:
            is_logged = given == step.input and records[-1].event_id == step.event_id
        else:
            is_logged = given is None
        return "" if is_logged else f"Unexpected records of {step}: {records}."

    def _compare_entity(self, place: Place | None, context: SessionContext | None) -> str:
        if place is None or context is None:
            return "" if place is None and context is None else f"Expected {place}, got {context}."
        session_id = self._session_ids.setdefault((place.user_id, place.session_index), context.session_id)
        is_same = (
            context.session_id == session_id
            and list(self._session_ids.values()).count(session_id) == 1
            and context.user_id == place.user_id
            and context.event_index == place.event_index
            and context.first_event_id == place.first_event_id
            and (context.session_index == place.session_index or not self._has_all_sessions)
        )
        return "" if is_same else f"Expected {place} in session {session_id}, got {context}."
