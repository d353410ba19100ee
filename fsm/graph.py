"""The lifecycle graph: states, inputs, and the one table that everything else is derived from.

The running machine (`fsm.machine`), the diagrams (`fsm.diagram`), the tests and the README's table all read `TABLE`.
It is checked when it is imported: a bad row fails with a sentence that names it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SessionState(enum.Enum):
    """Where a session's lifecycle stands."""

    FOREGROUND_ACTIVE = "foreground-active"
    """The app is in focus; the foreground timeout applies."""
    BACKGROUND_ACTIVE = "background-active"
    """The app is out of focus; the background timeout applies."""
    EXPIRED_CHECKER_STOPPED = "expired-checker-stopped"
    """Timed out in the background; nothing is left to check, so the checker is stopped."""


class Input(enum.StrEnum):
    """What can happen to a session."""

    EVENT = "event"
    """An event was tracked."""
    TICK = "tick"
    """The checker asks whether the session has timed out."""
    BACKGROUND = "background"
    """The app lost the focus."""
    FOREGROUND = "foreground"
    """The app won the focus."""
    RESUME = "resume"
    """The checker is started by hand; sent to the expired state alone."""


class Guard(enum.StrEnum):
    """What must be true for a row to apply."""

    TIMED_OUT = "timed out"
    """The time since the last activity is the timeout of the state, or more."""


class Effect(enum.StrEnum):
    """What a row does besides changing the state."""

    ACTIVITY = "activity"
    """The event is counted, the timeout starts anew, and a checker that was stopped by hand runs again."""
    RENEW = "renew"
    """A session that has events ends; a pending one, without events, takes its place."""
    START_CHECKER = "start checker"
    """Ticks come from now on."""
    STOP_CHECKER = "stop checker"
    """No ticks come from now on."""


@attrs.frozen
class Row:
    """One arrow of the graph. ``destination`` equals ``source`` where the state stays."""

    source: SessionState
    input: Input
    guard: Guard | None
    destination: SessionState
    effects: tuple[Effect, ...]
    why: str

    @property
    def label(self) -> str:
        """The row as an arrow's label in UML's notation: ``input [guard] / effect, effect``."""
        guard = f" [{self.guard}]" if self.guard else ""
        effects = f" / {', '.join(self.effects)}" if self.effects else ""
        return f"{self.input}{guard}{effects}"

    def __str__(self) -> str:
        """Name the row as error messages do."""
        return f"row '{self.source.value}, {self.label} → {self.destination.value}'"


_FOREGROUND = SessionState.FOREGROUND_ACTIVE
_BACKGROUND = SessionState.BACKGROUND_ACTIVE
_EXPIRED = SessionState.EXPIRED_CHECKER_STOPPED

INITIAL = _FOREGROUND
"""The state of a new session object: a program starts in focus unless it says otherwise."""

TABLE: tuple[Row, ...] = (
    Row(
        _FOREGROUND,
        Input.EVENT,
        None,
        _FOREGROUND,
        (Effect.ACTIVITY,),
        "Tracked events are what a session consists of.",
    ),
    Row(
        _FOREGROUND,
        Input.TICK,
        Guard.TIMED_OUT,
        _FOREGROUND,
        (Effect.RENEW,),
        "The user is idle in front of the app; the checker runs on, since the next session starts here.",
    ),
    Row(
        _FOREGROUND,
        Input.BACKGROUND,
        None,
        _BACKGROUND,
        (),
        "The app lost the focus: the shorter timeout applies from here on. A toggle is no activity.",
    ),
    Row(
        _FOREGROUND,
        Input.FOREGROUND,
        None,
        _FOREGROUND,
        (Effect.START_CHECKER,),
        "Nothing changes, but being told of focus always means that checking makes sense.",
    ),
    Row(
        _BACKGROUND,
        Input.EVENT,
        None,
        _BACKGROUND,
        (Effect.ACTIVITY,),
        "Work in the background (music, sync) is activity too; it does not bring the focus back.",
    ),
    Row(
        _BACKGROUND,
        Input.TICK,
        Guard.TIMED_OUT,
        _EXPIRED,
        (Effect.RENEW, Effect.STOP_CHECKER),
        "Expire once, then rest: a pending session out of focus has nothing left to check.",
    ),
    Row(
        _BACKGROUND,
        Input.FOREGROUND,
        None,
        _FOREGROUND,
        (Effect.START_CHECKER,),
        "The user is back in time: the session goes on under the longer timeout.",
    ),
    Row(
        _BACKGROUND,
        Input.BACKGROUND,
        None,
        _BACKGROUND,
        (),
        "Saying it twice changes nothing.",
    ),
    Row(
        _EXPIRED,
        Input.EVENT,
        None,
        _BACKGROUND,
        (Effect.START_CHECKER, Effect.ACTIVITY),
        "The pending session gets its first event, still out of focus, and must be checked again.",
    ),
    Row(
        _EXPIRED,
        Input.FOREGROUND,
        None,
        _FOREGROUND,
        (Effect.START_CHECKER,),
        "The user is back, too late for the old session; the pending one waits for its first event.",
    ),
    Row(
        _EXPIRED,
        Input.RESUME,
        None,
        _BACKGROUND,
        (Effect.START_CHECKER,),
        "The embedder starts the checker by hand (`start_checker()`); nothing else sends this.",
    ),
    Row(
        _EXPIRED,
        Input.TICK,
        None,
        _EXPIRED,
        (),
        "A tick that was under way when the checker stopped finds nothing to do.",
    ),
    Row(
        _EXPIRED,
        Input.BACKGROUND,
        None,
        _EXPIRED,
        (),
        "Already out of focus.",
    ),
)


def check(rows: Sequence[Row]) -> None:
    """Check a table: every case decided once, every state reachable, every row explained.

    Raises:
        ValueError: the sentence names the row, state or input at fault.

    """
    seen: dict[tuple[SessionState, Input], Row] = {}
    for row in rows:
        if not row.why.strip():
            msg = f"{row} has no reason"
            raise ValueError(msg)
        if other := seen.get((row.source, row.input)):
            msg = f"{row} decides the same case as {other}"
            raise ValueError(msg)
        seen[row.source, row.input] = row
    for state in SessionState:
        for given in Input:
            # RESUME is sent to the expired state alone; elsewhere it must stay undecided.
            if ((state, given) in seen) != (given is not Input.RESUME or state is _EXPIRED):
                msg = f"input '{given}' in state '{state.value}' has {'a' if (state, given) in seen else 'no'} row"
                raise ValueError(msg)
    if unreachable := set(SessionState) - _reachable(rows):
        msg = f"no row leads to {sorted(state.value for state in unreachable)} from '{INITIAL.value}'"
        raise ValueError(msg)


def _reachable(rows: Iterable[Row]) -> set[SessionState]:
    reached = {INITIAL}
    while new := {row.destination for row in rows if row.source in reached} - reached:
        reached |= new
    return reached


check(TABLE)
