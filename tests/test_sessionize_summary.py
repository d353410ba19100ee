"""The summary of a log: reasons and lengths are those of the lifecycle core, and the numbers of parts add up."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("polars", reason="needs polars")

from client_session.graph import Command, EndReason, Input
from client_session.input_log import CLOCK, REMEMBERED_EVENTS
from client_session.lifecycle import Ended, Lifecycle
from client_session.microseconds import microseconds
from client_session.sessionize.polars import carried_state, sessionize_parquet
from client_session.sessionize.settings import EVENTS, Settings
from client_session.sessionize.summary import LENGTHS, REASONS, STILL_OPEN, Summary
from client_session.verify.offline import FIRST_KINDS, SETTINGS, LogSettings, exhaustive_logs, expected, random_logs
from client_session.verify.polars_sessionizer import log_frame
from test_sessionize_polars import shuffled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session.input_log import InputRecord

GIVEN: dict[str, Input | Command] = {str(name): name for name in (*Input, *Command)}


class CoreUser:
    """A user's sessions, as the lifecycle core decides them: the reason of each end, and each length."""

    def __init__(self, chosen: Settings, first: InputRecord) -> None:
        """Begin at a user's first record."""
        self.chosen, self.shift = chosen, 0
        self.now = microseconds(first.time)
        self.core = self.new_core()
        self.event_ids: list[str] = []
        self.sessions: list[tuple[str, int]] = []

    def new_core(self) -> Lifecycle:
        """Return a core with no session."""
        chosen = self.chosen
        return Lifecycle(
            chosen.foreground_timeout,
            chosen.background_timeout,
            self.now,
            max_duration=chosen.max_duration,
            extend_on_focus_change=chosen.extend_on_focus_change,
        )

    def decide(self, given: Input | Command) -> None:
        """Apply an input to the core, and keep the session that it ends."""
        began = self.core.started
        for decision in self.core.decide(given, self.now):
            if isinstance(decision, Ended):
                self.sessions.append((decision.reason, int(decision.last_activity - began)))

    def add(self, record: InputRecord) -> None:
        """Apply a record."""
        if record.input == CLOCK:
            self.shift = self.now - microseconds(record.time)
            return
        self.now = microseconds(record.time) + self.shift
        if record.input in EVENTS:
            is_repeated = record.event_id in self.event_ids[-REMEMBERED_EVENTS:]
            self.event_ids.append(str(record.event_id))
            if is_repeated:
                return
        if record.input == "start":
            self.decide(Command.NEW_SESSION)
        else:
            self.decide(GIVEN[record.input])
        if record.input in {"start", Command.FORGET}:
            self.core = self.new_core()

    def close(self) -> list[tuple[str, int]]:
        """Return all sessions, with the open one."""
        core = self.core
        return [*self.sessions, *[(STILL_OPEN, int(core.last_activity - core.started))] * (core.event_count > 0)]


def core_summary(records: list[InputRecord], chosen: LogSettings) -> Summary:
    """Return the summary of a log by the core and the fold."""
    checked = Settings.checked(**attrs.asdict(chosen))
    users: dict[str, CoreUser] = {}
    for record in records:
        users.setdefault(record.user_id, CoreUser(checked, record)).add(record)
    sessions = [session for user in users.values() for session in user.close()]
    reasons = Counter(reason for reason, _ in sessions)
    bars = Counter(max(least for least, _ in LENGTHS if least <= length) for _, length in sessions)
    events = sum(record.input in EVENTS for record in records)
    repeated = sum(len(user.event_ids) - len(unrepeated(user.event_ids)) for user in users.values())
    placed = len(expected(records, chosen)[0])
    return Summary(
        len(users),
        events,
        repeated,
        events - repeated - placed,
        len(sessions),
        0,
        tuple(reasons[name] for name in REASONS),
        tuple(bars[least] for least, _ in LENGTHS),
    )


def unrepeated(event_ids: list[str]) -> list[str]:
    """Return the ids that are not among the eight before them."""
    return [name for at, name in enumerate(event_ids) if name not in event_ids[max(0, at - REMEMBERED_EVENTS) : at]]


def summary_of(records: Iterable[InputRecord], chosen: LogSettings, **options: Any) -> Summary:  # noqa: ANN401  # arguments of sessionize_parquet
    """Sessionize a log in any order, and return the summary."""
    with tempfile.TemporaryDirectory() as folder:
        log = shuffled(log_frame(records)).lazy()
        return sessionize_parquet(log, Path(folder) / "sessions", **attrs.asdict(chosen), **options)


@pytest.mark.parametrize("chosen", SETTINGS)
def test_summary_of_every_short_log_equals_the_core(chosen: LogSettings) -> None:
    """All logs of three inputs have the users, events, sessions, reasons of ends and lengths that the core decides.

    Of the first inputs that change nothing, one stands for the others: what follows it is a shorter log.
    """
    first_kinds = {*FIRST_KINDS, Input.FOREGROUND}
    logs = exhaustive_logs(3, gaps=(0, 1, 2, 3, 4))
    records = [record for log in logs if log[0].input in first_kinds for record in log]
    assert summary_of(records, chosen, partitions=3) == core_summary(records, chosen)


@settings(max_examples=40, deadline=None)
@given(random_logs(), st.sampled_from(SETTINGS))
def test_summary_of_random_logs_equals_the_core(records: list[InputRecord], chosen: LogSettings) -> None:
    """Logs with ties, repeated events, clocks that are set back, starts and forgotten users do too."""
    assert summary_of(records, chosen) == core_summary(records, chosen)


@settings(max_examples=40, deadline=None)
@given(random_logs(), st.sampled_from(SETTINGS), st.data())
def test_summaries_of_incremental_runs_add_up(
    records: list[InputRecord], chosen: LogSettings, data: st.DataObject
) -> None:
    """Each end is counted in the run that has the input that found it, and carried sessions are not begun again."""
    split = data.draw(st.integers(0, len(records)))
    before, after = records[:split], records[split:]
    carried = carried_state(log_frame(before), **attrs.asdict(chosen))
    first, second = summary_of(before, chosen), summary_of(after, chosen, carried=carried)
    whole = core_summary(records, chosen)
    assert first.sessions + second.sessions - second.carried_sessions == whole.sessions
    is_open = REASONS.index(STILL_OPEN)
    ends = [one + other for one, other in zip(first.reasons, second.reasons, strict=True)]
    assert ends[:is_open] == list(whole.reasons[:is_open])
    assert first.repeated_events + second.repeated_events == whole.repeated_events
    assert first.events_without_session + second.events_without_session == whole.events_without_session
    absent = {record.user_id for record in before} - {record.user_id for record in after}
    open_before = sum(not state.is_over for state in expected(before, chosen)[1] if state.user_id in absent)
    assert second.reasons[is_open] + open_before == whole.reasons[is_open]


def test_reasons_are_those_of_the_core() -> None:
    """Every reason for which sessions of a log can end has its number; only `close` is never in a log."""
    assert set(REASONS) == {*EndReason} - {EndReason.CLOSE} | {STILL_OPEN}
