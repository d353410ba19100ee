"""Trace replay: runs a real session on a virtual clock, and ticks it whenever a scheduler would."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from client_session.graph import SessionState
from client_session.testing.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from client_session.entity import SessionContext, SessionSummary
    from client_session.explanation import Explanation
    from client_session.input_log import InputRecord
    from client_session.session import ClientSession
    from client_session.testing.driver import SessionOptions
    from client_session.testing.trace import Step
    from client_session_persistence import SnapshotStore


_MIN_INTERVAL = 0.001
"""The minimum time between ticks, in seconds: a float cannot represent shorter times after some centuries."""
MAX_EMPTY_SESSIONS = 10_000
"""The maximum number of sessions that a trace may begin by letting time pass, with ``count_empty_sessions``."""


@attrs.frozen
class Moment:
    """The session's values after one input: a step, a scheduled tick that changed something, or the final ``close``."""

    at: datetime
    input: str
    state: SessionState
    session_id: str
    session_index: int | None
    event_index: int
    checker_running: bool
    timeout: float
    """The timeout of the state, in seconds. It is in force while the checker is running."""
    context: SessionContext | None
    ended: tuple[SessionSummary, ...]
    explanations: tuple[Explanation, ...]


class TraceTooLongError(ValueError):
    """A trace spans so much time that replaying it might begin more than `MAX_EMPTY_SESSIONS` empty sessions."""


def _check_length(steps: Sequence[Step], options: SessionOptions) -> None:
    timeouts = [options.foreground_timeout, *(step.foreground_timeout for step in steps if step.foreground_timeout)]
    span = (steps[-1].at - steps[0].at).total_seconds()
    count = span / max(min(timeouts), options.check_interval, _MIN_INTERVAL)
    if count > MAX_EMPTY_SESSIONS:
        msg = (
            f"the trace spans {span / 86400:,.0f} days, in which up to {count:,.0f} empty sessions would be counted "
            f"(maximum: {MAX_EMPTY_SESSIONS:,})"
        )
        raise TraceTooLongError(msg)


class Replay:
    """Runs a trace once, on a session that is constructed at the first step's time and closed after the last step."""

    def __init__(
        self,
        steps: Sequence[Step],
        store: SnapshotStore,
        options: SessionOptions,
        *,
        ticking: bool = True,
        on_input: Callable[[InputRecord], object] | None = None,
    ) -> None:
        """Construct the session. Without ``ticking``, only ``tick`` steps tick it.

        Raises the same errors as `ClientSession`, and `TraceTooLongError`.
        """
        if ticking and options.count_empty_sessions:
            _check_length(steps, options)
        self._steps = steps
        self._ticking = ticking
        self._driver = Driver(steps[0].at, store, options, on_input)

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
        """Run the ticks that are due before a step. Of those that change nothing, run only the last one."""
        driver, clock = self._driver, self._driver.clock
        target = clock.monotonic() + (at - driver.at).total_seconds()
        interval = max(self.session.check_interval, _MIN_INTERVAL)
        earliest = -math.inf
        while driver.at < at and (scheduled := driver.scheduler.next_due()) is not None:
            due = max(scheduled, earliest)
            if due > target:
                break
            last = math.floor((target - due) / interval)
            over = math.ceil((min(self._over_at(), target) - due) / interval)
            due += max(0, min(last, over)) * interval
            wait = timedelta(microseconds=math.ceil(max(0.0, due - clock.monotonic()) * 1e6))
            state = self.session.state
            driver.move_to(driver.at + min(wait, at - driver.at))
            driver.scheduler.run_due(clock)
            earliest = clock.monotonic() + interval
            if driver.ended or self.session.state is not state:
                yield self._moment("tick")
            if self.session.expires_in is None and self.session.state is SessionState.FOREGROUND_ACTIVE:
                break  # ticks do not change a pending session in the foreground

    def _over_at(self) -> float:
        """Return the monotonic time before which ticks change nothing."""
        return self.session._current.lifecycle.over_at  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # a pending session in the background has no `expires_in`

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
            session.checker_running,
            session.background_timeout if session.background else session.foreground_timeout,
            context,
            ended,
            explanations,
        )
