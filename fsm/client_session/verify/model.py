"""The model-based test: random inputs in random order, compared with the oracle."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from client_session.graph import Command, Input
from client_session.testing import SessionOptions
from client_session.testing.strategies import GAPS, START, WALL_SHIFTS, make_step
from client_session.testing.trace import INPUTS, External
from client_session.verify.harness import Harness
from client_session.verify.tally import Tally

if TYPE_CHECKING:
    from client_session.testing.trace import Step

TOGGLES = (Input.BACKGROUND, Input.FOREGROUND)
OTHERS = tuple(
    given for given in INPUTS if given not in (Input.EVENT, Input.TICK, *TOGGLES, Command.TIMEOUTS, External.WALL)
)
TIMEOUTS = st.sampled_from([(600.0, 300.0), (300.0, 600.0), (0.25, 0.25), (30.0, 1e9)])


class SessionModel(RuleBasedStateMachine):
    """A session that Hypothesis drives; each rule applies one input after some time."""

    tally: ClassVar[Tally] = Tally()
    """The tally of the run; a verification sets its own."""
    last_run: ClassVar[tuple[SessionOptions, list[Step]]] = (SessionOptions(), [])
    """The options and steps of the last run; after a failure, the shortest failing ones."""

    @initialize(timeouts=TIMEOUTS, continue_on_restart=st.booleans())
    def construct(self, timeouts: tuple[float, float], *, continue_on_restart: bool) -> None:
        """Start with a new installation."""
        self.folder = tempfile.TemporaryDirectory(prefix="client-session-verify-")
        options = SessionOptions(*timeouts, continue_on_restart=continue_on_restart)
        self.harness = Harness(Path(self.folder.name), options, self.tally)
        self.at = START
        type(self).last_run = (options, self.harness.steps)

    def teardown(self) -> None:
        """Remove the save file."""
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _apply(self, name: str, gap: float, *, shift: float = 0.0, timeout: float = 0.0) -> None:
        self.at += timedelta(seconds=gap)
        step = make_step(self.at, name, len(self.harness.steps), shift=shift, timeout=timeout)
        # Recorded before it is applied, so that a failing step is the last one of the trace.
        type(self).last_run = (self.harness.options, [*self.harness.steps, step])
        self.harness.apply(step)

    @rule(gap=GAPS)
    def event(self, gap: float) -> None:
        """Track an event."""
        self._apply("event", gap)

    @rule(gap=GAPS, name=st.sampled_from(TOGGLES))
    def toggle(self, gap: float, name: str) -> None:
        """Go to the background or the foreground."""
        self._apply(name, gap)

    @rule(gap=GAPS, times=st.integers(1, 2))
    def tick(self, gap: float, times: int) -> None:
        """Tick early, late or twice; between other rules, ticks are lost."""
        for _ in range(times):
            self._apply("tick", gap)
            gap = 0.0

    @rule(gap=GAPS, name=st.sampled_from(OTHERS))
    def other(self, gap: float, name: str) -> None:
        """Apply any other input without arguments: commands, restarts, sleep, another process."""
        self._apply(name, gap)

    @rule(gap=GAPS, timeout=GAPS)
    def timeouts(self, gap: float, timeout: float) -> None:
        """Change the timeouts."""
        self._apply("timeouts", gap, timeout=timeout)

    @rule(gap=GAPS, shift=WALL_SHIFTS)
    def wall(self, gap: float, shift: float) -> None:
        """Set the wall clock."""
        self._apply("wall", gap, shift=shift)
