"""The driver: applies a trace's steps to a real session on a manual clock."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from client_session.graph import Command, Input
from client_session.session import ClientSession
from client_session.testing.manual import ManualClock, ManualScheduler
from client_session.testing.trace import LIMITS, External
from client_session_persistence.snapshot import shifted

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from client_session.entity import SessionContext, SessionSummary
    from client_session.explanation import Explanation
    from client_session.graph import SessionState
    from client_session.input_log import InputRecord
    from client_session.testing.trace import Step
    from client_session_persistence import SnapshotStore


@attrs.frozen
class SessionOptions:
    """Arguments for the `ClientSession` that a `Driver` constructs."""

    foreground_timeout: float = 600
    background_timeout: float = 300
    check_interval: float = 15
    count_empty_sessions: bool = False
    continue_on_restart: bool = False
    extend_on_focus_change: bool = False
    max_duration: float | None = None


class _Explanations(logging.LoggerAdapter[logging.Logger]):
    """Logger that collects the explanations logged at DEBUG and forwards all other records."""

    def __init__(self, explanations: list[Explanation]) -> None:
        super().__init__(logging.getLogger(ClientSession.__module__))
        self._explanations = explanations

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        return level == logging.DEBUG or super().isEnabledFor(level)

    def debug(self, msg: object, *args: Any, **_: Any) -> None:  # noqa: ANN401, ARG002  # logging's signature
        self._explanations.extend(args)


class Driver:
    """Applies steps to a session, which is ticked only by `scheduler` and by tick steps.

    Both clocks follow the times of the steps. A ``wall`` step sets the wall clock, which then advances from that time.
    """

    def __init__(
        self,
        start: datetime,
        store: SnapshotStore,
        options: SessionOptions,
        on_input: Callable[[InputRecord], object] | None = None,
    ) -> None:
        """Construct the session at time ``start``. Raises the same errors as `ClientSession`."""
        self.at = start
        self.clock = ManualClock(start)
        self.scheduler = ManualScheduler()
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.changes: list[tuple[SessionState, Input, SessionState]] = []
        self.explanations: list[Explanation] = []
        self._store = store
        self._options = options
        self._on_input = on_input
        self._wall_offset = timedelta(0)
        self.session = self._construct()

    def _construct(self) -> ClientSession:
        return ClientSession(
            store=self._store,
            clock=self.clock,
            scheduler=self.scheduler,
            logger=_Explanations(self.explanations),
            on_session_start=self.started.append,
            on_session_end=self.ended.append,
            on_state_change=lambda before, given, after: self.changes.append((before, given, after)),
            on_input=self._on_input,
            **attrs.asdict(self._options),
        )

    def move_to(self, at: datetime) -> None:
        """Advance both clocks to ``at`` without ticking."""
        self.clock.advance((at - self.at).total_seconds())
        self.at = at
        self.clock.set_wall(
            shifted(at, self._wall_offset.total_seconds())
        )  # a sum of floats may be off by microseconds

    def apply(self, step: Step) -> SessionContext | None:  # noqa: C901  # one case per input
        """Advance to the step's time and apply the step. Return the entity of the event that it tracks, if any."""
        self.move_to(step.at)
        session = self.session
        match step.input:
            case Input.EVENT | Input.PASSIVE:
                return session.get_session_context(str(step.event_id), extend=step.input is Input.EVENT)
            case Input.BACKGROUND | Input.FOREGROUND:
                session.set_background(step.input == Input.BACKGROUND)
            case Command.NEW_SESSION:
                session.start_new_session()
            case Command.TIMEOUTS:
                for name in LIMITS:
                    if (seconds := getattr(step, name)) is not None:
                        setattr(session, name, seconds)
            case Command.FORGET:
                session.forget_user()
            case External.RESTART:
                session.close()
                self.session = self._construct()
            case External.WALL:
                self._wall_offset = (step.to or step.at) - step.at
                self.clock.set_wall(step.to or step.at)
            case External.OTHER:
                with ClientSession(store=self._store, clock=self.clock, scheduler=ManualScheduler()) as other:
                    return other.get_session_context(str(step.event_id))
            case External.START | External.SLEEP:
                pass  # the session has been constructed; nothing happens until the next step
            case name:  # the input is named after a session method
                getattr(session, name.replace("-", "_"))()
        return None
