"""A session whose every entity and callback is kept, to be checked at the end."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from client_session import ClientSession, SessionClosedError
from client_session.testing import ManualClock, ManualScheduler, check_invariants

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session import SessionContext, SessionSummary
    from client_session_persistence import SnapshotStore

FOREGROUND, BACKGROUND = 600.0, 300.0


Told = tuple[str, int, int]
"""Session, its index, and the event's number in it."""


def told(contexts: list[SessionContext]) -> list[Told]:
    """Return what identifies each entity."""
    return [(context.session_id, context.session_index, context.event_index) for context in contexts]


class Witness:
    """A session on a clock of its own, and all that it handed out and told."""

    def __init__(self, store: SnapshotStore) -> None:
        """Construct it."""
        self.store = store
        self.clock = ManualClock()
        self.contexts: list[SessionContext] = []
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.session = self.open()

    def open(self) -> ClientSession:
        """Construct a session that is watched."""
        return ClientSession(
            store=self.store,
            foreground_timeout=FOREGROUND,
            background_timeout=BACKGROUND,
            clock=self.clock,
            scheduler=ManualScheduler(),
            on_session_start=self.started.append,
            on_session_end=self.ended.append,
        )

    def event(self) -> SessionContext:
        """Track an event."""
        context = self.session.get_session_context(uuid.uuid4())
        self.contexts.append(context)
        return context

    def events(self) -> None:
        """Track two."""
        self.event()
        self.event()

    def late(self) -> None:
        """Track an event, and let the session time out."""
        self.event()
        self.clock.advance(FOREGROUND)

    def check_fork(self, theirs: list[Told]) -> None:
        """Nothing that a child was handed out is the parent's; together they skipped and doubled nothing."""
        self.session.close()
        assert self.session.save_error is None, self.session.save_error
        ours = told(self.contexts)
        if both := [told for told in theirs if told in ours]:
            theirs.remove(both[0])  # the operation's own event, which was recorded before the fork
        shared = {session_id for session_id, _, _ in ours} & {session_id for session_id, _, _ in theirs}
        assert not shared, f"parent and child share {shared}"
        numbered = sorted({(index, session_id) for session_id, index, _ in (*ours, *theirs)})
        assert [index for index, _ in numbered] == list(range(1, len(numbered) + 1)), f"parent {ours}, child {theirs}"
        events = sorted((index, event) for _, index, event in (*ours, *theirs))
        counted = Counter(index for index, _ in events)
        expected = [(index, event) for index in sorted(counted) for event in range(1, counted[index] + 1)]
        assert events == expected, f"parent {ours}, child {theirs}"

    def check(self) -> None:
        """Close, and let another session number on; nothing was skipped, doubled or told wrongly."""
        self.session.close()
        assert self.session.save_error is None, self.session.save_error
        self.session = self.open()
        self.event()
        self.session.close()
        assert self.session.save_error is None, self.session.save_error
        ordered = sorted(self.contexts, key=lambda context: (context.session_index, context.event_index))
        check_invariants(ordered)
        firsts = [context for context in ordered if context.event_index == 1]
        assert sorted(self.started, key=lambda context: context.session_index) == firsts, "on_session_start"
        assert all(context.first_event_id for context in ordered)
        counted = Counter(context.session_id for context in ordered)
        told = {summary.session_id: summary.event_count for summary in self.ended}
        assert told == counted, f"on_session_end told of {told}, not {dict(counted)}"
        assert len(self.ended) == len(told), "on_session_end came twice"


OPERATIONS: dict[str, tuple[Callable[[Witness], object], Callable[[Witness], object]]] = {
    "a first event": (lambda _: None, Witness.event),
    "a further event": (Witness.event, Witness.event),
    "an event after the timeout": (Witness.late, Witness.event),
    "a toggle": (Witness.event, lambda w: w.session.set_background(True)),
    "a tick after the timeout": (Witness.late, lambda w: w.session.tick()),
    "a new session": (Witness.event, lambda w: w.session.start_new_session()),
    "a touch": (Witness.event, lambda w: w.session.touch()),
    "a timeout's setting": (Witness.event, lambda w: setattr(w.session, "foreground_timeout", FOREGROUND)),
    "stopping the checker": (Witness.event, lambda w: w.session.stop_checker()),
    "a save": (Witness.events, lambda w: w.session.save()),
    "a close": (Witness.event, lambda w: w.session.close()),
}
"""What goes before, and the operation; each goes another way through the session."""


def refused(action: Callable[[], object]) -> None:
    """Do it, and let the session refuse it if it was closed meanwhile."""
    with contextlib.suppress(SessionClosedError):
        action()
