"""The exhaustive exploration of the lifecycle core, and the core's short path for events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from client_session.graph import TABLE, Command, Input
from client_session.lifecycle import Lifecycle
from client_session.testing.manual import START
from client_session.testing.replay import Replay
from client_session.verify import exploration
from client_session.verify.exploration import EXPIRED, Key, explore, key_of
from client_session.verify.short_path import check_short_path, lifecycles
from client_session.verify.tally import Tally
from client_session_persistence import MemoryStore


def test_every_edge_satisfies_every_invariant() -> None:
    """With every input explored in every reachable state, no invariant is violated, and every row fires."""
    tally = Tally()
    result = explore(tally)
    assert set(tally.rows) == set(TABLE)
    assert set(tally.invariants) == set(exploration.INVARIANTS)
    assert result.edges == result.states * (len(exploration.SIMPLE_INPUTS) + 1)
    assert result.states > 1000


def test_states_with_the_same_key_behave_in_the_same_way() -> None:
    """The exploration may skip a lifecycle whose key is known: from then on, keys and decisions are the same."""
    behaviors: dict[Key, list[tuple[object, ...]]] = {}
    unexplored = [(lifecycle, 0.0) for lifecycle in exploration.configurations(Tally())]
    compared = 0
    while unexplored:
        lifecycle, now = unexplored.pop()
        successors: list[tuple[Lifecycle, float]] = [(lifecycle.copy(), now + 1.0)]
        behavior: list[tuple[object, ...]] = []
        for given_input in exploration.SIMPLE_INPUTS:
            after = lifecycle.copy()
            decisions = after.decide(given_input, now)
            successors.append((after, now))
            behavior += [(getattr(each, "reason", None), getattr(each, "after", None)) for each in decisions]
        behavior += [(key_of(*successor),) for successor in successors]
        key = key_of(lifecycle, now)
        if key in behaviors:
            assert behavior == behaviors[key], key
            compared += 1
        else:
            behaviors[key] = behavior
            unexplored += successors
    assert compared > len(behaviors)


def test_sample_of_each_row_is_the_shortest() -> None:
    """The search is breadth-first: each row gets the shortest sample, whose last step takes it and no other row."""
    tally = Tally()
    explore(tally)
    assert set(tally.samples) == set(TABLE)
    # start, background, a tick that ends the session, and the row's own input
    assert {len(sample.steps) for row, sample in tally.samples.items() if row.source is EXPIRED} <= {3, 4}
    assert max(len(sample.steps) for sample in tally.samples.values()) == 4
    for row, sample in tally.samples.items():
        replayed = Tally()
        core = Lifecycle(
            sample.options.foreground_timeout, sample.options.background_timeout, 0.0, observer=replayed.count
        )
        moments = Replay(sample.steps, MemoryStore(), sample.options, ticking=False).run()
        before, state = replayed.rows.copy(), core.state
        for step, moment in zip(sample.steps, moments, strict=False):
            before, state = replayed.rows.copy(), core.state
            if isinstance(step.input, Input | Command):
                core.decide(step.input, (step.at - START).total_seconds())
            assert (moment.state, moment.event_index) == (core.state, core.event_count)
        assert replayed.rows - before == {row: 1}
        assert (state, core.state) == (row.source, row.destination)
        assert sample.steps[-1].input == (Command.START_CHECKER if row.input is Input.RESUME else row.input)


@given(lifecycles(), st.booleans())
def test_short_path_matches_the_machine(drawn: tuple[Lifecycle, float], extend: bool) -> None:  # noqa: FBT001  # drawn
    """At random times near the limits, the short path for events has the same effect as the machine."""
    tally = Tally()
    check_short_path(*drawn, tally, extend=extend)
    assert tally.invariants["short path"] == 1
