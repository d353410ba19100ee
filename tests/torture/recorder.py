"""A session that records every entity and callback, so that a test can check them at the end."""

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

FOREGROUND_TIMEOUT, BACKGROUND_TIMEOUT = 600.0, 300.0


EventKey = tuple[str, int, int]
"""Session id, session index and event index."""


def event_keys(contexts: list[SessionContext]) -> list[EventKey]:
    """Return the key of each entity."""
    return [(context.session_id, context.session_index, context.event_index) for context in contexts]


class Recorder:
    """A session with a manual clock, and every entity and summary that the session returned or reported."""

    def __init__(self, store: SnapshotStore) -> None:
        """Open the session."""
        self.store = store
        self.clock = ManualClock()
        self.contexts: list[SessionContext] = []
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.session = self.open()

    def open(self) -> ClientSession:
        """Open a session whose callbacks are recorded."""
        return ClientSession(
            store=self.store,
            foreground_timeout=FOREGROUND_TIMEOUT,
            background_timeout=BACKGROUND_TIMEOUT,
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

    def passive_event(self) -> None:
        """Track a passive event, which belongs to the current session, if there is one."""
        context = self.session.get_session_context(uuid.uuid4(), extend=False)
        if context is not None:
            self.contexts.append(context)

    def two_events(self) -> None:
        """Track two events."""
        self.event()
        self.event()

    def event_then_timeout(self) -> None:
        """Track an event, then advance the clock by the timeout."""
        self.event()
        self.clock.advance(FOREGROUND_TIMEOUT)

    def check_fork(self, child_keys: list[EventKey]) -> None:
        """Check that the parent and child do not share a session and that no number is skipped or duplicated."""
        self.session.close()
        assert self.session.save_error is None, self.session.save_error
        parent_keys = event_keys(self.contexts)
        if shared_keys := [key for key in child_keys if key in parent_keys]:
            child_keys.remove(shared_keys[0])  # the operation's own event, which was recorded before the fork
        shared = {session_id for session_id, _, _ in parent_keys} & {session_id for session_id, _, _ in child_keys}
        assert not shared, f"the parent and child share {shared}"
        keys = (*parent_keys, *child_keys)
        indexed_ids = sorted({(index, session_id) for session_id, index, _ in keys})
        listing = f"parent {parent_keys}, child {child_keys}"
        assert [index for index, _ in indexed_ids] == list(range(1, len(indexed_ids) + 1)), listing
        events = sorted((index, event) for _, index, event in keys)
        counted = Counter(index for index, _ in events)
        expected = [(index, event) for index in sorted(counted) for event in range(1, counted[index] + 1)]
        assert events == expected, listing

    def run_again(self) -> None:
        """Close the session, and track an event in another one; check that both are saved."""
        self.session.close()
        assert self.session.save_error is None, self.session.save_error
        self.session = self.open()
        self.event()
        self.session.close()
        assert self.session.save_error is None, self.session.save_error

    def check(self) -> None:
        """Close the session and open another; check that numbers are consecutive and callbacks match the entities."""
        self.run_again()
        ordered = sorted(self.contexts, key=lambda context: (context.session_index, context.event_index))
        check_invariants(ordered)
        first_contexts = [context for context in ordered if context.event_index == 1]
        assert sorted(self.started, key=lambda context: context.session_index) == first_contexts, "on_session_start"
        assert all(context.first_event_id for context in ordered)
        counted = Counter(context.session_id for context in ordered)
        reported = {summary.session_id: summary.event_count for summary in self.ended}
        assert reported == counted, f"on_session_end reported {reported}, expected {dict(counted)}"
        assert len(self.ended) == len(reported), "on_session_end reported a session twice"


OPERATIONS: dict[str, tuple[Callable[[Recorder], object], Callable[[Recorder], object]]] = {
    "a first event": (lambda _: None, Recorder.event),
    "a second event": (Recorder.event, Recorder.event),
    "a passive event": (Recorder.event, Recorder.passive_event),
    "an event after the timeout": (Recorder.event_then_timeout, Recorder.event),
    "a move to the background": (Recorder.event, lambda r: r.session.set_background(True)),
    "a tick after the timeout": (Recorder.event_then_timeout, lambda r: r.session.tick()),
    "a new session": (Recorder.event, lambda r: r.session.start_new_session()),
    "a touch": (Recorder.event, lambda r: r.session.touch()),
    "setting a timeout": (Recorder.event, lambda r: setattr(r.session, "foreground_timeout", FOREGROUND_TIMEOUT)),
    "stopping the checker": (Recorder.event, lambda r: r.session.stop_checker()),
    "a save": (Recorder.two_events, lambda r: r.session.save()),
    "a close": (Recorder.event, lambda r: r.session.close()),
}
"""Maps each name to a setup step and an operation. Every operation takes a different path through the code."""


def ignore_closed(action: Callable[[], object]) -> None:
    """Run an action; ignore `SessionClosedError`, since a re-entrant call may have closed the session."""
    with contextlib.suppress(SessionClosedError):
        action()
