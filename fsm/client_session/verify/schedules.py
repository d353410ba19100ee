"""Schedule independence: any two tick schedules produce the same entities, ends, and final save file."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
from hypothesis import strategies as st

from client_session.testing.driver import Driver, SessionOptions
from client_session.testing.invariants import require
from client_session.testing.manual import START
from client_session.testing.strategies import MAX_DURATIONS
from client_session.testing.trace import Step
from client_session_persistence import MemoryStore, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from client_session.verify.tally import Tally

INVARIANTS = {
    "schedule independence": "Any two tick schedules (no ticks, regular, random, only late) produce the same entities, "
    "ends (with their reasons and times), and final save file.",
    "same partition": "With count_empty_sessions, any two tick schedules group the events into the same sessions.",
}

Schedule = tuple[float, ...]
"""Tick times between two consecutive steps, as fractions of the gap. The same schedule applies to every gap."""

SCHEDULES: st.SearchStrategy[Schedule] = (
    st.just(())  # no ticks
    | st.integers(1, 40).map(lambda number: tuple(part / number for part in range(1, number + 1)))  # regular
    | st.lists(st.floats(0, 1), max_size=6).map(lambda parts: tuple(sorted(parts)))  # random
    | st.just((1.0,))  # only late
)

OPTIONS: st.SearchStrategy[SessionOptions] = st.builds(
    SessionOptions,
    count_empty_sessions=st.booleans(),
    continue_on_restart=st.booleans(),
    extend_on_focus_change=st.booleans(),
    max_duration=MAX_DURATIONS,
)


@attrs.frozen
class Outcome:
    """The result of a timeline. Since session ids are random, sessions are numbered in order of appearance."""

    sessions: tuple[int, ...]
    numbers: tuple[tuple[object, ...], ...]
    ends: tuple[tuple[object, ...], ...]
    saved: tuple[object, ...]


def with_ticks(timeline: Sequence[Step], schedule: Schedule) -> list[Step]:
    """Insert ticks between the steps of a timeline."""
    steps: list[Step] = []
    before: datetime = START
    for step in timeline:
        # Use quarter seconds, as timelines do: floats represent them exactly, so equal times stay equal.
        quarters = (step.at - before).total_seconds() * 4
        steps += [Step(before + timedelta(seconds=int(quarters * fraction) / 4), "tick") for fraction in schedule]
        steps.append(step)
        before = step.at
    return steps


def outcome(steps: Sequence[Step], options: SessionOptions) -> Outcome:
    """Run a trace and return its outcome."""
    store = MemoryStore()
    driver = Driver(START, store, options)
    contexts = [context for step in steps if (context := driver.apply(step))]
    driver.session.close()
    names: dict[str | None, int] = {None: 0}
    sessions = tuple(names.setdefault(context.session_id, len(names)) for context in contexts)
    saved = store.load() or Snapshot(user_id=driver.session.user_id)
    return Outcome(
        sessions,
        tuple(
            (
                c.session_index,
                c.event_index,
                names.get(c.previous_session_id),
                c.first_event_id,
                c.first_event_timestamp,
            )
            for c in contexts
        ),
        tuple(
            attrs.astuple(
                attrs.evolve(each, user_id="", session_id=str(names[each.session_id]), previous_session_id=None)
            )
            for each in driver.ended
        ),
        (
            names.get(saved.session_id),
            names.get(saved.previous_session_id),
            saved.session_index,
            saved.event_index,
            saved.first_event_id,
            saved.first_event_timestamp,
            saved.last_activity,
            saved.session_start,
            saved.background,
        ),
    )


def check_schedules(
    timeline: Sequence[Step], first: Schedule, second: Schedule, options: SessionOptions, tally: Tally
) -> None:
    """Check that a timeline has the same outcome under two tick schedules.

    Raises:
        InvariantError: the outcomes differ.

    """
    outcomes = [outcome(with_ticks(timeline, schedule), options) for schedule in (first, second)]
    if options.count_empty_sessions:
        name, is_same = "same partition", outcomes[0].sessions == outcomes[1].sessions
    else:
        name, is_same = "schedule independence", outcomes[0] == outcomes[1]
    tally.invariants[name] += 1
    require(name, is_same, f"Ticks at {first}: {outcomes[0]}; at {second}: {outcomes[1]}.")
