"""The proof for the core, and its short path."""

from __future__ import annotations

from hypothesis import given

from client_session.graph import TABLE, Command, Input
from client_session.lifecycle import Lifecycle
from client_session.testing.replay import Replay
from client_session.testing.strategies import START
from client_session.verify import exploration
from client_session.verify.exploration import EXPIRED, explore
from client_session.verify.short_path import check_short_path, lifecycles
from client_session.verify.tally import Tally
from client_session_persistence import MemoryStore


def test_every_edge_of_the_core_holds_every_invariant() -> None:
    """All states that can be reached, every input in each: no invariant fails, and each row is gone through."""
    tally = Tally()
    found = explore(tally)
    assert set(tally.rows) == set(TABLE)
    assert set(tally.invariants) == set(exploration.INVARIANTS)
    assert found.edges == found.states * (len(exploration.MOVES) + 1)
    assert found.states > 50


def test_the_way_to_each_row_is_the_shortest() -> None:
    """The sample of each row is found breadth first: a reader sees at a glance what leads there, and can replay it."""
    tally = Tally()
    explore(tally)
    assert set(tally.samples) == set(TABLE)
    # After the start, the focus is lost, a tick expires; then the row's own input.
    assert {len(sample.steps) for row, sample in tally.samples.items() if row.source is EXPIRED} <= {3, 4}
    assert max(len(sample.steps) for sample in tally.samples.values()) == 4
    for row, sample in tally.samples.items():
        followed = Tally()
        core = Lifecycle(
            sample.options.foreground_timeout, sample.options.background_timeout, 0.0, observer=followed.count
        )
        moments = Replay(sample.steps, MemoryStore(), sample.options, ticking=False).run()
        for step, moment in zip(sample.steps, moments, strict=False):
            if isinstance(step.input, Input | Command):
                core.decide(step.input, (step.at - START).total_seconds())
            assert (moment.state, moment.event_index) == (core.state, core.event_count)
        assert followed.rows[row]


@given(lifecycles())
def test_the_short_path_equals_the_machine(drawn: tuple[Lifecycle, float]) -> None:
    """At random times at and round the timeout, an event that skips the machine does what the machine would."""
    tally = Tally()
    check_short_path(*drawn, tally)
    assert tally.invariants["short path"] == 1
