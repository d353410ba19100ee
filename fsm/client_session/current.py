"""The current session, held in a single object, and the draft that a call prepares as its replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from client_session import history
from client_session.entity import SessionContext, SessionFacts, SessionSummary
from client_session.explanation import START, Beginning, Ending
from client_session.graph import EndReason
from client_session.ledger import new_id
from client_session.lifecycle import Ended
from client_session_persistence.snapshot import MAX_INDEX, STORAGE_MECHANISM, idle_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from client_session.callbacks import Call, Callbacks
    from client_session.clock import Anchor
    from client_session.ledger import Ledger
    from client_session.lifecycle import Decision, Lifecycle
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
    is_closed: bool = False

    @classmethod
    def pending(cls, lifecycle: Lifecycle, ledger: Ledger, now: Anchor) -> Current:
        """Return a session without events."""
        return cls(lifecycle, _pending_facts(ledger.pending_id, ledger.newest.user_id), now)

    def adopt(self, record: Snapshot) -> None:
        """Make the session in ``record`` the current one."""
        self.record = record
        self.facts = SessionFacts.from_snapshot(record)
        self.is_numbered = True

    def progress(self, now: Anchor) -> Snapshot | None:
        """Return the snapshot to save for the newest numbered session; ``None`` if no session has been numbered.

        A record without a last activity belongs to a run whose sessions are never resumed, and remains without it.
        """
        lifecycle = self.lifecycle
        if not (self.is_numbered and lifecycle.event_count and self.record):
            return self.record
        return attrs.evolve(
            self.record,
            event_index=min(lifecycle.event_count, MAX_INDEX),
            last_activity=self.record.last_activity and self.anchor.adjusted(now).wall_time(lifecycle.last_activity),
        )


def start(lifecycle: Lifecycle, ledger: Ledger, now: Anchor, *, may_continue: bool) -> Current:
    """Return a run's first session: a pending one, the saved one, or, if empty sessions are counted, a numbered one."""
    current, saved = Current.pending(lifecycle, ledger, now), ledger.newest
    idle_since = idle_time(saved, now.wall) if may_continue else None
    idle = None if idle_since is None else idle_since.total_seconds()
    begun: Beginning | None = None
    if idle is not None and saved.last_activity is not None and 0 <= idle < lifecycle.foreground_timeout:
        current.adopt(saved)
        current.anchor = now.at(min(saved.first_event_timestamp or saved.last_activity, saved.last_activity))
        lifecycle.resume_saved(saved.event_index or 0, idle)
        begun = Beginning(saved.session_index, current.facts.session_id, is_continued=True)
    elif lifecycle.count_empty_sessions:
        current.adopt(ledger.number(ledger.pending_id, now.wall))
        ledger.pending_id = ""
        idle = 0.0
        begun = Beginning(current.facts.session_index, current.facts.session_id)
    if idle is not None:
        current.history = history.pack(now.wall, START, lifecycle, lifecycle, idle_seconds=idle, begun=begun)
    return current


def _pending_facts(session_id: str, user_id: str) -> SessionFacts:
    return SessionFacts(user_id, session_id, None, 0, STORAGE_MECHANISM, None, None)


class Draft:
    """A call's changes to the current session, made to a copy that is later published as a whole or discarded."""

    __slots__ = (
        "_callbacks", "_ledger", "after", "before", "begun", "ended", "event_count_before", "must_save",
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
            lifecycle, before.facts, before.anchor, before.is_numbered, before.record, before.history,
        )  # fmt: skip
        self.now = now
        self._ledger = ledger
        self._callbacks = callbacks
        self.ended: Ending | None = None
        self.begun: Beginning | None = None
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
                    last_activity=record.last_activity and now,
                )
                self.must_save = True
            else:
                record = self._ledger.number(after.facts.session_id, now, event_id, time)
            self._begin(record)
            self._notify("on_session_start", SessionContext(after.facts, number))
        return number

    def renew_pending(self) -> None:
        """Give a new id to a session that was already pending: clones of a process must not begin the same session."""
        if not (self.ended or self.after.is_numbered):
            self.unused_id, self.next_id = self.next_id, new_id()
            self.after.facts = _pending_facts(self.next_id, self._ledger.newest.user_id)

    def explain(self, given: str) -> bytes:
        """Add the decision to the history and return its entry; return ``b""`` if only the last activity changed."""
        before, after = self.before.lifecycle, self.after.lifecycle
        if not (given and (self.ended or self.begun or self.after.is_closed or history.is_changed(before, after))):
            return b""
        idle_seconds = self.now.monotonic - before.last_activity
        entry = history.pack(
            self.now.wall, given, before, after, idle_seconds=idle_seconds, ended=self.ended, begun=self.begun
        )
        self.after.history = history.append(self.after.history, entry)
        return entry

    def _notify(self, name: str, *args: object) -> None:
        self.notifications += self._callbacks.call(name, *args)

    def _begin(self, record: Snapshot) -> None:
        self.after.anchor = self.now
        self.after.adopt(record)
        self.begun = Beginning(record.session_index, self.after.facts.session_id)

    def _end(self, ended: Ended) -> None:
        """Record the session's final progress for the store, report its end, and replace it with a pending session.

        Except after `EndReason.CLOSE`, the last activity is removed so that a restart will not resume the session.
        """
        after, facts, record = self.after, self.after.facts, self.after.record
        if after.is_numbered and ended.event_count and record is not None:
            record = attrs.evolve(
                record,
                event_index=min(ended.event_count, MAX_INDEX),
                last_activity=record.last_activity and after.anchor.adjusted(self.now).wall_time(ended.last_activity),
            )
        if record is not None and ended.reason is not EndReason.CLOSE:
            record = attrs.evolve(record, last_activity=None)
        after.record = record
        self.ended = Ending(facts.session_index, ended.event_count, ended.reason)
        if ended.event_count:
            self._notify("on_session_end", self._summary(ended))
        if ended.reason is EndReason.CLOSE:
            return
        after.is_numbered = False
        after.facts = _pending_facts(self.next_id, self._ledger.newest.user_id)
        if after.lifecycle.count_empty_sessions:
            self._begin(self._ledger.number(after.facts.session_id, self.now.wall))

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
