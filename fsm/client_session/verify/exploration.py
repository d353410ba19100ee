"""Exhaustive exploration of the lifecycle core: every input in every reachable state.

All that matters about time is which limits have passed, and which of them passed first. That leaves so few states that
every edge can be checked: the exploration is a proof, not a sample.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from client_session.graph import ROWS, Command, EndReason, Guard, Input, SessionState
from client_session.lifecycle import Ended, Lifecycle, StateChanged
from client_session.testing.driver import SessionOptions
from client_session.testing.invariants import InvariantError
from client_session.testing.manual import START
from client_session.testing.strategies import make_step
from client_session.testing.trace import INPUTS
from client_session.verify.tally import Sample

if TYPE_CHECKING:
    from client_session.lifecycle import Decision
    from client_session.verify.tally import Tally

INVARIANTS = {
    "expired is idle": "In the expired state, checking has stopped and the session is pending.",
    "check first": "A session that has reached a limit ends before the next input is applied.",
    "first limit": "The reason of an end is the limit that was reached first, the timeout or the maximum duration; if "
    "both were reached at the same time, it is the timeout.",
    "no early end": "A session ends only because of a limit, a request for a new session, `forget_user`, or `close`.",
    "pending never ends": "A pending session never ends (unless empty sessions count).",
    "tick is not activity": "A tick never postpones expiry.",
    "focus is activity if configured": "A focus change between the active states restarts the timeout exactly if "
    "focus changes are configured as activity. Other focus changes never do.",
    "event is activity": "After an event, the session is not pending, its full timeout remains (unless the maximum "
    "duration is reached earlier), and the checker runs.",
    "passive is not activity": "A passive event is counted, but it never begins a session, restarts the timeout, or "
    "starts the checker.",
    "duration from first event": "Only a session's first event sets the time from which the maximum duration counts.",
    "follows the table": "The state after an input is the destination of the matching row in the table.",
    "repeated tick": "A second tick at the same time changes nothing.",
    "lost tick": "A tick before an input changes neither whether two events share a session nor why a session ended.",
}

FOREGROUND, BACKGROUND, EXPIRED = SessionState


SHORT, LONG = 1.0, 2.0
"""The timeouts, in seconds."""
MAX_DURATIONS = (math.inf, 1.0, 2.0, 3.0)
"""Below, at and above the timeouts. The longest can be reached before, after, and at the same time as each timeout."""


@attrs.frozen
class Key:
    """An abstract state of the core. Two lifecycles with the same key behave in the same way from then on.

    ``idle`` is the time since the last activity, up to the longer timeout. ``age`` is the time since the first event,
    and ``active`` is the part of it up to the last activity; both are at most the maximum duration, and ``None`` if it
    does not matter.
    """

    state: SessionState
    checker_running: bool
    has_events: bool
    idle: float
    age: float | None
    active: float | None
    background_is_shorter: bool
    count_empty_sessions: bool
    extend_on_focus_change: bool
    max_duration: float


@attrs.frozen
class Exploration:
    """The number of states and edges explored."""

    states: int
    edges: int


SIMPLE_INPUTS: tuple[Input | Command, ...] = tuple(
    given for given in (*Input, *Command) if given in INPUTS and given is not Command.TIMEOUTS
)
"""The inputs and commands that take no arguments."""
FOCUS_CHANGES = (Input.BACKGROUND, Input.FOREGROUND)
MANUAL_ENDS: dict[Input | Command, EndReason] = {
    Command.NEW_SESSION: EndReason.NEW_SESSION,
    Command.FORGET: EndReason.FORGET,
}


def key_of(lifecycle: Lifecycle, now: float) -> Key:
    """Return the abstract state of a lifecycle whose timeouts are `SHORT` and `LONG`."""
    limit = lifecycle.max_duration
    has_age = lifecycle.event_count > 0 and limit < math.inf
    return Key(
        lifecycle.state,
        lifecycle.checker_running,
        lifecycle.event_count > 0,
        min(LONG, now - lifecycle.last_activity),
        min(limit, now - lifecycle.started) if has_age else None,
        min(limit, lifecycle.last_activity - lifecycle.started) if has_age else None,
        lifecycle.background_timeout < lifecycle.foreground_timeout,
        lifecycle.count_empty_sessions,
        lifecycle.extend_on_focus_change,
        limit,
    )


def configurations(tally: Tally) -> list[Lifecycle]:
    """Return a new lifecycle at time 0 for each combination of options."""
    booleans = (False, True)
    return [
        Lifecycle(*timeouts, 0.0, count_empty_sessions, max_duration, extend_on_focus_change, observer=tally.count)
        for max_duration in MAX_DURATIONS
        for extend_on_focus_change in booleans
        for count_empty_sessions in booleans
        for timeouts in ((LONG, SHORT), (SHORT, LONG))
    ]


def explore(tally: Tally) -> Exploration:
    """Explore every reachable state, and check the invariants on every edge.

    Raises:
        ExplorationError: an invariant is violated; the message names the state and the input.

    """
    unexplored: deque[_Node] = deque(_Node(lifecycle, 0.0, ()) for lifecycle in configurations(tally))
    known_keys = {key_of(node.lifecycle, node.now) for node in unexplored}
    edges = 0
    while unexplored:
        node = unexplored.popleft()
        # Each edge represents one second of elapsed time or one input.
        successors = [_Node(node.lifecycle.copy(), node.now + 1.0, node.path)]
        successors += [node.after(given, tally) for given in SIMPLE_INPUTS]
        edges += len(successors)
        for successor in successors:
            key = key_of(successor.lifecycle, successor.now)
            if key not in known_keys:
                known_keys.add(key)
                unexplored.append(successor)
    return Exploration(len(known_keys), edges)


class ExplorationError(InvariantError):
    """An edge violates an invariant; ``sample`` is the shortest trace that ends with the edge."""

    def __init__(self, name: str, detail: str, sample: Sample) -> None:
        """Store the arguments as attributes."""
        super().__init__(name, detail)
        self.sample = sample


@attrs.frozen
class _Node:
    """A state and the shortest path to it. The search is breadth-first, so the first path found is the shortest."""

    lifecycle: Lifecycle
    now: float
    path: tuple[tuple[float, Input | Command], ...]

    def after(self, given: Input | Command, tally: Tally) -> _Node:
        before, successor = self.lifecycle, self.lifecycle.copy()
        path = (*self.path, (self.now, given))
        options = SessionOptions(
            before.foreground_timeout,
            before.background_timeout,
            count_empty_sessions=before.count_empty_sessions,
            extend_on_focus_change=before.extend_on_focus_change,
            max_duration=before.max_duration if math.isfinite(before.max_duration) else None,
        )
        steps = [make_step(START + timedelta(seconds=at), name, number) for number, (at, name) in enumerate(path)]
        rows = tally.rows.copy()
        try:
            decisions = successor.decide(given, self.now)
            # The report's samples all use the defaults of these options.
            if not (options.count_empty_sessions or options.extend_on_focus_change or options.max_duration):
                tally.keep_sample(rows, options, steps)
            _Edge(before, given, self.now, successor, decisions, tally).check()
        except InvariantError as error:
            raise ExplorationError(error.name, error.detail, Sample(options, steps)) from error
        return _Node(successor, self.now, path)


@attrs.frozen
class _Edge:
    before: Lifecycle
    given: Input | Command
    now: float
    after: Lifecycle
    decisions: tuple[Decision, ...]
    tally: Tally

    def require(self, invariant: str, holds: object) -> None:
        self.tally.invariants[invariant] += 1
        if not holds:
            before, after = key_of(self.before, self.now), key_of(self.after, self.now)
            raise InvariantError(invariant, f"{before}, {self.given}: {after}, {self.decisions}.")

    @property
    def idle_until(self) -> float:
        """The time at which the session times out."""
        return self.before.last_activity + self.before.timeout

    @property
    def is_over(self) -> bool:
        """Whether the session has reached a limit. A pending session has no age."""
        is_too_long = self.before.event_count > 0 and self.now - self.before.started >= self.before.max_duration
        return self.now >= self.idle_until or is_too_long

    def check(self) -> None:
        before, after, given = self.before, self.after, self.given
        is_expiry_due = self.is_over and before.checker_running and before.event_count > 0
        ended = [decision for decision in self.decisions if isinstance(decision, Ended)]
        if after.state is EXPIRED:
            self.require("expired is idle", not after.checker_running and not after.event_count)
        if is_expiry_due and given is not Command.START_CHECKER:
            first = self.decisions[0]
            self.require("check first", isinstance(first, Ended) and len(ended) == 1)
            timeout = EndReason.TIMEOUT if before.state is FOREGROUND else EndReason.BACKGROUND_TIMEOUT
            is_timeout_first = self.idle_until <= before.started + before.max_duration
            self.require("first limit", ended[0].reason is (timeout if is_timeout_first else EndReason.MAX_DURATION))
        elif given in MANUAL_ENDS and before.event_count:
            self.require("no early end", [end.reason for end in ended] == [MANUAL_ENDS[given]])
        elif not before.count_empty_sessions:
            self.require("no early end", not ended)
        if not before.event_count and not before.count_empty_sessions:
            self.require("pending never ends", not ended)
        self._check_activity(renewed=bool(ended))
        self._check_age(renewed=bool(ended))
        self._check_table(checked=is_expiry_due)
        if given is Input.TICK:
            again = after.copy()
            unchanged = not again.decide(Input.TICK, self.now)
            self.require("repeated tick", unchanged and key_of(again, self.now) == key_of(after, self.now))
        elif given is not Command.START_CHECKER:
            self._check_lost_tick()

    def _check_activity(self, *, renewed: bool) -> None:
        before, after, given = self.before, self.after, self.given
        if given is Input.TICK and not renewed:
            self.require("tick is not activity", after.last_activity == before.last_activity)
        if given in FOCUS_CHANGES and not renewed:
            is_change = given is {FOREGROUND: Input.BACKGROUND, BACKGROUND: Input.FOREGROUND}.get(before.state)
            is_activity = is_change and before.extend_on_focus_change
            expected = self.now if is_activity else before.last_activity
            self.require("focus is activity if configured", after.last_activity == expected)
        if given is Input.EVENT:
            remaining = min(after.timeout, after.started + after.max_duration - self.now)
            is_full = after.expires_in(self.now) == max(0.0, remaining)
            self.require("event is activity", after.event_count and after.checker_running and is_full)
        if given is Input.PASSIVE:
            count = before.event_count + 1 if before.event_count and not renewed else 0
            self.require("passive is not activity", after.event_count == count)
            self.require("passive is not activity", before.checker_running or not after.checker_running)
            self.require("passive is not activity", renewed or after.last_activity == before.last_activity)

    def _check_age(self, *, renewed: bool) -> None:
        if self.after.event_count:
            begins = renewed or not self.before.event_count
            is_begun_now = self.given is Input.EVENT and self.after.started == self.now
            is_kept = is_begun_now if begins else self.after.started == self.before.started
            self.require("duration from first event", is_kept)

    def _check_table(self, *, checked: bool) -> None:
        given, state = self.given, self.before.state
        if given is Command.START_CHECKER and state is EXPIRED:
            given = Input.RESUME
        if isinstance(given, Command):
            return
        if checked and given is not Input.TICK:
            state = ROWS[state, Input.TICK].destination
        row = ROWS[state, given]
        applies = row.guard is not Guard.IS_OVER or (self.before.checker_running and self.is_over)
        expected = row.destination if applies else state
        self.require("follows the table", self.after.state is expected)
        last = [decision.after for decision in self.decisions if isinstance(decision, StateChanged)][-1:]
        self.require("follows the table", last in ([], [expected]))

    def _check_lost_tick(self) -> None:
        ticked = self.before.copy()
        decisions = ticked.decide(Input.TICK, self.now) + ticked.decide(self.given, self.now)
        is_same = _ends(decisions) == _ends(self.decisions) and ticked.event_count == self.after.event_count
        self.require("lost tick", is_same)


def _ends(decisions: tuple[Decision, ...]) -> list[tuple[EndReason, int]]:
    """Return the reason and the number of events of each session that ended."""
    return [(each.reason, each.event_count) for each in decisions if isinstance(each, Ended) and each.event_count]
