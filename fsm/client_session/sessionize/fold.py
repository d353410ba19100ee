"""Sessionizing in Python, on the lifecycle core: the reference for all other engines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Unpack

import attrs

from client_session.graph import Command, Input, SessionState
from client_session.input_log import CLOCK, REMEMBERED_EVENTS, InputRecord
from client_session.lifecycle import Lifecycle
from client_session.microseconds import microseconds, time_at
from client_session.sessionize.settings import EVENTS, INPUTS, RESETS, SessionSettings, Settings
from client_session_persistence.snapshot import as_utc, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


@attrs.frozen
class SessionizedEvent:
    """An event that belongs to a session: the columns of its row in the log, and those of its entity.

    ``first_event_timestamp`` is the time of the session's first event in the log.
    """

    user_id: str
    time: datetime
    sequence: int
    input: str
    event_id: str
    session_id: str
    previous_session_id: str | None
    session_index: int
    event_index: int
    first_event_id: str
    first_event_timestamp: datetime


@attrs.frozen
class UserState:
    """What a user's log determines about later inputs; with it, sessionizing continues. All times are in UTC."""

    user_id: str
    time: datetime
    """The time of the last input."""
    in_background: bool = False
    is_checking: bool = True
    """Whether the current session is being checked; ``True`` if none is current."""
    is_over: bool = True
    """Whether no session is current: the newest one has ended, or there was none."""
    last_activity: datetime | None = None
    session_start: datetime | None = None
    """When the newest session began, by the clock of the last input."""
    session_index: int = 0
    """The index of the newest session, 0 if there was none. The other columns of entities are that session's too."""
    event_index: int = 0
    """The number of its events."""
    first_event_id: str | None = None
    first_event_timestamp: datetime | None = None
    previous_session_id: str | None = None
    recent_event_ids: tuple[str, ...] = ()
    """The ids of the last events in the log, newest first, `REMEMBERED_EVENTS` at most."""


@attrs.define
class _User:
    core: Lifecycle
    time: datetime
    now: int
    shift: int = 0
    """What to add to the clock's times, because the clock was set back."""
    session_index: int = 0
    event_index: int = 0
    first_event_id: str | None = None
    first_event_timestamp: datetime | None = None
    previous_session_id: str | None = None
    recent_event_ids: deque[str] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED_EVENTS))


class Fold:
    """Sessionizes the records of a log one by one. Not thread-safe."""

    def __init__(self, *, carried: Iterable[UserState] = (), **settings: Unpack[SessionSettings]) -> None:
        """Create a fold with the settings of the session, which continues from ``carried``.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: a value is invalid.

        """
        self._settings = Settings.checked(**settings)
        self._users = {state.user_id: self._carried(state) for state in carried}

    def add(self, record: InputRecord) -> SessionizedEvent | None:
        """Apply a record. Return the event, if the record is one that belongs to a session.

        Records of a user must be in order; those of several users may alternate.

        Raises:
            TypeError: it is not an `InputRecord`.
            ValueError: the input is unknown, an event has no id, or the time is earlier than that of the user's last
                record. The record has no effect.

        Examples:
            >>> log = Fold()
            >>> event = log.add(records[0])
            >>> event.session_index, event.event_index
            (1, 1)

        """
        if not isinstance(record, InputRecord):
            msg = f"record must be an InputRecord, not an object of type {type(record).__name__}"
            raise TypeError(msg)
        time = as_utc(record.time, "time")
        user = self._users.get(record.user_id) or self._new(time)
        self._check(record, user, time)
        self._users[record.user_id] = user
        if record.input == CLOCK:
            user.shift, user.time = user.now - microseconds(time), time
            return None
        user.time, user.now = time, microseconds(time) + user.shift
        if record.input in EVENTS:
            return self._add_event(record, user)
        if record.input == Command.FORGET:
            forgotten, user = user, self._new(time)
            user.recent_event_ids = forgotten.recent_event_ids
            user.shift, user.now = forgotten.shift, forgotten.now
            self._users[record.user_id] = user
        elif record.input in RESETS:
            user.core = self._core(user.now)
        else:
            user.core.decide(_GIVEN[record.input], user.now)
        return None

    def states(self) -> Iterator[UserState]:
        """Yield the state of each user, to be carried to the next fold.

        Examples:
            >>> log = Fold()
            >>> for record in records:
            ...     event = log.add(record)
            >>> [(state.user_id, state.session_index, state.event_index) for state in log.states()]
            [('anna', 2, 1)]
            >>> next_log = Fold(carried=log.states())

        """
        for user_id, user in self._users.items():
            core, has_session = user.core, user.core.event_count > 0
            yield UserState(
                user_id,
                user.time,
                in_background=core.state is not SessionState.FOREGROUND_ACTIVE,
                is_checking=core.checker_running or not has_session,
                is_over=not has_session,
                last_activity=time_at(int(core.last_activity) - user.shift) if has_session else None,
                session_start=time_at(int(core.started) - user.shift) if has_session else None,
                session_index=user.session_index,
                event_index=user.event_index,
                first_event_id=user.first_event_id,
                first_event_timestamp=user.first_event_timestamp,
                previous_session_id=user.previous_session_id,
                recent_event_ids=tuple(user.recent_event_ids),
            )

    def _check(self, record: InputRecord, user: _User, time: datetime) -> None:
        if record.input not in INPUTS:
            msg = f"the input must be one of {', '.join(INPUTS)}, not {shown(record.input)}"
        elif record.input in EVENTS and not record.event_id:
            msg = f"an event must have an id: {record}"
        elif time < user.time and record.input != CLOCK:
            msg = f"the records of a user must be in order; after {user.time.isoformat()} came {record}"
        else:
            return
        raise ValueError(msg)

    def _add_event(self, record: InputRecord, user: _User) -> SessionizedEvent | None:
        event_id = str(record.event_id)
        is_repeated = event_id in user.recent_event_ids
        user.recent_event_ids.appendleft(event_id)
        if is_repeated:
            return None
        core = user.core
        core.decide(_GIVEN[record.input], user.now)
        if not core.event_count:
            return None
        if core.event_count == 1:
            if user.first_event_id is not None:
                user.previous_session_id = self._settings.session_id(record.user_id, user.first_event_id)
            user.session_index += 1
            user.first_event_id, user.first_event_timestamp = event_id, user.time
        user.event_index = core.event_count
        return SessionizedEvent(
            record.user_id,
            record.time,
            record.sequence,
            record.input,
            event_id,
            self._settings.session_id(record.user_id, str(user.first_event_id)),
            user.previous_session_id,
            user.session_index,
            core.event_count,
            str(user.first_event_id),
            user.first_event_timestamp or user.time,
        )

    def _new(self, time: datetime) -> _User:
        now = microseconds(time)
        return _User(self._core(now), time, now)

    def _core(self, now: int) -> Lifecycle:
        settings = self._settings
        return Lifecycle(
            settings.foreground_timeout,
            settings.background_timeout,
            now,
            max_duration=settings.max_duration,
            extend_on_focus_change=settings.extend_on_focus_change,
        )

    def _carried(self, state: UserState) -> _User:
        user = self._new(as_utc(state.time, "time"))
        core = user.core
        if state.in_background:
            core.state = SessionState.BACKGROUND_ACTIVE
        core.checker_running = state.is_checking
        if not state.is_over and state.last_activity and state.session_start:
            core.event_count = state.event_index
            core.last_activity = core.last_event = microseconds(state.last_activity)
            core.started = microseconds(state.session_start)
        user.session_index, user.event_index = state.session_index, state.event_index
        user.first_event_id, user.first_event_timestamp = state.first_event_id, state.first_event_timestamp
        user.previous_session_id = state.previous_session_id
        user.recent_event_ids.extend(state.recent_event_ids)
        return user


def fold(records: Iterable[InputRecord], **settings: Unpack[SessionSettings]) -> Iterator[SessionizedEvent]:
    """Yield each event that belongs to a session. Arguments and errors are those of `Fold` and `Fold.add`.

    Examples:
        >>> [(event.session_index, event.event_index) for event in fold(records)]
        [(1, 1), (1, 2), (2, 1)]

    """
    log = Fold(**settings)
    return (event for record in records if (event := log.add(record)) is not None)


_GIVEN: dict[str, Input | Command] = {str(given): given for given in (*Input, *Command)}
