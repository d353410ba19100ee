"""The tally: how often each row of the graph was taken, and how often each invariant was checked."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from client_session.graph import Command, Input
from client_session.testing.manual import START
from client_session.testing.trace import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_session.graph import Row
    from client_session.testing.driver import SessionOptions


def _begin_at_start(steps: Sequence[Step]) -> tuple[Step, ...]:
    # A replay constructs its session at the first step; the verification constructs its session at START.
    return (*([Step(START, "start")] if steps and steps[0].at > START else []), *steps)


@attrs.frozen
class Sample:
    """A trace, and the options of its session, which is constructed at the first step."""

    options: SessionOptions
    steps: tuple[Step, ...] = attrs.field(converter=_begin_at_start)


@attrs.define
class Tally:
    """The counts of one verification."""

    rows: Counter[Row] = attrs.field(factory=Counter["Row"])
    invariants: Counter[str] = attrs.field(factory=Counter[str])
    samples: dict[Row, Sample] = attrs.field(factory=dict["Row", "Sample"])
    """The shortest trace found for each row, whose last step takes the row and no other."""

    def keep_sample(self, before: Counter[Row], options: SessionOptions, steps: Sequence[Step]) -> None:
        """Make a trace the sample of the row that its last step took, unless the row has a sample as short.

        If the last step also took a row for the check before it, the trace is not a sample: it does not show in which
        state the step found the session.
        """
        rows, given = self.rows - before, steps[-1].input
        for row in rows:
            is_own = row.input == (Input.RESUME if given is Command.START_CHECKER else given)
            if rows.total() == 1 and is_own and len(steps) < self._shortest(row):
                self.samples[row] = Sample(options, steps)

    def _shortest(self, row: Row) -> float:
        return len(self.samples[row].steps) if row in self.samples else math.inf

    def count(self, row: Row) -> None:
        """Count a row; pass this method as the observer of a `Lifecycle`."""
        self.rows[row] += 1
