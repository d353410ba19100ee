"""Exhaustive exploration of the lifecycle core: every input in every reachable state.

The core distinguishes only three ages of a session: below both timeouts, past the shorter one, and past both. That
leaves so few states that every edge can be checked: the exploration is a proof, not a sample.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from client_session.graph import ROWS, Command, EndReason, Input, SessionState
from client_session.lifecycle import Ended, Lifecycle, StateChanged
from client_session.testing.driver import SessionOptions
from client_session.testing.invariants import InvariantError, require
from client_session.testing.manual import START
from client_session.testing.strategies import make_step
from client_session.testing.trace import INPUTS
from client_session.verify.tally import Sample

if TYPE_CHECKING:
    from client_session.lifecycle import Decision
    from client_session.verify.tally import Tally

INVARIANTS = {
    "expired is idle": "In the expired state, checking has stopped and the session is pending.",
    "check first": "A session that has timed out ends before the next input is applied, with the end reason of the "
    "state in which it timed out.",
    "no early end": "A session ends only because of a timeout, a request for a new session, or `close`.",
    "pending never ends": "A pending session never ends (unless empty sessions count).",
    "tick is not activity": "A tick never postpones expiry.",
    "focus is not activity": "A focus change never postpones expiry.",
    "event is activity": "After an event, the session is not pending, its full timeout remains, and the checker runs.",
    "follows the table": "The state after an input is the destination of the matching row in the table.",
    "repeated tick": "A second tick at the same time changes nothing.",
    "lost tick": "A tick before an input does not change whether two events share a session.",
}

FOREGROUND, BACKGROUND, EXPIRED = SessionState


@attrs.frozen
class Key:
    """An abstract state of the core. ``age`` is the number of timeouts that have passed (0 to 2)."""

    state: SessionState
    checker_running: bool
    has_events: bool
    age: int
    background_is_shorter: bool
    count_empty_sessions: bool


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


def key_of(lifecycle: Lifecycle, now: float) -> Key:
    """Return the abstract state of a lifecycle whose timeouts are 1 and 2 seconds."""
    return Key(
        lifecycle.state,
        lifecycle.checker_running,
        lifecycle.event_count > 0,
        min(2, int(now - lifecycle.last_activity)),
        lifecycle.background_timeout < lifecycle.foreground_timeout,
        lifecycle.count_empty_sessions,
    )


def explore(tally: Tally) -> Exploration:
    """Explore every reachable state, and check the invariants on every edge.

    Raises:
        ExplorationError: an invariant is violated; the message names the state and the input.

    """
    starts = [
        Lifecycle(foreground, 3.0 - foreground, 0.0, count_empty_sessions=empty, observer=tally.count)
        for foreground in (2.0, 1.0)
        for empty in (False, True)
    ]
    unexplored: deque[_Node] = deque(_Node(lifecycle, 0.0, ()) for lifecycle in starts)
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
            before.foreground_timeout, before.background_timeout, count_empty_sessions=before.count_empty_sessions
        )
        steps = [make_step(START + timedelta(seconds=at), name, number) for number, (at, name) in enumerate(path)]
        rows = tally.rows.copy()
        try:
            decisions = successor.decide(given, self.now)
            if not before.count_empty_sessions:  # the report's samples all use this option's default
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
        require(invariant, holds, f"{key_of(self.before, self.now)}, {self.given}: {self.after}, {self.decisions}.")

    def check(self) -> None:
        before, after = self.before, self.after
        timed_out = self.now - before.last_activity >= before.timeout
        is_expiry_due = timed_out and before.checker_running and before.event_count > 0
        ended = [decision for decision in self.decisions if isinstance(decision, Ended)]
        if after.state is EXPIRED:
            self.require("expired is idle", not after.checker_running and not after.event_count)
        reason = EndReason.TIMEOUT if before.state is FOREGROUND else EndReason.BACKGROUND_TIMEOUT
        if is_expiry_due and self.given is not Command.START_CHECKER:
            first = self.decisions[0]
            self.require("check first", isinstance(first, Ended) and first.reason is reason and len(ended) == 1)
        elif self.given is Command.NEW_SESSION and before.event_count:
            self.require("no early end", [end.reason for end in ended] == [EndReason.NEW_SESSION])
        elif not before.count_empty_sessions:
            self.require("no early end", not ended)
        if not before.event_count and not before.count_empty_sessions:
            self.require("pending never ends", not ended)
        self._check_activity(renewed=bool(ended))
        self._check_table(checked=is_expiry_due)
        if self.given is Input.TICK:
            again = after.copy()
            unchanged = not again.decide(Input.TICK, self.now)
            self.require("repeated tick", unchanged and key_of(again, self.now) == key_of(after, self.now))
        else:
            self._check_lost_tick()

    def _check_activity(self, *, renewed: bool) -> None:
        before, after = self.before, self.after
        if self.given is Input.TICK and not renewed:
            self.require("tick is not activity", after.last_activity == before.last_activity)
        if self.given in FOCUS_CHANGES and not renewed:
            self.require("focus is not activity", after.last_activity == before.last_activity)
        if self.given is Input.EVENT:
            is_full = after.expires_in(self.now) == after.timeout
            self.require("event is activity", after.event_count and after.checker_running and is_full)

    def _check_table(self, *, checked: bool) -> None:
        given, state = self.given, self.before.state
        if given is Command.START_CHECKER and state is EXPIRED:
            given = Input.RESUME
        if isinstance(given, Command):
            return
        if checked and given is not Input.TICK:
            state = ROWS[state, Input.TICK].destination
        row = ROWS[state, given]
        timed_out = self.now - self.before.last_activity >= self.before.timeout
        applies = row.guard is None or (self.before.checker_running and timed_out)
        expected = row.destination if applies else state
        self.require("follows the table", self.after.state is expected)
        last = [decision.after for decision in self.decisions if isinstance(decision, StateChanged)][-1:]
        self.require("follows the table", last in ([], [expected]))

    def _check_lost_tick(self) -> None:
        ticked = self.before.copy()
        ended = any(
            isinstance(decision, Ended) and decision.event_count for decision in ticked.decide(Input.TICK, self.now)
        )
        ended |= any(isinstance(d, Ended) and d.event_count for d in ticked.decide(self.given, self.now))
        if self.given is not Command.START_CHECKER:
            ended_here = any(isinstance(decision, Ended) and decision.event_count for decision in self.decisions)
            self.require("lost tick", ended_here == ended and bool(ticked.event_count) == bool(self.after.event_count))
