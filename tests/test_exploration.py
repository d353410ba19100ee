"""The proof for the core, and its short path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given

from fsm.graph import TABLE
from fsm.verify import exploration
from fsm.verify.exploration import explore
from fsm.verify.short_path import check_short_path, lifecycles
from fsm.verify.tally import Tally

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


@given(lifecycles())
def test_the_short_path_equals_the_machine(drawn: tuple[Lifecycle, float]) -> None:
    """At random times at and round the timeout, an event that skips the machine does what the machine would."""
    tally = Tally()
    check_short_path(*drawn, tally)
    assert tally.invariants["short path"] == 1
