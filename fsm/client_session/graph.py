"""The lifecycle graph, declared once: states, inputs, commands, and the table from which everything else is derived.

Two declarations list everything that can happen to a session: `TABLE`, the rows of the graph, and `Command`, the other
requests that an embedder can make. The state machine, the diagrams, traces, the history, the verification and the
documentation all use them. The table is checked on import: an invalid row raises an error that names the row.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SessionState(enum.StrEnum):
    """The state of a session's lifecycle."""

    FOREGROUND_ACTIVE = "foreground-active"
    """The app is in the foreground, and the foreground timeout applies."""
    BACKGROUND_ACTIVE = "background-active"
    """The app is in the background, and the background timeout applies."""
    EXPIRED_CHECKER_STOPPED = "expired-checker-stopped"
    """Expired in the background; nothing is left to check, so checking has stopped."""


class Input(enum.StrEnum):
    """An input that moves a session through the graph."""

    EVENT = "event"
    """An event was tracked."""
    PASSIVE = "passive"
    """An event was tracked that is not activity, such as a heartbeat or a crash report."""
    TICK = "tick"
    """A check ran to see whether the session has timed out."""
    BACKGROUND = "background"
    """The app lost focus."""
    FOREGROUND = "foreground"
    """The app gained focus."""
    RESUME = "resume"
    """The checker was started manually. This input is sent only in the expired state."""


class Command(enum.StrEnum):
    """A request that an embedder can make in addition to the inputs. Commands have no rows in the graph.

    Every command except `START_CHECKER` first performs the check that a tick would have performed.
    """

    TOUCH = "touch"
    """Report activity that is not an event."""
    NEW_SESSION = "new-session"
    """End the session manually."""
    START_CHECKER = "start-checker"
    """Start checking; an expired session gets `Input.RESUME`."""
    STOP_CHECKER = "stop-checker"
    """Suspend expiry."""
    TIMEOUTS = "timeouts"
    """Set the timeouts or the maximum duration."""
    FORGET = "forget"
    """End the session, and replace the user."""
    CLOSE = "close"
    """Stop permanently."""


class EndReason(enum.StrEnum):
    """Why a session ended."""

    TIMEOUT = "timeout"
    """Idle in the foreground."""
    BACKGROUND_TIMEOUT = "background-timeout"
    """Idle in the background."""
    MAX_DURATION = "max-duration"
    """The maximum duration was reached before a timeout."""
    NEW_SESSION = "new-session"
    """Ended manually, or a new run started and did not resume it."""
    FORGET = "forget"
    """The user was forgotten."""
    CLOSE = "close"
    """The session object was closed."""


class Guard(enum.StrEnum):
    """A condition that must be true for a row to apply."""

    IS_OVER = "over"
    """The time since the last activity is at least the state's timeout, or that since the session's first event is at
    least the maximum duration."""
    HAS_EVENTS = "has events"
    """The session is not pending."""


class Effect(enum.StrEnum):
    """An action that a row performs in addition to changing the state."""

    ACTIVITY = "activity"
    """Count the event, restart the timeout, and run the checker."""
    COUNT = "count"
    """Count the event only."""
    RENEW = "renew"
    """End a session that has events, and replace it with a pending one."""
    START_CHECKER = "start checker"
    """Start checking."""
    STOP_CHECKER = "stop checker"
    """Stop checking."""
    TOUCH = "touch if so configured"
    """Restart the timeout if focus changes are activity."""


@attrs.frozen
class Row:
    """One transition of the graph. ``destination`` equals ``source`` for an internal transition."""

    source: SessionState
    input: Input
    guard: Guard | None
    destination: SessionState
    effects: tuple[Effect, ...]
    why: str

    @property
    def label(self) -> str:
        """The row's label on an arrow, in UML notation: ``input [guard] / effect, effect``."""
        guard = f" [{self.guard}]" if self.guard else ""
        effects = f" / {', '.join(self.effects)}" if self.effects else ""
        return f"{self.input}{guard}{effects}"

    def __str__(self) -> str:
        """Return the row's name for error messages."""
        return f"row '{self.source}, {self.label} → {self.destination}'"


_FOREGROUND, _BACKGROUND, _EXPIRED = SessionState
_EVENT, _PASSIVE, _TICK, _TO_BACKGROUND, _TO_FOREGROUND, _RESUME = Input
_ACTIVITY, _COUNT, _RENEW, _START, _STOP, _TOUCH = Effect
_IS_OVER, _HAS_EVENTS = Guard

INITIAL = _FOREGROUND
"""The state of a new session object: a program starts in the foreground unless it says otherwise."""

# fmt: off
TABLE: tuple[Row, ...] = (
    Row(_FOREGROUND, _EVENT, None, _FOREGROUND, (_ACTIVITY,),
        "A session consists of tracked events."),
    Row(_FOREGROUND, _PASSIVE, _HAS_EVENTS, _FOREGROUND, (_COUNT,),
        "A heartbeat belongs to the current session, but neither begins nor extends one."),
    Row(_FOREGROUND, _TICK, _IS_OVER, _FOREGROUND, (_RENEW,),
        "The user is idle while the app is in focus. Checking continues, since the next session starts here."),
    Row(_FOREGROUND, _TO_BACKGROUND, None, _BACKGROUND, (_TOUCH,),
        "The app lost focus, so the background timeout now applies. Only if so configured, this is activity."),
    Row(_FOREGROUND, _TO_FOREGROUND, None, _FOREGROUND, (_START,),
        "The app is in focus already, but reporting focus always starts the checker."),
    Row(_BACKGROUND, _EVENT, None, _BACKGROUND, (_ACTIVITY,),
        "Background work (music, sync) is also activity, but it does not bring the app to the foreground."),
    Row(_BACKGROUND, _PASSIVE, _HAS_EVENTS, _BACKGROUND, (_COUNT,),
        "A sync job that is not activity does not keep the session alive in the background."),
    Row(_BACKGROUND, _TICK, _IS_OVER, _EXPIRED, (_RENEW, _STOP),
        "Expire once, then stop checking: a pending session in the background cannot expire."),
    Row(_BACKGROUND, _TO_FOREGROUND, None, _FOREGROUND, (_START, _TOUCH),
        "The user came back in time: the session continues with the foreground timeout."),
    Row(_BACKGROUND, _TO_BACKGROUND, None, _BACKGROUND, (),
        "No effect: already in the background."),
    Row(_EXPIRED, _EVENT, None, _BACKGROUND, (_START, _ACTIVITY),
        "The pending session gets its first event while still in the background, and must be checked again."),
    Row(_EXPIRED, _TO_FOREGROUND, None, _FOREGROUND, (_START,),
        "The user came back after the old session expired; the pending one waits for its first event."),
    Row(_EXPIRED, _RESUME, None, _BACKGROUND, (_START,),
        "The app called `start_checker()`; nothing else sends this input."),
    Row(_EXPIRED, _PASSIVE, None, _EXPIRED, (),
        "There is no session for the event to belong to, and a passive event does not begin one."),
    Row(_EXPIRED, _TICK, None, _EXPIRED, (),
        "A tick that was already running when checking stopped has nothing to do."),
    Row(_EXPIRED, _TO_BACKGROUND, None, _EXPIRED, (),
        "No effect: already in the background."),
)
# fmt: on

ROWS = {(row.source, row.input): row for row in TABLE}
"""The row for each state and input. A row applies only if its guard is true."""


def check(rows: Sequence[Row]) -> None:
    """Check that a table has one row per case, that every state is reachable, and that every row has a reason.

    Raises:
        ValueError: a check failed; the message names the row, state, or input.

    """
    seen: dict[tuple[SessionState, Input], Row] = {}
    for row in rows:
        if not row.why.strip():
            msg = f"{row} has no reason"
            raise ValueError(msg)
        if other := seen.get((row.source, row.input)):
            msg = f"{row} covers the same case as {other}"
            raise ValueError(msg)
        seen[row.source, row.input] = row
    for state in SessionState:
        for given in Input:
            # RESUME is sent only in the expired state; other states must have no row for it.
            if ((state, given) in seen) != (given is not Input.RESUME or state is _EXPIRED):
                msg = f"input '{given}' in state '{state}' has {'a' if (state, given) in seen else 'no'} row"
                raise ValueError(msg)
    if unreachable := set(SessionState) - _reachable_states(rows):
        msg = f"no row leads to {sorted(state.value for state in unreachable)} from '{INITIAL}'"
        raise ValueError(msg)


def _reachable_states(rows: Iterable[Row]) -> set[SessionState]:
    reached = {INITIAL}
    while new := {row.destination for row in rows if row.source in reached} - reached:
        reached |= new
    return reached


check(TABLE)
