"""The current session, held in a single object, and the draft that a call prepares as its replacement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from client_session import history
from client_session.entity import SessionContext, SessionFacts, SessionSummary
from client_session.explanation import START, Beginning, Ending
from client_session.graph import Command, EndReason, Input, SessionState
from client_session.ledger import new_id
from client_session.lifecycle import Ended
from client_session_persistence.snapshot import MAX_INDEX, idle_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from client_session.callbacks import Call, Callbacks
    from client_session.clock import Anchor
    from client_session.input_log import InputLog
    from client_session.ledger import Ledger
    from client_session.lifecycle import Decision, Decisions, Lifecycle
    from client_session_persistence import Snapshot


@attrs.define(eq=False, weakref_slot=False)  # one instance per session in memory
class Current:
    """Everything that a call may change. Once published, it is modified only by `Lifecycle.try_count_event`."""

    lifecycle: Lifecycle
    facts: SessionFacts
    anchor: Anchor
    """The time of the session's first event, or of the pending session's start."""
    is_numbered: bool = False
    record: Snapshot | None = None
    """A snapshot of the newest session that this object numbered or continued, taken at that time or at its end."""
    history: bytes = b""
    log: InputLog | None = None
    """The position in the log of inputs; ``None`` if inputs are not logged."""
    is_closed: bool = False

    @classmethod
    def pending(cls, lifecycle: Lifecycle, ledger: Ledger, now: Anchor) -> Current:
        """Return a session without events."""
        return cls(lifecycle, _pending_facts(ledger.pending_id, ledger), now)

    @classmethod
    def saved(cls, lifecycle: Lifecycle, record: Snapshot, now: Anchor) -> Current:
        """Return the session of an earlier run that may be resumed, as it was when its progress was last saved.

        The start of a session that an older version saved is not known exactly.
        """
        last_activity = record.last_activity or now.wall
        start = record.session_start or min(record.first_event_timestamp or last_activity, last_activity)
        lifecycle.state = SessionState.BACKGROUND_ACTIVE if record.background else SessionState.FOREGROUND_ACTIVE
        seconds = ((now.wall - time).total_seconds() for time in (last_activity, start))
        lifecycle.resume_saved(record.event_index or 0, *seconds)
        current = cls(lifecycle, SessionFacts.from_snapshot(record), now.at(start))
        current.adopt(attrs.evolve(record, background=bool(record.background)))
        return current

    def adopt(self, record: Snapshot) -> None:
        """Make the session in ``record`` the current one."""
        self.record = record
        self.facts = SessionFacts.from_snapshot(record)
        self.is_numbered = True

    def progress(self, now: Anchor) -> Snapshot | None:
        """Return the snapshot to save for the newest numbered session; ``None`` if no session has been numbered."""
        lifecycle, record = self.lifecycle, self.record
        if not (self.is_numbered and lifecycle.event_count and record):
            return record
        anchor = self.anchor.adjusted(now)
        return attrs.evolve(
            record,
            event_index=min(lifecycle.event_count, MAX_INDEX),
            last_activity=anchor.wall_time(lifecycle.last_activity),
            session_start=record.session_start and anchor.wall,
            background=None if record.background is None else is_in_background(lifecycle),
        )


def is_in_background(lifecycle: Lifecycle) -> bool:
    """Return whether the app is in the background."""
    return lifecycle.state is not SessionState.FOREGROUND_ACTIVE


def _pending_facts(session_id: str, ledger: Ledger) -> SessionFacts:
    return SessionFacts(ledger.newest.user_id, session_id, None, 0, ledger.storage_mechanism, None, None)


def start(
    lifecycle: Lifecycle, ledger: Ledger, now: Anchor, callbacks: Callbacks, log: InputLog | None
) -> tuple[Current, list[Call]]:
    """Return a run's first session, and what to report about its start and about the end of the saved session.

    The session is the saved one, a pending one, or, if empty sessions are counted, a numbered one.
    """
    if ledger.is_resumable and idle_time(ledger.newest, now.wall) is not None:
        before = Current.saved(lifecycle, ledger.newest, now)
    else:
        before = Current.pending(lifecycle, ledger, now)
        if not lifecycle.count_empty_sessions and log is None:
            return before, []
    before.log = log
    draft = Draft(before, ledger.pending_id, now, ledger, callbacks)
    draft.start()
    if draft.begun and not draft.begun.is_continued:
        ledger.pending_id = ""
    return draft.after, draft.notifications


class Draft:
    """A call's changes to the current session, made to a copy that is later published as a whole or discarded."""

    __slots__ = (
        "_callbacks", "_ledger", "after", "before", "begun", "ended", "event_count_before", "event_id", "must_save",
        "next_id", "notifications", "now", "unused_id",
    )  # fmt: skip

    def __init__(self, before: Current, next_id: str, now: Anchor, ledger: Ledger, callbacks: Callbacks) -> None:
        """Copy the current session. ``now`` is the time of all changes to the copy.

        ``next_id`` is the `Ledger.pending_id` that belongs to ``before``, so all drafts of one session use the same id.
        """
        self.before = before
        self.next_id = next_id
        self.unused_id: str | None = None
        self.event_count_before = before.lifecycle.event_count  # read first, so that a concurrent event is detected
        lifecycle = before.lifecycle.copy()
        self.after = Current(
            lifecycle, before.facts, before.anchor, before.is_numbered, before.record, before.history, before.log,
        )  # fmt: skip
        self.now = now
        self._ledger = ledger
        self._callbacks = callbacks
        self.ended: Ending | None = None
        self.begun: Beginning | None = None
        self.event_id: str | None = None
        """The id of the event, if the input is one."""
        self.notifications: list[Call] = []
        """The callbacks to run once the draft is published and the lock is released."""
        self.must_save = False
        """Whether to save the session once the draft is published."""

    def apply(self, decisions: Iterable[Decision]) -> None:
        """Carry out the lifecycle's decisions."""
        for decision in decisions:
            if isinstance(decision, Ended):
                self._end(decision)
            else:
                self._notify("on_state_change", decision.before, decision.input, decision.after)

    def start(self) -> None:
        """Start a run: resume the saved session, which is the current one, unless it is over.

        Its end is marked in the store before it is reported, so at most one run reports it.
        """
        lifecycle, record = self.after.lifecycle, self.after.record
        if record is not None:
            decisions = self._resume(lifecycle, record)
            if ended := [decision for decision in decisions if isinstance(decision, Ended)]:
                is_marked = self._ledger.mark_ended(attrs.evolve(record, last_activity=None, background=None))
                self.apply(ended)
                if not is_marked:
                    self.notifications.clear()
            else:
                self.begun = Beginning(record.session_index, self.after.facts.session_id, is_continued=True)
        elif lifecycle.count_empty_sessions:
            self._begin_empty()
        self.explain(START)
        self.log_input(Input.FOREGROUND if self.begun and self.begun.is_continued else START)

    def _resume(self, lifecycle: Lifecycle, record: Snapshot) -> Decisions:
        """Bring a saved session to the foreground, which checks it first."""
        now, state = self.now.monotonic, lifecycle.state
        forced: EndReason | None = None
        if max(lifecycle.last_activity, lifecycle.started) > now:  # the wall clock was set back
            forced = EndReason.TIMEOUT if state is SessionState.FOREGROUND_ACTIVE else EndReason.BACKGROUND_TIMEOUT
        elif record.session_start is None and math.isfinite(lifecycle.max_duration):
            forced = EndReason.MAX_DURATION
        ended = () if forced is None else lifecycle.end(forced, now)
        return ended + lifecycle.decide(Input.FOREGROUND, now)

    def record_event(self, event_id: str, event_timestamp: datetime | None) -> int:
        """Record an event that the lifecycle counted, and return its number; the first event numbers the session."""
        after, record, now = self.after, self.after.record, self.now.wall
        number = after.lifecycle.event_count
        if number == 1:
            time = event_timestamp or now
            if after.is_numbered and record is not None:  # already numbered, since empty sessions are counted
                record = attrs.evolve(
                    record,
                    first_event_id=event_id,
                    first_event_timestamp=time,
                    event_index=1,
                    last_activity=now,
                    session_start=now,
                )
                self.must_save = True
            else:
                record = self._ledger.number(
                    after.facts.session_id, now, event_id, time, background=is_in_background(after.lifecycle)
                )
                self.must_save = False  # the new record has replaced that of a session that has just ended
            self._begin(record)
            self._notify("on_session_start", SessionContext(after.facts, number))
        return number

    def renew_pending(self) -> None:
        """Give a new id to a session that was already pending: clones of a process must not begin the same session."""
        if not (self.ended or self.after.is_numbered):
            self.unused_id, self.next_id = self.next_id, new_id()
            self.after.facts = _pending_facts(self.next_id, self._ledger)

    def forget_user(self, user: Snapshot) -> None:
        """End the session, and replace the user in the store with ``user``, unless an earlier try has done so.

        Raises the store's errors.
        """
        if self.before.facts.user_id == user.user_id:
            return
        after = self.after
        decisions = after.lifecycle.decide(Command.FORGET, self.now.monotonic)
        self._ledger.replace_user(user)
        after.history = b""
        self.apply(decisions)
        if after.lifecycle.count_empty_sessions:
            if not self.ended:
                self._begin_empty()
        else:
            after.record, self.must_save = None, False
            self.renew_pending()

    def log_input(self, given: str) -> None:
        """Add the input to the log of inputs, if there is one."""
        if self.after.log is not None:
            user_id = (self.before if given == Command.FORGET else self.after).facts.user_id
            log, records = self.after.log.add(given, self.now, user_id, self.before.lifecycle, self.event_id)
            self.after.log = log
            self.notifications[:0] = [call for record in records for call in self._callbacks.call("on_input", record)]

    def explain(self, given: str) -> bytes:
        """Add the decision to the history and return its entry; return ``b""`` if only the last activity changed."""
        before, after = self.before.lifecycle, self.after.lifecycle
        if not (given and (self.ended or self.begun or self.after.is_closed or history.is_changed(before, after))):
            return b""
        entry = history.pack(self.now, given, before, after, ended=self.ended, begun=self.begun)
        self.after.history = history.append(self.after.history, entry)
        return entry

    def _notify(self, name: str, *args: object) -> None:
        self.notifications += self._callbacks.call(name, *args)

    def _begin(self, record: Snapshot) -> None:
        self.after.anchor = self.now
        self.after.adopt(record)
        self.begun = Beginning(record.session_index, self.after.facts.session_id)

    def _begin_empty(self) -> None:
        """Number a session that has no events yet, since empty sessions are counted."""
        self.after.facts = _pending_facts(self.next_id, self._ledger)
        background = is_in_background(self.after.lifecycle)
        self._begin(self._ledger.number(self.next_id, self.now.wall, background=background))

    def _end(self, ended: Ended) -> None:
        """Record the session's final progress for the store, report its end, and replace it with a pending session.

        The focus is removed from the record, so that a restart will not resume the session. Except after
        `EndReason.CLOSE`, so is the last activity.
        """
        after, facts, record = self.after, self.after.facts, self.after.record
        if record is not None:
            self.must_save = record.background is not None  # the end is saved first, so that it is reported only once
            last_activity = None
            if ended.reason is EndReason.CLOSE:
                last_activity = after.anchor.adjusted(self.now).wall_time(ended.last_activity)
            if after.is_numbered and ended.event_count:
                record = attrs.evolve(record, event_index=min(ended.event_count, MAX_INDEX))
            after.record = attrs.evolve(record, last_activity=last_activity, background=None)
        self.ended = Ending(facts.session_index, ended.event_count, ended.reason)
        if ended.event_count:
            self._notify("on_session_end", self._summary(ended))
        if ended.reason is EndReason.CLOSE:
            return
        after.is_numbered = False
        after.facts = _pending_facts(self.next_id, self._ledger)
        if after.lifecycle.count_empty_sessions:
            self._begin_empty()

    def _summary(self, ended: Ended) -> SessionSummary:
        facts, anchor = self.after.facts, self.after.anchor
        # Without a clock that goes backwards, these times are already in order.
        last_event_time = max(anchor.wall, anchor.wall_time(ended.last_event))
        return SessionSummary(
            user_id=facts.user_id,
            session_id=facts.session_id,
            previous_session_id=facts.previous_session_id,
            session_index=facts.session_index,
            first_event_id=facts.first_event_id,
            first_event_time=anchor.wall,
            last_event_time=last_event_time,
            last_activity_time=max(last_event_time, anchor.wall_time(ended.last_activity)),
            event_count=ended.event_count,
            foreground_seconds=ended.foreground_seconds,
            background_seconds=ended.background_seconds,
            reason=ended.reason,
        )
