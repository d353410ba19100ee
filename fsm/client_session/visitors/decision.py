"""The decision that one input of a visitor causes, made by the same lifecycle core as that of a `ClientSession`."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

import attrs

from client_session import ids
from client_session.entity import SessionContext, SessionFacts, SessionSummary
from client_session.graph import Command, Input, SessionState
from client_session.input_log import CLOCK, REMEMBERED_EVENTS, InputRecord
from client_session.lifecycle import Ended, Lifecycle
from client_session.microseconds import time_at
from client_session.visitors.value import ID_SIZE, VisitorSessionState, VisitorState
from client_session_persistence.snapshot import MAX_INDEX, STORAGE_MECHANISM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_session.lifecycle import Decisions

MAX_MICROSECONDS_BACK = 60_000_000
"""By how much the clock may be behind the last input; if it is further behind, times continue from the clock's."""

_CACHED_SESSIONS = 10_000
"""The number of sessions whose ids a host remembers, since computing them takes as long as the decision."""

Notification = tuple[str, InputRecord | SessionContext | SessionSummary]
"""The name of a callback, and its argument."""


@attrs.define  # created for every event; attrs.frozen would take twice as long
class TrackedEvent:
    """A tracked event: its id, its own timestamp, if it has one, and whether its entity is anonymous."""

    id: bytes
    time: int | None
    is_anonymous: bool


@attrs.define  # likewise
class Report:
    """What the caller learns of an input."""

    context: SessionContext | None = None
    """The event's entity, if it belongs to a session."""
    notifications: Sequence[Notification] = ()
    """The callbacks to call, with their arguments."""


@attrs.define  # likewise
class Outcome:
    """What an input leads to."""

    state: VisitorState | None
    """The state to store, or ``None`` if the input changes nothing."""
    report: Callable[[], Report]
    """Returns what to report once the state is stored. Hosts that lose the swap do not need it."""


@attrs.frozen
class Rules:
    """The settings of a `VisitorSessions`. Timeouts are in microseconds."""

    foreground_timeout: float
    background_timeout: float
    max_duration: float
    extend_on_focus_change: bool
    namespace: str
    has_log: bool
    """Whether inputs are reported."""

    def decide(
        self, user_id: str, state: VisitorState, given: Input | Command, now: int, event: TrackedEvent | None = None
    ) -> Outcome:
        """Apply an input to a visitor's state at the store's time ``now``."""
        if event is not None:
            for number, session in enumerate(state.sessions):
                if index := session.event_index(event.id):
                    return Outcome(None, partial(self._report_again, user_id, state, number, index, event))
        is_set_back = now < state.last_input - MAX_MICROSECONDS_BACK
        if is_set_back:
            state = _shifted(state, now - state.last_input)
        now = max(now, state.last_input)
        core = self._lifecycle(state)
        decisions: Decisions = ()
        if event is None or not core.try_count_event(now, given is Input.EVENT):
            decisions = core.decide(given, now)
        after = self._after(user_id, state, core, event, now, is_set_back=is_set_back)
        if after is None and given is Command.FORGET and state.swaps:
            after = attrs.evolve(state, last_input=now, swaps=state.swaps + 1)  # without a session, too
        if after is None:
            return Outcome(None, _report_nothing)
        return Outcome(after, partial(self._report, user_id, state, after, given, event, decisions))

    def _report_again(self, user_id: str, state: VisitorState, number: int, index: int, event: TrackedEvent) -> Report:
        """Report an event that was sent again."""
        return Report(_for_event(SessionContext(self._facts(user_id, state, number), index), event))

    def _report(  # noqa: PLR0913, PLR0917  # an input, and what it led to; partial() is fastest without keywords
        self,
        user_id: str,
        before: VisitorState,
        after: VisitorState,
        given: Input | Command,
        event: TrackedEvent | None,
        decisions: Decisions,
    ) -> Report:
        """Report an input that has changed the state from ``before`` to ``after``."""
        context: SessionContext | None = None
        if event is not None and not after.is_pending:
            context = SessionContext(self._facts(user_id, after), after.sessions[0].event_count)
        notifications: list[Notification] = []
        if self.has_log:
            time = time_at(after.last_input)
            if after.swaps > before.swaps + 1:  # the clock was set back
                notifications.append(("on_input", InputRecord(user_id, time, before.swaps + 1, CLOCK)))
            event_id = None if event is None else ids.uuid_text(event.id)
            notifications.append(("on_input", InputRecord(user_id, time, after.swaps, given, event_id)))
        if summary := self._summary(user_id, before, decisions):
            notifications.append(("on_session_end", summary))
        if context is None or event is None:
            return Report(None, notifications)
        if context.event_index == 1:
            notifications.append(("on_session_start", context))
        return Report(_for_event(context, event), notifications)

    def current(self, user_id: str, state: VisitorState, now: int) -> SessionContext | None:
        """Return the entity of the current session's last event, or ``None`` if no session would be current now."""
        core = self._lifecycle(state)
        core.decide(Input.TICK, max(now, state.last_input))
        return SessionContext(self._facts(user_id, state), core.event_count) if core.event_count else None

    def _lifecycle(self, state: VisitorState) -> Lifecycle:
        core = Lifecycle(
            self.foreground_timeout,
            self.background_timeout,
            state.last_activity,
            max_duration=self.max_duration,
            extend_on_focus_change=self.extend_on_focus_change,
            event_count=0 if state.is_pending else state.sessions[0].event_count,
            state=state.lifecycle,
            checker_running=state.lifecycle is not SessionState.EXPIRED_CHECKER_STOPPED,
            started=state.started,
        )
        core.last_event = state.last_event
        return core

    def _facts(self, user_id: str, state: VisitorState, number: int = 0) -> SessionFacts:
        """Return the facts of a session; ``number`` counts from the newest."""
        session, is_oldest = state.sessions[number], number + 1 == len(state.sessions)
        return _session_facts(
            self.namespace,
            user_id,
            min(state.session_index - number, MAX_INDEX),
            session.first_event_id,
            session.first_event_time,
            None if is_oldest else state.sessions[number + 1].first_event_id,
            state.previous_session_id if is_oldest else None,
        )

    def _summary(self, user_id: str, state: VisitorState, decisions: Decisions) -> SessionSummary | None:
        for ended in decisions:
            if isinstance(ended, Ended):
                break
        else:
            return None
        facts = self._facts(user_id, state)
        return SessionSummary(
            user_id=user_id,
            session_id=facts.session_id,
            previous_session_id=facts.previous_session_id,
            session_index=facts.session_index,
            first_event_id=facts.first_event_id,
            first_event_time=time_at(state.started),
            last_event_time=time_at(state.last_event),
            last_activity_time=time_at(state.last_activity),
            event_count=ended.event_count,
            foreground_seconds=None,
            background_seconds=None,
            reason=ended.reason,
        )

    def _after(  # noqa: PLR0913  # what the new state is made of
        self,
        user_id: str,
        state: VisitorState,
        core: Lifecycle,
        event: TrackedEvent | None,
        now: int,
        *,
        is_set_back: bool,
    ) -> VisitorState | None:
        """Return the state after an input, or ``None`` if the input changed nothing."""
        index, started, sessions = state.session_index, state.started, state.sessions
        previous = state.previous_session_id
        if event is not None and core.event_count == 1:
            index, started = index + 1, now
            time = now if event.time is None else event.time
            sessions, previous = self._trimmed(
                user_id, (VisitorSessionState(event.id, time, 1, event.id), *sessions), previous
            )
        elif event is not None and core.event_count:
            counted = sessions[0].counted(event.id)
            if len(sessions) == 1:
                sessions = (counted,)
            else:
                sessions, previous = self._trimmed(user_id, (counted, *sessions[1:]), previous)
        elif not is_set_back and not core.event_count and state.is_pending and core.state is state.lifecycle:
            return None
        after = VisitorState(
            core.state,
            index,
            not core.event_count,
            int(core.last_activity) if core.event_count else state.last_activity,
            started,
            int(core.last_event),
            now,
            sessions,
            previous,
            state.swaps + 1 + is_set_back,
        )
        if (
            event is None
            and not is_set_back
            and attrs.evolve(after, swaps=state.swaps, last_input=state.last_input) == state
        ):
            return None
        return after

    def _trimmed(
        self, user_id: str, sessions: tuple[VisitorSessionState, ...], previous: bytes | None
    ) -> tuple[tuple[VisitorSessionState, ...], bytes | None]:
        """Return the sessions of the last `REMEMBERED_EVENTS` events, and the id of the session before them."""
        room = REMEMBERED_EVENTS * ID_SIZE
        kept: list[VisitorSessionState] = []
        for session in sessions:
            if kept and not room:
                oldest = ids.session_id(self.namespace, user_id, ids.uuid_text(session.first_event_id))
                return tuple(kept), ids.uuid_bytes(oldest)
            kept.append(session.remembering(room))
            room -= len(kept[-1].event_ids)
        return tuple(kept), previous


@lru_cache(_CACHED_SESSIONS)
def _session_facts(  # noqa: PLR0913, PLR0917  # the fields of an entity; keywords would make the cache slower
    namespace: str,
    user_id: str,
    session_index: int,
    first_event_id: bytes,
    first_event_time: int,
    previous_first_event_id: bytes | None,
    previous_session_id: bytes | None,
) -> SessionFacts:
    """Return what the entities of a session share, given the previous session's first event, or else its id."""
    previous: str | None = None
    if previous_first_event_id is not None:
        previous = ids.session_id(namespace, user_id, ids.uuid_text(previous_first_event_id))
    elif previous_session_id is not None:
        previous = ids.uuid_text(previous_session_id)
    first = ids.uuid_text(first_event_id)
    session_id = ids.session_id(namespace, user_id, first)
    time = time_at(first_event_time)
    return SessionFacts(user_id, session_id, previous, session_index, STORAGE_MECHANISM, first, time)


def _report_nothing() -> Report:
    return Report()


def _for_event(context: SessionContext, event: TrackedEvent) -> SessionContext:
    return context.anonymized() if event.is_anonymous else context


def _shifted(state: VisitorState, shift: int) -> VisitorState:
    return attrs.evolve(
        state,
        last_activity=state.last_activity + shift,
        started=state.started + shift,
        last_event=state.last_event + shift,
        last_input=state.last_input + shift,
    )
