"""The same lifecycle, with every event sent through a state machine library: `transitions` or `python-statemachine`.

Both use the table `client_session.graph.TABLE` and the same check-first rule, lock, clock and entity. Neither has a
short path.
"""

from __future__ import annotations

import threading
import types
import uuid
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from statemachine import StateMachine
from statemachine.states import States

from benchmarks.minimal import Entity
from client_session import Input, SessionState
from client_session.graph import INITIAL, TABLE
from client_session.machine import effect_method, guard_method, send


class MachineSession:
    """A session that sends every event to a state machine and stores the machine's state."""

    def __init__(self, foreground_timeout: float = 600.0, background_timeout: float = 300.0) -> None:
        """Start with a pending session."""
        self.state = INITIAL
        self.checker_running = True
        self._lock = threading.Lock()
        self._foreground_timeout = foreground_timeout
        self._background_timeout = background_timeout
        self._user_id = str(uuid.uuid4())
        self._session_id = str(uuid.uuid4())
        self._previous_session_id: str | None = None
        self._session_index = 0
        self._event_index = 0
        self._first_event_id: str | None = None
        self._first_event_timestamp: str | None = None
        self._now = self._last_activity = monotonic()

    def send(self, given: Input) -> None:
        """Send an input to the machine."""
        raise NotImplementedError

    def get_session_context(self, event_id: str) -> Entity:
        """Count an event and return its entity."""
        with self._lock:
            self._check()
            self.send(Input.EVENT)
            if self._event_index == 1:
                self._session_index += 1
                self._first_event_id = event_id
                self._first_event_timestamp = datetime.now(UTC).isoformat()
            return Entity(
                self._user_id,
                self._session_id,
                self._session_index,
                self._event_index,
                self._previous_session_id,
                "LOCAL_STORAGE",
                self._first_event_id,
                self._first_event_timestamp,
            )

    def set_background(self, *, background: bool) -> None:
        """Go to the background, or come to the foreground."""
        with self._lock:
            self._check()
            self.send(Input.BACKGROUND if background else Input.FOREGROUND)

    def _check(self) -> None:
        self._now = monotonic()
        if self.checker_running and self._event_index and self.is_over():
            self.send(Input.TICK)

    def is_over(self) -> bool:
        """Guard: return whether the session has timed out."""
        in_foreground = self.state is SessionState.FOREGROUND_ACTIVE
        return self._now - self._last_activity >= (
            self._foreground_timeout if in_foreground else self._background_timeout
        )

    def has_events(self) -> bool:
        """Guard: return whether the session has events."""
        return self._event_index > 0

    def do_count(self) -> None:
        """Effect: count a passive event."""
        self._event_index += 1

    def do_touch(self) -> None:
        """Effect: nothing, since focus changes are not activity by default."""

    def do_activity(self) -> None:
        """Effect: count an event."""
        self._event_index += 1
        self._last_activity = self._now
        self.checker_running = True

    def do_renew(self) -> None:
        """Effect: replace the session with a pending one."""
        self._previous_session_id, self._session_id = self._session_id, str(uuid.uuid4())
        self._event_index = 0
        self._last_activity = self._now

    def do_start_checker(self) -> None:
        """Effect: start the checker."""
        self.checker_running = True

    def do_stop_checker(self) -> None:
        """Effect: stop the checker."""
        self.checker_running = False


class TransitionsSession(MachineSession):
    """Uses the project's own machine, which is built on `transitions`."""

    def send(self, given: Input) -> None:
        """Send an input to the machine."""
        send(self, given)


class StatemachineSession(MachineSession):
    """Uses `python-statemachine`."""

    def __init__(self, foreground_timeout: float = 600.0, background_timeout: float = 300.0) -> None:
        """Create a machine with this session as its model."""
        super().__init__(foreground_timeout, background_timeout)
        self._machine = _StateMachine(model=self)
        self._triggers = {given: getattr(self._machine, given.value) for given in Input}

    def send(self, given: Input) -> None:
        """Send an input to the machine."""
        self._triggers[given]()


def _declare(namespace: dict[str, Any]) -> None:
    namespace["states"] = states = States.from_enum(SessionState, initial=INITIAL, use_enum_instance=True)
    for given in Input:
        transitions = [
            getattr(states, row.source.name).to(
                getattr(states, row.destination.name),
                internal=row.destination is row.source,
                cond=guard_method(row.guard) if row.guard else None,
                on=[effect_method(effect) for effect in row.effects],
            )
            for row in TABLE
            if row.input is given
        ]
        namespace[given.value] = transitions[0]
        for transition in transitions[1:]:
            namespace[given.value] |= transition


_StateMachine = types.new_class("_StateMachine", (StateMachine,), exec_body=_declare)
