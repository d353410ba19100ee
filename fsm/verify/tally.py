"""The tally: how often each row of the graph was gone through, and each invariant was checked."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING
from unittest import mock

import attrs

from fsm.graph import TABLE, Guard, Input, SessionState
from fsm.machine import send

if TYPE_CHECKING:
    from collections.abc import Generator

    from fsm.graph import Row
    from fsm.lifecycle import Lifecycle

_ROWS = {(row.source, row.input): row for row in TABLE}


@attrs.define
class Tally:
    """Counts of one verification."""

    rows: Counter[Row] = attrs.field(factory=Counter["Row"])
    invariants: Counter[str] = attrs.field(factory=Counter[str])

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
