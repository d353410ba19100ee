"""Which session the present one is: its ids, number and times, as they are told and saved."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from fsm.entity import SessionFacts
from fsm.explanation import Beginning
from fsm.history import pack
from fsm.ledger import new_id
from fsm.lifecycle import EndReason
from fsm.summary import SessionSummary
from persistence.snapshot import MAX_INDEX, STORAGE_MECHANISM

if TYPE_CHECKING:
    from datetime import datetime

    from fsm.clock import Anchor
    from fsm.ledger import Ledger
    from fsm.lifecycle import Ended, Lifecycle
    from persistence import Snapshot


def age_of(saved: Snapshot, now: datetime) -> timedelta | None:
    """Return the time since a saved session's last activity, negative if that lies in the future.

    ``None``: there is no session, or it has ended, or has no event, so that nothing could go on.
    """
    if not (saved.session_id and saved.event_index and saved.last_activity):
        return None
    return now - saved.last_activity


class Identity:
    """The identity of the present session, pending or numbered. Not thread-safe: the session object holds its lock."""

    __slots__ = ("_anchor", "_ledger", "_record", "facts", "last_event_time", "numbered", "spare_ids", "turn")

    def __init__(self, ledger: Ledger, now: Anchor) -> None:
        """Start with a pending session."""
        self._ledger = ledger
        self._anchor = now
        self._record: Snapshot | None = None
        """The newest session that was numbered or continued here, as it then was, or as it was when it ended."""
        self.turn = ledger.turn
        """The ledger's, when what is decided here was begun to be decided."""
        self.spare_ids: list[str] | None = None
        """While something is decided: the id that a renewal took, for whoever overtakes it or decides again."""
        self.last_event_time: datetime | None = None
        """The last event's own time, if it was given one."""
        self.renew()

    def copy(self) -> Identity:
        """Return another of the same, to decide on."""
        if self.spare_ids is None:
            self.spare_ids = []
        copied = Identity.__new__(Identity)
        for name in self.__slots__:
            setattr(copied, name, getattr(self, name))
        copied.turn = self._ledger.turn
        return copied

    def renew(self) -> None:
        """Let a pending session take the place of the present one. Its id is new; all else waits for `number`."""
        self.numbered = False
        spare_ids = [] if self.spare_ids is None else self.spare_ids
        if not spare_ids:
            spare_ids.append(new_id())
        self.spare_ids = None
        self.facts = SessionFacts(
            user_id=self._ledger.newest.user_id,
            session_id=spare_ids[0],
            previous_session_id=None,
            session_index=0,
            storage_mechanism=STORAGE_MECHANISM,
            first_event_id=None,
            first_event_time=None,
        )

    @property
    def user_id(self) -> str:
        """The session's user; of a pending one, the user that is known to the store by now."""
        return self.facts.user_id if self.numbered else self._ledger.newest.user_id

    def number(self, now: Anchor, first_event_id: str | None = None, time: datetime | None = None) -> None:
        """Settle and save the pending session's number, or the first event of one that was numbered without events."""
        self._anchor = now
        if self.numbered and self._record is not None:
            self._adopt(
                attrs.evolve(
                    self._record,
                    first_event_id=first_event_id,
                    first_event_timestamp=time or now.wall,
                    event_index=1,
                    last_activity=now.wall,
                )
            )
            self._ledger.save(self._record)
            self.turn = self._ledger.turn
            return
        self._adopt(
            self._ledger.number(
                self.facts.session_id,
                first_event_id=first_event_id,
                first_event_time=(time or now.wall) if first_event_id else None,
                now=now.wall,
                turn=self.turn,
            )
        )
        self.turn = self._ledger.turn

    def continue_saved(self, now: Anchor, timeout: timedelta) -> tuple[int, float] | None:
        """Go on with the saved session if its last activity is less than the timeout ago.

        One without events, or with activity in the future, is not gone on with. Return its number of events and the
        seconds since its last activity.
        """
        saved = self._ledger.newest
        age = age_of(saved, now.wall)
        if age is None:
            return None
        if not timedelta(0) <= age < timeout:
            return None
        self._adopt(saved)
        return saved.event_index or 0, age.total_seconds()

    def progress(self, event_count: int, last_activity: float, now: Anchor) -> Snapshot | None:
        """Return the newest numbered session as it is to be saved; ``None`` if there has been none."""
        if not (self.numbered and event_count and self._record):
            return self._record
        return attrs.evolve(
            self._record,
            event_index=min(event_count, MAX_INDEX),
            last_activity=self._anchor.moved(by=now).wall_time(last_activity),
        )

    def end(self, ended: Ended, now: Anchor) -> SessionSummary:
        """Fix how far the session came, for the store, and sum it up.

        A session that is over loses its last activity there, so that no restart continues what was told to have ended.
        """
        record = self.progress(ended.event_count, ended.last_activity, now)
        if record is not None and ended.reason is not EndReason.CLOSE:
            record = attrs.evolve(record, last_activity=None)
        self._record = record
        facts = self.facts
        return SessionSummary(
            user_id=facts.user_id,
            session_id=facts.session_id,
            previous_session_id=facts.previous_session_id,
            session_index=facts.session_index,
            first_event_id=facts.first_event_id,
            first_event_time=record.first_event_timestamp if record else None,
            last_event_time=self.last_event_time or self._anchor.wall_time(ended.last_event),
            event_count=ended.event_count,
            foreground_seconds=ended.foreground_seconds,
            background_seconds=ended.background_seconds,
            reason=ended.reason,
        )

    def beginning(self, *, is_continued: bool = False) -> Beginning:
        """Explain which session has begun, or goes on."""
        return Beginning(self.facts.session_index, self.facts.session_id, is_continued)

    def entry_of_start(self, lifecycle: Lifecycle, now: Anchor, *, continues: bool) -> bytes:
        """Pack for the history whether a start goes on with the saved session, or counts one without events."""
        begun: Beginning | None = None
        if self.numbered:
            idle_seconds = now.monotonic - lifecycle.last_activity
            begun = self.beginning(is_continued=lifecycle.event_count > 0)
        elif continues and (age := age_of(self._ledger.newest, now.wall)) is not None:
            idle_seconds = age.total_seconds()
        else:
            return b""
        return pack(now.wall, "start", lifecycle, lifecycle, idle_seconds=idle_seconds, begun=begun)

    def _adopt(self, record: Snapshot) -> None:
        self._record = record
        self.facts = SessionFacts.of(record)
        self.numbered = True
