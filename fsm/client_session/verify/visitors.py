"""Visitors: a visitor's session groups the same inputs into the same sessions as a `ClientSession` does."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import strategies as st

from client_session.graph import Command, Input
from client_session.session import ClientSession
from client_session.testing.driver import SessionOptions
from client_session.testing.invariants import InvariantError
from client_session.testing.manual import START, ManualClock, ManualScheduler
from client_session.testing.states import ManualStates
from client_session.testing.strategies import make_step, timelines
from client_session.verify.schedules import OPTIONS
from client_session.visitors import VisitorSessions
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from client_session.entity import SessionContext, SessionSummary
    from client_session.testing.trace import Step
    from client_session.verify.tally import Tally
    from client_session.visitors import VisitorSession

INVARIANTS = {
    "visitors": "A visitor's sessions are those of a ClientSession with the same inputs: they have the same events, "
    "indexes, first events and ends. Reading the current session changes nothing.",
}

TIMELINES: st.SearchStrategy[tuple[list[Step], SessionOptions]] = st.tuples(
    timelines(manual_ends=True),
    OPTIONS.map(lambda options: attrs.evolve(options, count_empty_sessions=False, continue_on_restart=False)),
)
"""Timelines, and settings that visitors have, too."""

SHORT_GAPS = (0.0, 1.0, 2.0)
"""Seconds between the inputs of a short timeline. The timeouts are 1 s in the background and 2 s in the foreground."""
SHORT_OPTIONS = [
    SessionOptions(2.0, 1.0),
    SessionOptions(2.0, 1.0, extend_on_focus_change=True, max_duration=2.0),
]
_INPUTS = (Input.EVENT, Input.PASSIVE, Input.BACKGROUND, Input.FOREGROUND, Command.TOUCH, Command.NEW_SESSION)


def short_count(max_length: int) -> int:
    """Return the number of `short_timelines`."""
    lengths = range(1, max_length + 1)
    count: int = len(SHORT_OPTIONS) * sum(len(_INPUTS) ** each * len(SHORT_GAPS) ** (each - 1) for each in lengths)
    return count


def short_timelines(max_length: int) -> Iterator[tuple[list[Step], SessionOptions]]:
    """Yield every timeline of at most ``max_length`` inputs, under each of `SHORT_OPTIONS`, the shortest first."""
    for length in range(1, max_length + 1):
        gaps = itertools.product(SHORT_GAPS, repeat=length - 1)
        inputs = itertools.product(_INPUTS, repeat=length)
        for options, between, given in itertools.product(SHORT_OPTIONS, gaps, inputs):
            times = [START + timedelta(seconds=offset) for offset in itertools.accumulate(between, initial=0.0)]
            yield [make_step(times[number], name, number) for number, name in enumerate(given)], options


def check_visitors(timeline: Sequence[Step], options: SessionOptions, tally: Tally) -> None:
    """Check that a visitor and a `ClientSession` agree on a timeline, which may also start new sessions.

    Raises:
        InvariantError: they differ.

    """
    clock = ManualClock(START)
    limits: dict[str, Any] = {
        "foreground_timeout": options.foreground_timeout,
        "background_timeout": options.background_timeout,
        "max_duration": options.max_duration,
        "extend_on_focus_change": options.extend_on_focus_change,
    }
    client = _Results()
    server = _Results()
    session = ClientSession(
        store=MemoryStore(), clock=clock, scheduler=ManualScheduler(), on_session_end=client.end, **limits
    )
    visitor = VisitorSessions(ManualStates(clock), on_session_end=server.end, **limits).of("visitor")
    for step in timeline:
        clock.advance((step.at - clock.now()).total_seconds())
        client.apply(session, step)
        server.apply(visitor, step)
        is_current = session.expires_in != 0 and session.event_index > 0
        tally.invariants["visitors"] += 1
        if client.results != server.results or (visitor.current() is not None) != is_current:
            name, current = "visitors", visitor.current()
            detail = f"{step}: expected {client.results}, got {server.results}; the current session is {current}."
            raise InvariantError(name, detail)


class _Results:
    """The entities and ends of a session, in order. Ids are replaced with numbers in order of appearance."""

    def __init__(self) -> None:
        self.results: list[tuple[object, ...]] = []
        self._numbers: dict[str | None, int] = {None: 0}

    def apply(self, session: ClientSession | VisitorSession, step: Step) -> None:
        """Apply a step, and add the entity if the step is an event."""
        match step.input:
            case Input.EVENT | Input.PASSIVE:
                self._add(session.get_session_context(str(step.event_id), extend=step.input is Input.EVENT))
            case Input.BACKGROUND | Input.FOREGROUND:
                session.set_background(step.input is Input.BACKGROUND)
            case Command.TOUCH:
                session.touch()
            case _:
                session.start_new_session()

    def _add(self, context: SessionContext | None) -> None:
        if context is None:
            self.results.append(())
            return
        ids = (self._number(context.previous_session_id), self._number(context.session_id))
        indexes = (context.session_index, context.event_index)
        self.results.append((*ids, *indexes, context.first_event_id, context.first_event_timestamp))

    def end(self, summary: SessionSummary) -> None:
        """Add the end of a session; pass this method as ``on_session_end``."""
        ids = (self._number(summary.previous_session_id), self._number(summary.session_id))
        times = (summary.first_event_time, summary.last_event_time, summary.last_activity_time)
        self.results.append((*ids, summary.session_index, summary.event_count, summary.reason, *times))

    def _number(self, session_id: str | None) -> int:
        return self._numbers.setdefault(session_id, len(self._numbers))
