"""Driving a real session through the steps of a trace, on a clock of its own."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from fsm.session import ClientSession
from fsm.testing.manual import ManualClock, ManualScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fsm.entity import SessionContext
    from fsm.explanation import Explanation
    from fsm.graph import Input, SessionState
    from fsm.summary import SessionSummary
    from fsm.trace import Step
    from persistence import SnapshotStore


@attrs.frozen
class SessionOptions:
    """What a driven session is constructed with, as `ClientSession` takes it."""

    foreground_timeout: float = 600
    background_timeout: float = 300
    check_interval: float = 15
    count_empty_sessions: bool = False
    continue_on_restart: bool = False


class _Explanations(logging.LoggerAdapter[logging.Logger]):
    """Takes the explanations, which a session tells as debug lines; other lines go the usual way."""

    def __init__(self, told: list[Explanation]) -> None:
        super().__init__(logging.getLogger(ClientSession.__module__))
        self._told = told

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        return level == logging.DEBUG or super().isEnabledFor(level)

    def debug(self, msg: object, *args: Any, **_: Any) -> None:  # noqa: ANN401, ARG002  # logging's signature
        self._told.extend(args)


class Driver:
    """A session that steps are applied to. No tick comes by itself: `scheduler` and the steps send them.

    A step's time is true time. The wall clock goes along with it until a step sets it to something else.
    """

    def __init__(self, start: datetime, store: SnapshotStore, options: SessionOptions) -> None:
        """Construct the session at ``start``; arguments that it refuses raise here, as its constructor's."""
        self.at = start
        self.clock = ManualClock(start)
        self.scheduler = ManualScheduler()
        self.started: list[SessionContext] = []
        self.ended: list[SessionSummary] = []
        self.changes: list[tuple[SessionState, Input, SessionState]] = []
        self.explanations: list[Explanation] = []
        self._store = store
        self._options = options
        self._wall_is_ahead = timedelta(0)
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
            **attrs.asdict(self._options),
        )

    def move_to(self, at: datetime) -> None:
        """Let time pass, without ticks."""
        self.clock.advance((at - self.at).total_seconds())
        self.at = at
        self.clock.set_wall(at + self._wall_is_ahead)  # what is added up in floats may be off by microseconds

    def apply(self, step: Step) -> SessionContext | None:
        """Let time pass until the step, and apply it; return an event's entity (another process's too)."""
        self.move_to(step.at)
        simple: dict[str, Callable[[], None]] = {
            "touch": self.session.touch,
            "tick": self.session.tick,
            "resume": self.session.start_checker,
            "stop": self.session.stop_checker,
            "new-session": self.session.start_new_session,
            "save": self.session.save,
        }
        match step.input:
            case "event":
                return self.session.get_session_context(str(step.event_id))
            case "background" | "foreground":
                self.session.set_background(step.input == "background")
            case "restart":
                self.session.close()
                self.session = self._construct()
            case "timeouts":
                if step.foreground_timeout is not None:
                    self.session.foreground_timeout = step.foreground_timeout
                if step.background_timeout is not None:
                    self.session.background_timeout = step.background_timeout
            case "wall":
                self._wall_is_ahead = (step.to or step.at) - step.at
                self.clock.set_wall(step.at + self._wall_is_ahead)
            case "other":
                with ClientSession(store=self._store, clock=self.clock, scheduler=ManualScheduler()) as other:
                    return other.get_session_context(str(step.event_id))
            case "sleep":
                pass  # nothing happens until the next step
            case _:
                simple[step.input]()
        return None
