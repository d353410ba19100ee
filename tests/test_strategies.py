"""Hypothesis strategies: a tracker that holds a session can be tested with them as the documentation shows."""

from __future__ import annotations

import itertools
from operator import attrgetter
from typing import TYPE_CHECKING

from hypothesis import given

from client_session import ClientSession, MemoryStore
from client_session.testing import Driver, SessionOptions, check_invariants, timelines, traces
from event_ids import event_id

if TYPE_CHECKING:
    from client_session import SessionContext
    from client_session.testing import Step


class Tracker:
    """A tracker that gets a session once and keeps the entities that it has sent."""

    def __init__(self, session: ClientSession) -> None:
        """Keep the session."""
        self.session = session
        self.sent: list[SessionContext] = []

    def track(self, *, extend: bool) -> None:
        """Track an event."""
        entity = self.session.get_session_context(event_id(len(self.sent)), extend=extend)
        if entity is not None:
            self.sent.append(entity)


@given(timelines() | traces())
def test_one_run_needs_one_tracker(trace: list[Step]) -> None:
    """Without restarts and other processes, the tracker's session stays open, and the tracker sends all entities."""
    driver = Driver(trace[0].at, MemoryStore(), SessionOptions())
    tracker = Tracker(driver.session)
    for step in trace:
        driver.move_to(step.at)
        if step.input in {"event", "passive"}:
            tracker.track(extend=step.input == "event")
        else:
            assert driver.apply(step) is None
    assert tracker.session is driver.session
    check_invariants(tracker.sent)


@given(traces(several_users=True))
def test_entities_of_several_users_are_checked_separately(trace: list[Step]) -> None:
    """Each user's entities form a chain of their own, and a user who has been forgotten does not return."""
    driver = Driver(trace[0].at, MemoryStore(), SessionOptions())
    entities = [entity for step in trace if (entity := driver.apply(step))]
    users = [list(group) for _, group in itertools.groupby(entities, key=attrgetter("user_id"))]
    for group in users:
        check_invariants(group)
    assert len(users) == len({group[0].user_id for group in users})
    assert len(users) <= 1 + sum(step.input == "forget" for step in trace)


@given(traces(several_runs=True))
def test_several_runs_need_the_current_session(trace: list[Step]) -> None:
    """With restarts and other processes, the tracker takes the driver's session, and apply() returns the rest."""
    driver = Driver(trace[0].at, MemoryStore(), SessionOptions())
    tracker = Tracker(driver.session)
    for step in trace:
        driver.move_to(step.at)
        if step.input in {"event", "passive"}:
            tracker.track(extend=step.input == "event")
        elif (other := driver.apply(step)) is not None:
            tracker.sent.append(other)
        tracker.session = driver.session
    check_invariants(tracker.sent)
