"""Replaying a trace: a real session on a virtual clock, with ticks where they would have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsm.graph import SessionState
from fsm.session import ClientSession
from fsm.testing import ManualClock, ManualScheduler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from fsm.entity import SessionContext
    from fsm.summary import SessionSummary
    from fsm.trace import Step
    from persistence import SnapshotStore


@attrs.frozen
class SessionOptions:
    """What a replayed session is constructed with, as `ClientSession` takes it."""

    foreground_timeout: float = 600
    background_timeout: float = 300
    check_interval: float = 15
    count_empty_sessions: bool = False
    continue_on_restart: bool = False


@attrs.frozen
class Moment:
    """What was to be seen after one input: of the trace, a ``tick`` that changed something, or the final ``close``."""

    at: datetime
    input: str
    state: SessionState
    session_id: str
    session_index: int | None
    event_index: int
    context: SessionContext | None
    begun: bool
    ended: tuple[SessionSummary, ...]


class Replay:
    """One run of a trace. The session is constructed at the time of its first step, and closed after its last."""

    def __init__(self, steps: Sequence[Step], store: SnapshotStore, options: SessionOptions) -> None:
        """Construct the session; arguments that it refuses raise here, as its constructor's."""
        self._steps = steps
        self._store = store
        self._options = options
        self._clock = ManualClock(steps[0].at)
        self._scheduler = ManualScheduler()
        self._begun = False
        self._ended: list[SessionSummary] = []
        self.session = self._construct()

    def run(self) -> Iterator[Moment]:
        """Apply each step, and yield what was to be seen."""
        asleep = False
        for step in self._steps:
            if asleep:
                self._clock.suspend((step.at - self._clock.now()).total_seconds())
            else:
                yield from self._tick_until(step.at)
            self._clock.set_wall(step.at)  # what was added up in floats is off by microseconds
            asleep = step.input == "sleep"
            yield self._moment(step.input, self._apply(step))
        self.session.close()
        yield self._moment("close")

    def _construct(self) -> ClientSession:
        return ClientSession(
            store=self._store,
            clock=self._clock,
            scheduler=self._scheduler,
            on_session_start=lambda _: setattr(self, "_begun", True),
            on_session_end=self._ended.append,
            **attrs.asdict(self._options),
        )

    def _apply(self, step: Step) -> SessionContext | None:
        match step.input:
            case "event":
                return self.session.get_session_context(step.event_id or "")
            case "background" | "foreground":
                self.session.set_background(step.input == "background")
            case "touch":
                self.session.touch()
            case "resume":
                self.session.start_checker()
            case "tick":
                self.session.tick()
            case "restart":
                self.session.close()
                self.session = self._construct()
            case _:
                pass  # asleep: nothing happens until the next step
        return None

    def _tick_until(self, at: datetime) -> Iterator[Moment]:
        target = self._clock.monotonic() + (at - self._clock.now()).total_seconds()
        while (due := self._scheduler.next_due()) is not None and due <= target:
            self._clock.advance(max(0.0, due - self._clock.monotonic()))
            state = self.session.state
            self._scheduler.run_due(self._clock)
            if self._ended or self.session.state is not state:
                yield self._moment("tick")
            if self.session.expires_in is None and self.session.state is SessionState.FOREGROUND_ACTIVE:
                break  # pending in focus: no further tick can change anything
        self._clock.advance(max(0.0, target - self._clock.monotonic()))

    def _moment(self, given: str, context: SessionContext | None = None) -> Moment:
        session = self.session
        begun, self._begun = self._begun, False
        ended = tuple(self._ended)
        self._ended.clear()
        return Moment(
            self._clock.now(),
            given,
            session.state,
            session.session_id,
            session.session_index,
            session.event_index,
            context,
            begun,
            ended,
        )
