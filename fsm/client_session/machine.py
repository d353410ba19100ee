"""The running machine: one `transitions.Machine` for all sessions of all threads, built from the table.

It has no models: it is triggered on a cursor, an object of ours with the attribute ``state`` and, for each guard and
effect of the table, a method ``is_<guard>`` or ``do_<effect>``. So it holds nothing of any session, and sharing it is
safe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from transitions import Machine

from client_session.graph import INITIAL, TABLE, Effect, Guard, Input, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from client_session.graph import Row

    class Cursor(Protocol):
        """What the machine moves: it has a state and knows its guards and effects."""

        state: SessionState


def guard_method(guard: Guard) -> str:
    """Return the name of the cursor's method that answers a guard."""
    return f"is_{guard.name.lower()}"


def effect_method(effect: Effect) -> str:
    """Return the name of the cursor's method that carries out an effect."""
    return f"do_{effect.name.lower()}"


def build(rows: Iterable[Row]) -> Machine:
    """Build the machine of a table. A row that keeps its state is an internal transition: no state is entered."""
    return Machine(
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


def _not_from(machine: Machine) -> logging.Filter:
    # transitions logs every callback at level INFO, on the caller's thread, while our caller holds its session's lock:
    # noise for the host, and a deadlock if a handler of the host's calls the session. Other machines log as ever.
    class NotFromMachine(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return not (isinstance(record.args, tuple) and machine.name in record.args)

    return NotFromMachine()


MACHINE = build(TABLE)
logging.getLogger("transitions.core").addFilter(_not_from(MACHINE))

_TRIGGERS = {given: MACHINE.events[given.value].trigger for given in Input}


def send(cursor: Cursor, given: Input) -> None:
    """Let the machine decide what an input does to a cursor: its effects, then its state."""
    _TRIGGERS[given](cursor)
