"""Model-based test: applies random inputs in random order to the oracle and to a session with a real save file."""

from __future__ import annotations

import math
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from client_session.graph import Command, Input
from client_session.lifecycle import Lifecycle
from client_session.testing.driver import Driver, SessionOptions
from client_session.testing.invariants import check_invariants, require
from client_session.testing.manual import START
from client_session.testing.strategies import GAPS, MAX_DURATIONS, WALL_SHIFTS, make_step
from client_session.testing.trace import INPUTS, External
from client_session.verify.log_check import LogCheck
from client_session.verify.oracle import ExpectedSession, Options, Oracle
from client_session.verify.tally import Tally
from client_session_persistence import Snapshot, XmlStore

if TYPE_CHECKING:
    from datetime import datetime

    from client_session.entity import SessionContext
    from client_session.testing.trace import Step

INVARIANTS = {
    "matches the oracle": "Each entity matches the oracle: session, index, previous session, first event, event index.",
    "one user": "Until forget_user is called, every entity, the session and the save file have the same user. Then "
    "they have a new user, who starts at index 1, and the file contains nothing else.",
    "unbroken chain": "The indexes and previous sessions of a user's entities form one chain without gaps.",
    "one first event": "All entities of a session have the same first event, with the same time.",
    "events counted": "The events of a session are numbered 1, 2, 3… without gaps.",
    "no empty session": "A session without events is never counted, reported or saved.",
    "pending readable": "A pending session has no index, and has a new id that it keeps at its first event.",
    "state": "The session and the oracle are in the same state.",
    "checker": "The checker runs, and the scheduler ticks the session, exactly when the oracle expects that.",
    "follows the core": "The session matches a lifecycle core that received the same inputs at the same times.",
    "expires in": "expires_in is the time left until the first limit, or None while the session cannot expire.",
    "callbacks in order": "Each start and each end is reported once, in order, with the correct reason and number of "
    "events. A restart reports the end of a saved session that it does not resume.",
    "log of inputs": "A fold over the records of on_input gives each event the same session, indexes and first event "
    "as its entity. Each record has the current user, and the records of a run are numbered 0, 1, 2…",
    "save file": "The file contains the newest session, with the progress that a restart needs.",
    "reading": "Reading the session's properties does not change them.",
}
"""The name and meaning of each invariant. The test checks all of them after every step."""


class Harness:
    """One run of the model-based test. `steps` lists the steps applied so far."""

    def __init__(self, folder: Path, options: SessionOptions, tally: Tally, *, logs_inputs: bool = False) -> None:
        """Construct the oracle, and a session with a new save file in ``folder``.

        A session that logs its inputs does not use the short path for events.
        """
        self.steps: list[Step] = []
        self.options = options
        self._tally = tally
        self._path = Path(folder) / "session.xml"
        self._log = LogCheck(options) if logs_inputs else None
        self._driver = Driver(START, XmlStore(self._path), options, None if self._log is None else self._log.receive)
        self._oracle = Oracle(
            Options(
                options.foreground_timeout,
                options.background_timeout,
                _limit(options.max_duration),
                options.extend_on_focus_change,
                options.continue_on_restart,
            )
        )
        self._core = self._new_core()
        self._contexts: list[SessionContext] = []
        """The entities of the current user."""
        self._ids: dict[int, str] = {}
        self._pending: str | None = None
        self._user = self._driver.session.user_id
        if self._log is not None:
            self._require("log of inputs", not (fault := self._log.start(self._user)), fault)
        self._check()

    def apply(self, step: Step) -> None:
        """Apply a step to the session and the oracle, and check every invariant.

        Raises:
            InvariantError: an invariant does not hold.

        """
        self._oracle.pass_time((step.at - self._driver.at).total_seconds())
        rows = self._tally.rows.copy()
        context = self._driver.apply(step)
        self.steps.append(step)
        expected = self._apply_to_oracle(step)
        self._require(
            "matches the oracle", (context is None) == (expected is None), f"Expected {expected}, got {context}."
        )
        if self._log is not None:
            self._require("log of inputs", not (fault := self._log.compare(step, self._user, context)), fault)
        if step.input == "forget":
            old, self._user = self._user, self._driver.session.user_id
            self._require("one user", self._user != old, f"{old} is still the user.")
            self._contexts.clear()
        if context is not None and expected is not None:
            self._check_entity(context, expected)
        self._apply_to_core(step)
        self._tally.keep_sample(rows, self.options, self.steps)
        self._check()

    def _apply_to_oracle(self, step: Step) -> ExpectedSession | None:
        oracle = self._oracle
        match step.input:
            case "event":
                return oracle.event(str(step.event_id))
            case "passive":
                return oracle.passive()
            case "other":
                return oracle.event_elsewhere(str(step.event_id))
            case "timeouts":
                oracle.timeouts(*_limits(step))
            case "wall":
                oracle.set_wall(((step.to or step.at) - START).total_seconds())
            case "sleep":
                pass
            case name:
                getattr(oracle, name.replace("-", "_"))()
        return None

    def _new_core(self) -> Lifecycle:
        options = self.options
        now = self._driver.clock.monotonic()
        return Lifecycle(
            options.foreground_timeout,
            options.background_timeout,
            now,
            max_duration=_limit(options.max_duration),
            extend_on_focus_change=options.extend_on_focus_change,
            observer=self._tally.count,
        )

    def _apply_to_core(self, step: Step) -> None:
        """Apply a step to a separate lifecycle core, which counts the rows that are taken."""
        core, oracle, now = self._core, self._oracle, self._driver.clock.monotonic()
        match step.input:
            case Command.TIMEOUTS:
                core.set_limits(now, foreground_timeout=step.foreground_timeout)
                core.set_limits(now, background_timeout=step.background_timeout)
                core.set_limits(now, max_duration=step.max_duration)
            case External.RESTART:
                core = self._core = self._new_core()
                if oracle.current is not None:
                    ages = oracle.now - oracle.last_activity, oracle.now - oracle.started
                    core.resume_saved(oracle.current.events, *ages)
            case Input() | Command() as given:
                core.decide(given, now)
            case _:
                pass  # affects only the store or the wall clock

    def _check_entity(self, context: SessionContext, expected: ExpectedSession) -> None:
        expected_id = self._ids.setdefault(expected.name, context.session_id)
        self._require(
            "matches the oracle",
            (
                context.session_id == expected_id
                and context.session_index == expected.index
                and context.previous_session_id == self._id_of(expected.previous)
                and context.first_event_id == expected.first_event
                and context.event_index == expected.events
            ),
            f"Expected {expected}, got {context}.",
        )
        if self.steps[-1].input == "event" and expected.events == 1:
            is_kept = self._pending is None or context.session_id == self._pending
            self._require("pending readable", is_kept, f"Expected {self._pending}, got {context.session_id}.")
        self._contexts.append(context)

    def _id_of(self, name: int | None) -> str | None:
        return None if name is None else self._ids[name]

    def _require(self, name: str, holds: object, detail: str) -> None:
        self._tally.invariants[name] += 1
        require(name, holds, detail)

    def _check(self) -> None:
        self._check_chain()
        self._check_session()
        self._check_core()
        self._check_callbacks()
        self._check_file()

    def _check_chain(self) -> None:
        check_invariants(self._contexts)
        self._tally.invariants.update(("one user", "unbroken chain", "one first event", "events counted"))
        users = {context.user_id for context in self._contexts} | {self._driver.session.user_id}
        self._require("one user", users == {self._user}, f"Expected {self._user}, got {users}.")

    def _check_session(self) -> None:
        session, oracle = self._driver.session, self._oracle
        actual = (session.state.value, session.background)
        expected = (oracle.state, not oracle.in_focus)
        self._require("state", actual == expected, f"Expected {expected}, got {actual}.")
        running = (session.checker_running, session in self._driver.scheduler)
        self._require(
            "checker", running == (oracle.checking, oracle.checking), f"Expected {oracle.checking}, got {running}."
        )
        for _ in range(2):  # twice, since reading must not change the value
            self._require(
                "expires in",
                session.expires_in == oracle.expires_in,
                f"Expected {oracle.expires_in}, got {session.expires_in}.",
            )
        current = oracle.current
        numbers = (session.session_index, session.first_event_id, session.event_index, session.previous_session_id)
        if current is None:
            self._require("pending readable", numbers == (None, None, 0, None), f"The pending session has {numbers}.")
            is_new = session.session_id not in self._ids.values()
            self._require("pending readable", is_new, f"{session.session_id} is not new.")
            self._pending = session.session_id
        else:
            expected_numbers = (current.index, current.first_event, current.events, self._id_of(current.previous))
            is_same = numbers == expected_numbers and session.session_id == self._ids[current.name]
            self._require("reading", is_same, f"Expected {current}, got {numbers}.")
            self._pending = None

    def _check_core(self) -> None:
        session, core = self._driver.session, self._core
        expected = (core.state, core.checker_running, core.event_count, core.expires_in(self._driver.clock.monotonic()))
        actual = (session.state, session.checker_running, session.event_index, session.expires_in)
        self._require("follows the core", actual == expected, f"The core has {expected}, but the session has {actual}.")

    def _check_callbacks(self) -> None:
        started = [context.session_id for context in self._driver.started]
        ended = self._driver.ended
        is_known = set(started) <= set(self._ids.values())
        self._require("no empty session", is_known and len(started) == len(set(started)), f"Started: {started}.")
        expected = [(self._ids[name], reason) for name, reason in self._oracle.ended]
        actual = [(summary.session_id, summary.reason.value) for summary in ended]
        self._require("callbacks in order", actual == expected, f"Expected {expected}, got {actual}.")
        is_unique = len(ended) == len({summary.session_id for summary in ended})
        self._require("callbacks in order", is_unique, f"An end was reported twice: {actual}.")
        counts = {context.session_id: context.event_index for context in self._contexts}
        is_correct = all(counts.get(each.session_id, each.event_count) == each.event_count for each in ended)
        self._require("callbacks in order", is_correct, f"Wrong event counts: {ended}.")
        is_ordered = all(each.first_event_time <= each.last_event_time <= each.last_activity_time for each in ended)
        self._require("callbacks in order", is_ordered, f"Times out of order: {ended}.")

    def _check_file(self) -> None:
        saved, expected = XmlStore(self._path).load(), self._oracle.file
        user = saved and saved.user_id
        self._require("one user", user == self._user, f"Expected {self._user}, but the file has {user}.")
        if expected is None:
            self._require("no empty session", saved == Snapshot(user_id=self._user), f"Saved without events: {saved}.")
            return
        snapshot = Snapshot(
            user_id=self._user,
            session_id=self._ids[expected.name],
            previous_session_id=self._id_of(expected.previous),
            session_index=expected.index,
            first_event_id=expected.first_event,
            first_event_timestamp=_time(expected.first_time),
            event_index=expected.events,
            last_activity=_time(expected.last_activity),
            session_start=_time(expected.start),
            background=expected.background,
        )
        self._require("save file", saved == snapshot, f"Expected {snapshot}, got {saved}.")


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def _limit(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _limits(step: Step) -> tuple[float, float, float]:
    return step.foreground_timeout or 0.0, step.background_timeout or 0.0, step.max_duration or 0.0


FOCUS_CHANGES = (Input.BACKGROUND, Input.FOREGROUND)
OTHER_INPUTS = tuple(
    given
    for given in INPUTS
    if given
    not in {Input.EVENT, Input.PASSIVE, Input.TICK, *FOCUS_CHANGES, Command.TIMEOUTS, External.START, External.WALL}
)
TIMEOUTS = st.sampled_from([(600.0, 300.0), (300.0, 600.0), (0.25, 0.25), (30.0, 1e9)])
OPTIONS: st.SearchStrategy[SessionOptions] = TIMEOUTS.flatmap(
    lambda timeouts: st.builds(
        SessionOptions,
        *map(st.just, timeouts),
        continue_on_restart=st.booleans(),
        extend_on_focus_change=st.booleans(),
        max_duration=MAX_DURATIONS,
    )
)


class SessionModel(RuleBasedStateMachine):
    """A session driven by Hypothesis. Each rule lets time pass, then applies an input."""

    tally: ClassVar[Tally] = Tally()
    """The tally of the run. Each verification replaces it with its own tally."""
    last_run: ClassVar[tuple[SessionOptions, list[Step]]] = (SessionOptions(), [])
    """The options and steps of the last run; after a failure, those of the shortest failing run."""

    @initialize(options=OPTIONS, logs_inputs=st.booleans())
    def construct(self, options: SessionOptions, *, logs_inputs: bool) -> None:
        """Construct a session with a new save file."""
        self.folder = tempfile.TemporaryDirectory(prefix="client-session-verify-")
        self.harness = Harness(Path(self.folder.name), options, self.tally, logs_inputs=logs_inputs)
        self.at = START
        type(self).last_run = (options, self.harness.steps)

    def teardown(self) -> None:
        """Remove the save file."""
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _apply(
        self, name: str, gap: float, *, shift: float = 0.0, timeout: float = 0.0, max_duration: float | None = None
    ) -> None:
        self.at += timedelta(seconds=gap)
        number = len(self.harness.steps)
        step = make_step(self.at, name, number, shift=shift, timeout=timeout, max_duration=max_duration)
        # Record the step before applying it, so that a trace includes the step that fails.
        type(self).last_run = (self.harness.options, [*self.harness.steps, step])
        self.harness.apply(step)

    @rule(gap=GAPS)
    def event(self, gap: float) -> None:
        """Track an event."""
        self._apply("event", gap)

    @rule(gap=GAPS)
    def passive(self, gap: float) -> None:
        """Track a passive event."""
        self._apply("passive", gap)

    @rule(gap=GAPS, name=st.sampled_from(FOCUS_CHANGES))
    def change_focus(self, gap: float, name: str) -> None:
        """Go to the background or the foreground."""
        self._apply(name, gap)

    @rule(gap=GAPS, times=st.integers(1, 2))
    def tick(self, gap: float, times: int) -> None:
        """Tick early, late or twice. The other rules never tick, so ticks can also be missed."""
        for _ in range(times):
            self._apply("tick", gap)
            gap = 0.0

    @rule(gap=GAPS, name=st.sampled_from(OTHER_INPUTS))
    def other_input(self, gap: float, name: str) -> None:
        """Apply any other input that has no arguments: a command, restart, sleep, or another process's event."""
        self._apply(name, gap)

    @rule(gap=GAPS, timeout=GAPS, max_duration=MAX_DURATIONS)
    def timeouts(self, gap: float, timeout: float, max_duration: float | None) -> None:
        """Change the timeouts and the maximum duration."""
        self._apply("timeouts", gap, timeout=timeout, max_duration=max_duration)

    @rule(gap=GAPS, shift=WALL_SHIFTS)
    def wall(self, gap: float, shift: float) -> None:
        """Set the wall clock."""
        self._apply("wall", gap, shift=shift)
