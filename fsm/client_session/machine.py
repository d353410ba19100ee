"""The running machine: one `transitions.Machine`, built from the table and shared by all sessions and threads.

It has no models. Instead, it moves a cursor: an object with a ``state`` attribute, a ``<guard>`` method for each
guard, and a ``do_<effect>`` method for each effect. The machine does not store session state, so sharing it is safe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from transitions import Event, EventData, Machine

from client_session.graph import INITIAL, TABLE, Effect, Guard, Input, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from client_session.graph import Row

    class Cursor(Protocol):
        """The object that the machine moves: it has the state, the guards and the effects."""

        state: SessionState


class _Event(Event):
    def _trigger(self, event_data: EventData) -> bool:
        """Run a transition. The base class would also swallow an exception from outside that arrives at the end."""
        event_data.state = self.machine.get_model_state(event_data.model)
        if self._is_valid_source(event_data.state):
            self._process(event_data)
        return bool(event_data.result)


class _Machine(Machine):
    event_cls = _Event


def guard_method(guard: Guard) -> str:
    """Return the name of the cursor's method for a guard."""
    return guard.name.lower()


def effect_method(effect: Effect) -> str:
    """Return the name of the cursor's method for an effect."""
    return f"do_{effect.name.lower()}"


def build(rows: Iterable[Row]) -> Machine:
    """Build the machine from a table. A row that does not change the state becomes an internal transition."""
    return _Machine(
        model=None,
        name="client-session",
        states=SessionState,
        initial=INITIAL,
        auto_transitions=False,
        transitions=[
            {
                "trigger": row.input.value,
                "source": row.source,
                "dest": None if row.destination is row.source else row.destination,
                "conditions": [guard_method(row.guard)] if row.guard else [],
                "before": [effect_method(effect) for effect in row.effects],
            }
            for row in rows
        ],
    )


MACHINE = build(TABLE)
# `transitions` logs every callback at INFO level while the session's lock is held. This would clutter the host's log,
# and could cause a deadlock if a log handler calls the session. The callbacks of other machines are still logged.
logging.getLogger("transitions.core").addFilter(
    lambda record: not (isinstance(record.args, tuple) and MACHINE.name in record.args)
)

_TRIGGERS = {given: MACHINE.events[given.value].trigger for given in Input}


def send(cursor: Cursor, given: Input) -> None:
    """Send an input to the machine, which runs the row's effects on the cursor and then sets the cursor's state."""
    _TRIGGERS[given](cursor)
