"""The main theorem: which events share a session depends on events and toggles alone, never on when ticks come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from event_ids import event_id
from hypothesis import given
from hypothesis import strategies as st

from fsm import ClientSession
from fsm.testing import ManualClock, ManualScheduler
from persistence import MemoryStore, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

GAPS = st.sampled_from([0.0, 0.25, 15.0, 299.0, 299.75, 300.0, 301.0, 599.75, 600.0, 601.0, 5000.0])
INPUTS = st.sampled_from(["event", "event", "event", "background", "foreground", "touch", "new"])
TIMELINES = st.lists(st.tuples(GAPS, INPUTS), min_size=1, max_size=25)
SCHEDULES = st.lists(st.lists(st.floats(0, 1), max_size=3), min_size=25, max_size=25)


@attrs.frozen
class Outcome:
    """What is independent of ids: each event's session in order of appearance, its numbers, and the save file."""

    sessions: tuple[int, ...]
    indexes: tuple[int, ...]
    event_numbers: tuple[int, ...]
    saved: tuple[object, ...]


def run(
    timeline: Sequence[tuple[float, str]], ticks: Sequence[Sequence[float]], *, count_empty: bool, continues: bool
) -> Outcome:
    """Drive a session through a timeline, with ticks at fractions of each gap."""
    clock, store = ManualClock(), MemoryStore()
    session = ClientSession(
        store=store,
        clock=clock,
        scheduler=ManualScheduler(),
        count_empty_sessions=count_empty,
        continue_on_restart=continues,
    )
    names: dict[str, int] = {}
    contexts = []
    for number, ((gap, given_input), fractions) in enumerate(zip(timeline, ticks, strict=False)):
        passed = 0.0
        for fraction in sorted(fractions):
            # Whole quarters of a second are exact in floats, so that both runs see the very same times.
            at = int(gap * fraction * 4) / 4
            clock.advance(at - passed)
            passed = at
            session.tick()
        clock.advance(gap - passed)
        match given_input:
            case "event":
                contexts.append(session.get_session_context(event_id(number)))
            case "touch":
                session.touch()
            case "new":
                session.start_new_session()
            case _:
                session.set_background(given_input == "background")
    session.close()
    saved = store.load() or Snapshot(user_id="0" * 16)
    return Outcome(
        tuple(names.setdefault(context.session_id, len(names)) for context in contexts),
        tuple(context.session_index for context in contexts),
        tuple(context.event_index for context in contexts),
        (
            names.get(saved.session_id or ""),
            names.get(saved.previous_session_id or ""),
            *attrs.astuple(attrs.evolve(saved, user_id="0" * 16, session_id=None, previous_session_id=None)),
        ),
    )


@given(TIMELINES, SCHEDULES, SCHEDULES, st.booleans())
def test_any_two_schedules_of_ticks_give_the_same(
    timeline: list[tuple[float, str]],
    one: list[list[float]],
    two: list[list[float]],
    continues: bool,  # noqa: FBT001  # Hypothesis passes by name
) -> None:
    """No ticks, few or many: the same entities, and the same save file at the end."""
    none: list[list[float]] = [[] for _ in timeline]
    outcomes = {run(timeline, ticks, count_empty=False, continues=continues) for ticks in (none, one, two)}
    assert len(outcomes) == 1


@given(TIMELINES, SCHEDULES, SCHEDULES)
def test_counting_empty_sessions_keeps_the_partition(
    timeline: list[tuple[float, str]], one: list[list[float]], two: list[list[float]]
) -> None:
    """With count_empty_sessions ticks change the numbers, but not which events share a session."""
    assert (
        run(timeline, one, count_empty=True, continues=False).sessions
        == run(timeline, two, count_empty=True, continues=False).sessions
    )
