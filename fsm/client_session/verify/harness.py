"""The harness: a real session on a real save file, the oracle beside it, and what must hold after each step."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from client_session.graph import Command, Input
from client_session.lifecycle import Lifecycle
from client_session.testing import Driver, SessionOptions, check_invariants
from client_session.testing.invariants import require
from client_session.testing.strategies import START
from client_session.testing.trace import External
from client_session.verify.oracle import Numbered, Oracle
from client_session_persistence import Snapshot, XmlStore

if TYPE_CHECKING:
    from client_session.entity import SessionContext
    from client_session.testing.trace import Step
    from client_session.verify.tally import Tally

INVARIANTS = {
    "as foretold": "Each entity names session, index, previous session, first event and event number.",
    "one user": "Every entity, the session and the save file name one user, for ever.",
    "unbroken chain": "Indexes and previous sessions of all entities ever handed out form one chain, without gaps.",
    "one first event": "A session has one first event, with one time.",
    "events counted": "The events of a session are numbered 1, 2, 3… without gaps.",
    "no empty session": "No session without an event is counted, told of, or saved.",
    "pending readable": "A pending session has a new id at once, which its first event carries; it has no number.",
    "state": "The state is the one that the specification foretells.",
    "checker": "The checker runs exactly when it may, and ticks are asked for exactly then.",
    "follows the core": "The session is where the lifecycle core is after the same inputs at the same times.",
    "expires in": "expires_in is what remains of the timeout in force, and None while nothing can expire.",
    "told in order": "Each session is told to start once, and to end once at most, with its count of events.",
    "save file": "The file holds what a restart would need: the newest session, as far as it had to be saved.",
    "reading": "Reading changes nothing.",
}
"""Name and sentence of each; checked after every step."""


class Harness:
    """One run of a model-based test; `steps` is what happened so far."""

    def __init__(self, folder: Path, options: SessionOptions, tally: Tally) -> None:
        """Construct session and oracle on a new save file in ``folder``."""
        self.steps: list[Step] = []
        self.options = options
        self._tally = tally
        self._path = Path(folder) / "session.xml"
        self._driver = Driver(START, XmlStore(self._path), options)
        self._oracle = Oracle(options.foreground_timeout, options.background_timeout, options.continue_on_restart)
        self._core = self._new_core()
        self._contexts: list[SessionContext] = []
        self._ids: dict[int, str] = {}
        self._pending: str | None = None
        self._user = self._driver.session.user_id
        self._check()

    def apply(self, step: Step) -> None:
        """Apply a step to session and oracle, and check every invariant.

        Raises:
            InvariantError: one does not hold.

        """
        self._oracle.pass_time((step.at - self._driver.at).total_seconds())
        rows = self._tally.rows.copy()
        context = self._driver.apply(step)
        self.steps.append(step)
        numbered = self._foretell(step)
        if context is not None and numbered is not None:
            self._check_entity(context, numbered)
        self._follow(step)
        self._tally.keep_sample(rows, self.options, self.steps)
        self._check()

    def _foretell(self, step: Step) -> Numbered | None:
        oracle = self._oracle
        match step.input:
            case "event":
                return oracle.event(str(step.event_id))
            case "other":
                return oracle.other(str(step.event_id))
            case "timeouts":
                oracle.timeouts(step.foreground_timeout or 0.0, step.background_timeout or 0.0)
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
        return Lifecycle(options.foreground_timeout, options.background_timeout, now, observer=self._tally.count)

    def _follow(self, step: Step) -> None:
        """Apply a step to a lifecycle core of our own, whose rows are counted."""
        core, oracle, now = self._core, self._oracle, self._driver.clock.monotonic()
        match step.input:
            case Command.TIMEOUTS:
                core.set_timeouts(now, foreground=step.foreground_timeout)
                core.set_timeouts(now, background=step.background_timeout)
            case External.RESTART:
                core = self._core = self._new_core()
                if oracle.current is not None:
                    core.resume_saved(oracle.current.events, oracle.now - oracle.last_activity)
            case Input() | Command() as given:
                core.decide(given, now)
            case _:
                pass  # concerns the store or the wall clock

    def _check_entity(self, context: SessionContext, numbered: Numbered) -> None:
        expected_id = self._ids.setdefault(numbered.name, context.session_id)
        self._require(
            "as foretold",
            (
                context.session_id == expected_id
                and context.session_index == numbered.index
                and context.previous_session_id == self._id_of(numbered.previous)
                and context.first_event_id == numbered.first_event
                and context.event_index == numbered.events
            ),
            f"Foretold {numbered}, got {context}.",
        )
        if self.steps[-1].input == "event" and numbered.events == 1:
            known = self._pending is None or context.session_id == self._pending
            self._require("pending readable", known, f"Was {self._pending}, became {context.session_id}.")
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
        self._check_told()
        self._check_file()

    def _check_chain(self) -> None:
        check_invariants(self._contexts)
        self._tally.invariants.update(("one user", "unbroken chain", "one first event", "events counted"))
        users = {context.user_id for context in self._contexts} | {self._driver.session.user_id}
        self._require("one user", users == {self._user}, f"Was {self._user}, found {users}.")

    def _check_session(self) -> None:
        session, oracle = self._driver.session, self._oracle
        shown = (session.state.value, session.background)
        foretold = (oracle.state, not oracle.in_focus)
        self._require("state", shown == foretold, f"Foretold {foretold}, is {shown}.")
        running = (session.checker_running, session in self._driver.scheduler)
        self._require(
            "checker", running == (oracle.checking, oracle.checking), f"Foretold {oracle.checking}, is {running}"
        )
        for _ in range(2):  # twice, since reading must change nothing
            self._require(
                "expires in",
                session.expires_in == oracle.expires_in,
                f"Foretold {oracle.expires_in}, is {session.expires_in}.",
            )
        current = oracle.current
        numbers = (session.session_index, session.first_event_id, session.event_index, session.previous_session_id)
        if current is None:
            self._require("pending readable", numbers == (None, None, 0, None), f"Pending, but has {numbers}.")
            fresh = session.session_id not in self._ids.values()
            self._require("pending readable", fresh, f"{session.session_id} was had before.")
            self._pending = session.session_id
        else:
            foretold_numbers = (current.index, current.first_event, current.events, self._id_of(current.previous))
            same = numbers == foretold_numbers and session.session_id == self._ids[current.name]
            self._require("reading", same, f"Foretold {current}, shows {numbers}.")
            self._pending = None

    def _check_core(self) -> None:
        session, core = self._driver.session, self._core
        reached = (core.state, core.checker_running, core.event_count, core.expires_in(self._driver.clock.monotonic()))
        shown = (session.state, session.checker_running, session.event_index, session.expires_in)
        self._require("follows the core", shown == reached, f"The core is at {reached}, the session at {shown}.")

    def _check_told(self) -> None:
        started = [context.session_id for context in self._driver.started]
        ended = {summary.session_id: summary for summary in self._driver.ended}
        own = {context.session_id for context in self._contexts if context.session_id in started}
        self._require("no empty session", len(own) == len(started) == len(set(started)), f"Started: {started}.")
        once = len(ended) == len(self._driver.ended) == self._oracle.ended
        self._require("told in order", once, f"Foretold {self._oracle.ended}, ended: {self._driver.ended}.")
        counts = {context.session_id: context.event_index for context in self._contexts}
        right = all(counts.get(key) == summary.event_count for key, summary in ended.items())
        self._require("told in order", right, f"Ended with other counts: {self._driver.ended}.")

    def _check_file(self) -> None:
        saved, kept = XmlStore(self._path).load(), self._oracle.file
        user = saved and saved.user_id
        self._require("one user", user == self._user, f"The file has {user}, not {self._user}.")
        if kept is None:
            self._require("no empty session", saved == Snapshot(user_id=self._user), f"Saved without event: {saved}.")
            return
        foretold = Snapshot(
            user_id=self._user,
            session_id=self._ids[kept.name],
            previous_session_id=self._id_of(kept.previous),
            session_index=kept.index,
            first_event_id=kept.first_event,
            first_event_timestamp=START + timedelta(seconds=kept.first_time),
            event_index=kept.events,
            last_activity=None if kept.last_activity is None else START + timedelta(seconds=kept.last_activity),
        )
        self._require("save file", saved == foretold, f"Foretold {foretold}, holds {saved}.")
