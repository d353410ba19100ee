"""The tally: how often each row of the graph was gone through, and each invariant was checked."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING
from unittest import mock

import attrs

from fsm.graph import TABLE, Guard, Input, SessionState
from fsm.machine import send
from fsm.testing.strategies import START
from fsm.trace import Step

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from fsm.graph import Row
    from fsm.lifecycle import Lifecycle
    from fsm.testing import SessionOptions

_ROWS = {(row.source, row.input): row for row in TABLE}


def _from_the_start(steps: Sequence[Step]) -> tuple[Step, ...]:
    # A replay constructs its session at the first step; what is verified was constructed at START.
    return (*([Step(START, "sleep")] if steps and steps[0].at > START else []), *steps)


@attrs.frozen
class Sample:
    """A trace, and what its session is constructed with, at the trace's first step."""

    options: SessionOptions
    steps: tuple[Step, ...] = attrs.field(converter=_from_the_start)


@attrs.define
class Tally:
    """Counts of one verification."""

    rows: Counter[Row] = attrs.field(factory=Counter["Row"])
    invariants: Counter[str] = attrs.field(factory=Counter[str])
    samples: dict[Row, Sample] = attrs.field(factory=dict["Row", "Sample"])
    """The shortest trace that was seen to go through each row."""

    def keep_sample(self, before: Counter[Row], options: SessionOptions, steps: Sequence[Step]) -> None:
        """Keep a trace as the sample of each row that its last step went through, if it is the shortest one yet."""
        for row, count in self.rows.items():
            if count > before[row] and (row not in self.samples or len(steps) < len(self.samples[row].steps)):
                self.samples[row] = Sample(options, steps)

    @contextlib.contextmanager
    def counting_rows(self) -> Generator[None]:
        """Count each row that a lifecycle goes through meanwhile."""

        def counting(cursor: Lifecycle, given: Input) -> None:
            row = _ROWS[cursor.state, given]
            if row.guard is not Guard.TIMED_OUT or cursor.is_timed_out():
                self.rows[row] += 1
            send(cursor, given)

        with mock.patch("fsm.lifecycle.send", counting):
            yield

    def count_short_path(self, state: SessionState) -> None:
        """Count an event that took the short path, past the machine, as the row that it stands for."""
        self.rows[_ROWS[state, Input.EVENT]] += 1
