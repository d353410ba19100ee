"""Trace replay: runs a real session on a virtual clock, and ticks it whenever a scheduler would."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from client_session.graph import SessionState
from client_session.testing.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from client_session.entity import SessionContext, SessionSummary
    from client_session.explanation import Explanation
    from client_session.session import ClientSession
    from client_session.testing.driver import SessionOptions
    from client_session.testing.trace import Step
    from client_session_persistence import SnapshotStore


@attrs.frozen
class Moment:
    """The session's values after one input: a step, a scheduled tick that changed something, or the final ``close``."""

    at: datetime
    input: str
    state: SessionState
    session_id: str
    session_index: int | None
    event_index: int
    context: SessionContext | None
    ended: tuple[SessionSummary, ...]
    explanations: tuple[Explanation, ...]


class Replay:
    """Runs a trace once, on a session that is constructed at the first step's time and closed after the last step."""

    def __init__(
        self, steps: Sequence[Step], store: SnapshotStore, options: SessionOptions, *, ticking: bool = True
    ) -> None:
        """Construct the session (same errors as `ClientSession`). Without ``ticking``, only ``tick`` steps tick it."""
        self._steps = steps
        self._ticking = ticking
        self._driver = Driver(steps[0].at, store, options)

    @property
    def session(self) -> ClientSession:
        """The session to which the steps are applied."""
        return self._driver.session

    def run(self) -> Iterator[Moment]:
        """Apply the steps, and yield a `Moment` after each input."""
        asleep = False
        for step in self._steps:
            if self._ticking and not asleep:
                yield from self._tick_until(step.at)
            asleep = step.input == "sleep"
            yield self._moment(step.input, self._driver.apply(step))
        self.session.close()
        yield self._moment("close")

    def _tick_until(self, at: datetime) -> Iterator[Moment]:
        driver = self._driver
        target = driver.clock.monotonic() + (at - driver.at).total_seconds()
        while driver.at < at and (due := driver.scheduler.next_due()) is not None and due <= target:
            state = self.session.state
            wait = max(0.0, due - driver.clock.monotonic())
            driver.move_to(min(at, driver.at + timedelta(microseconds=math.ceil(wait * 1e6))))
            driver.scheduler.run_due(driver.clock)
            if driver.ended or self.session.state is not state:
                yield self._moment("tick")
            if self.session.expires_in is None and self.session.state is SessionState.FOREGROUND_ACTIVE:
                break  # ticks do not change a pending session in the foreground

    def _moment(self, given: str, context: SessionContext | None = None) -> Moment:
        driver, session = self._driver, self.session
        ended, explanations = tuple(driver.ended), tuple(driver.explanations)
        driver.ended.clear()
        driver.explanations.clear()
        return Moment(
            driver.at,
            given,
            session.state,
            session.session_id,
            session.session_index,
            session.event_index,
            context,
            ended,
            explanations,
        )
