"""The proof for the core, and its short path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given

from fsm.graph import TABLE
from fsm.replay import Replay
from fsm.verify import exploration
from fsm.verify.exploration import EXPIRED, explore
from fsm.verify.short_path import check_short_path, lifecycles
from fsm.verify.tally import Tally
from persistence import MemoryStore

if TYPE_CHECKING:
    from fsm.lifecycle import Lifecycle


def test_every_edge_of_the_core_holds_every_invariant() -> None:
    """All states that can be reached, every input in each: no invariant fails, and each row is gone through."""
    tally = Tally()
    with tally.counting_rows():
        found = explore(tally)
    assert set(tally.rows) == set(TABLE)
    assert set(tally.invariants) == set(exploration.INVARIANTS)
    assert found.edges == found.states * (len(exploration.MOVES) + 1)
    assert found.states > 50


def test_the_way_to_each_row_is_the_shortest() -> None:
    """The sample of each row is found breadth first: a reader sees at a glance what leads there, and can replay it."""
    tally = Tally()
    with tally.counting_rows():
        explore(tally)
    assert set(tally.samples) == set(TABLE)
    # After the start, the focus is lost, a tick expires; then the row's own input.
    assert {len(sample.steps) for row, sample in tally.samples.items() if row.source is EXPIRED} <= {3, 4}
    assert max(len(sample.steps) for sample in tally.samples.values()) == 4
    for row, sample in tally.samples.items():
        replayed = Tally()
        with replayed.counting_rows():
            list(Replay(sample.steps, MemoryStore(), sample.options, ticking=False).run())
        assert replayed.rows[row]


@given(lifecycles())
def test_the_short_path_equals_the_machine(drawn: tuple[Lifecycle, float]) -> None:
    """At random times at and round the timeout, an event that skips the machine does what the machine would."""
    tally = Tally()
    check_short_path(*drawn, tally)
    assert tally.invariants["short path"] == 1
