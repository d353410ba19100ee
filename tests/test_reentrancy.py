"""Re-entrant calls: a signal handler or finalizer calls a session in the middle of another call on the same thread."""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession, MemoryStore
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import XmlStore
from event_ids import event_id
from torture.forked_children import fork_in_c
from torture.forks import fork_at
from torture.recorder import OPERATIONS, Recorder, ignore_closed
from torture.reentrancy import call_at_point

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import SessionContext, SessionSummary

STEP = 11
"""These tests interrupt every 11th point; the torture suite interrupts every point."""

REENTRANT_CALLS: dict[str, Callable[[Recorder], object]] = {
    "an event": Recorder.event,
    "a new session": lambda recorder: recorder.session.start_new_session(),
    "a focus change": lambda recorder: recorder.session.set_background(not recorder.session.background),
}


@pytest.mark.parametrize("reentrant_call", REENTRANT_CALLS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupted_calls_lose_nothing(operation: str, reentrant_call: str) -> None:
    """Wherever one call interrupts another, indexes are not skipped or duplicated, and the callbacks match."""
    prepare, operate = OPERATIONS[operation]
    points = 1
    for point in itertools.count(0, STEP):
        if point >= points:
            break
        recorder = Recorder(MemoryStore())
        prepare(recorder)
        points = call_at_point(
            partial(ignore_closed, partial(operate, recorder)),
            partial(ignore_closed, partial(REENTRANT_CALLS[reentrant_call], recorder)),
            point,
        )
        recorder.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork() is not available")
@pytest.mark.parametrize("system_fork", [None, fork_in_c], ids=["os.fork", "fork in C"])
@pytest.mark.parametrize("point", range(31))
def test_forked_child_never_begins_the_session_that_its_parent_begins(
    tmp_path: Path, point: int, system_fork: Callable[[], int] | None
) -> None:
    """A child forked while the id of the next session is being chosen gets an id of its own."""
    prepare, operate = OPERATIONS["a new session"]
    recorder = Recorder(XmlStore(tmp_path / "session.xml"))
    prepare(recorder)
    _, loss = fork_at(point, recorder, operate, system_fork)
    assert not loss


@pytest.mark.parametrize("count_empty_sessions", [False, True])
@pytest.mark.parametrize("prepare", ["a new session", "after the timeout"])
def test_saved_first_event_is_the_reported_first_event(prepare: str, *, count_empty_sessions: bool) -> None:
    """If one event interrupts another, the entities, the callback and the store agree on which one came first."""
    points = 1
    for point in itertools.count():
        if point >= points:
            break
        store, clock = MemoryStore(), ManualClock()
        started: list[SessionContext] = []
        session = ClientSession(
            store=store,
            clock=clock,
            scheduler=ManualScheduler(),
            count_empty_sessions=count_empty_sessions,
            on_session_start=started.append,
        )
        if prepare == "after the timeout":
            session.get_session_context(event_id(9))
            clock.advance(600)
        contexts: dict[str, SessionContext] = {}

        def track(
            number: int, session: ClientSession = session, contexts: dict[str, SessionContext] = contexts
        ) -> None:
            contexts[event_id(number)] = session.get_session_context(event_id(number))

        points = call_at_point(partial(track, 1), partial(track, 2), point)
        (first,) = [identifier for identifier, context in contexts.items() if context.event_index == 1]
        saved = store.load()
        assert saved is not None
        assert {context.first_event_id for context in contexts.values()} == {first}
        assert started[-1] == contexts[first]
        assert (saved.first_event_id, saved.session_index) == (first, contexts[first].session_index)


def test_event_is_not_counted_in_a_superseded_session() -> None:
    """If a re-entrant call ends the session while an event reads the clock, the event begins the next session."""

    class InterruptingClock(ManualClock):
        """A clock that, once armed, ends the session the next time the clock is read."""

        armed = False

        def monotonic(self) -> float:
            if self.armed:
                self.armed = False
                session.start_new_session()
            return super().monotonic()

    clock = InterruptingClock()
    ended: list[SessionSummary] = []
    session = ClientSession(store=MemoryStore(), clock=clock, scheduler=ManualScheduler(), on_session_end=ended.append)
    session.get_session_context(event_id(1))
    clock.armed = True
    context = session.get_session_context(event_id(2))
    assert (context.session_index, context.event_index) == (2, 1)
    assert [summary.event_count for summary in ended] == [1]
