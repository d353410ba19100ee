"""Replaying a trace on a virtual clock."""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given

from client_session import Input, SessionState
from client_session.graph import TABLE
from client_session.machine import send
from client_session.testing import SessionOptions, check_invariants, traces
from client_session.testing.replay import Moment, Replay
from client_session.testing.trace import Step, read_trace
from client_session.verify.schedules import OPTIONS
from client_session_persistence import MemoryStore, XmlStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session.entity import EntityData
    from client_session.input_log import InputRecord
    from client_session.machine import Cursor

EXAMPLE = Path(__file__).parents[1] / "examples" / "desktop_day.jsonl"
START = datetime.fromisoformat("2026-11-23T09:00:00Z")


def steps(*inputs: tuple[float, str]) -> list[Step]:
    """Return a trace of inputs, each given as seconds since the start and a name."""
    return [
        Step(START + timedelta(seconds=at), name, event_id(number) if name == "event" else None)
        for number, (at, name) in enumerate(inputs)
    ]


def replay(*inputs: tuple[float, str], **options: float) -> list[Moment]:
    """Replay inputs with an in-memory store, and return the resulting moments."""
    return list(Replay(steps(*inputs), MemoryStore(), SessionOptions(**options)).run())  # type: ignore[arg-type]  # durations


def test_example_day_covers_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example has about 60 inputs and covers every row of the graph."""
    covered: set[tuple[SessionState, Input]] = set()

    def record(cursor: Cursor, input_: Input) -> None:
        covered.add((cursor.state, input_))
        send(cursor, input_)

    monkeypatch.setattr("client_session.lifecycle.send", record)
    day = read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name)
    assert 55 <= len(day) <= 75
    moments = list(Replay(day, MemoryStore(), SessionOptions()).run())
    # Events that do not change the state take the short path and bypass the machine.
    covered |= {(moment.state, Input(moment.input)) for moment in moments if moment.context and moment.event_index > 1}
    assert covered == {(row.source, row.input) for row in TABLE}


def test_example_day_has_no_empty_sessions() -> None:
    """Sessions are numbered 1, 2, 3…, and every session has ended by the end of the replay."""
    day = read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name)
    moments = list(Replay(day, MemoryStore(), SessionOptions()).run())
    begun = [moment.session_index for moment in moments if any(each.begun for each in moment.explanations)]
    assert begun == list(range(1, len(begun) + 1))
    assert [summary.session_index for moment in moments for summary in moment.ended] == begun


def test_only_effective_ticks_are_shown() -> None:
    """The first scheduled tick after the timeout ends the session; other ticks are not shown."""
    moments = replay((0, "event"), (7, "event"), (2000, "touch"))
    assert [(moment.input, (moment.at - START).total_seconds()) for moment in moments] == [
        ("event", 0),
        ("event", 7),
        ("tick", 615),
        ("touch", 2000),
        ("close", 2000),
    ]
    assert moments[2].ended[0].reason == "timeout"


def test_no_ticks_run_during_sleep() -> None:
    """After the system sleeps, the next input ends a session that timed out."""
    moments = replay((0, "event"), (10, "sleep"), (5000, "event"))
    assert [moment.input for moment in moments] == ["event", "sleep", "event", "close"]
    assert moments[2].ended[0].session_index == 1
    assert moments[2].session_index == 2


def test_every_input_is_applied() -> None:
    """Background, foreground, touch, restart, start-checker and tick all take effect."""
    moments = replay(
        (0, "background"), (1, "foreground"), (2, "event"), (500, "touch"), (1000, "event"), (1001, "restart"),
        (1002, "event"), (1003, "background"), (3000, "tick"), (3001, "start-checker"),
    )  # fmt: skip
    observed = [(moment.input, moment.state, moment.session_index, moment.event_index) for moment in moments]
    foreground, background, expired = SessionState
    assert observed == [
        ("background", background, None, 0),
        ("foreground", foreground, None, 0),
        ("event", foreground, 1, 1),
        ("touch", foreground, 1, 1),
        ("event", foreground, 1, 2),
        ("restart", foreground, None, 0),
        ("event", foreground, 2, 1),
        ("background", background, 2, 1),
        ("tick", expired, None, 0),
        ("tick", expired, None, 0),
        ("start-checker", background, None, 0),
        ("close", background, None, 0),
    ]


@pytest.mark.parametrize(
    ("setting", "indexes"), [({"foreground_timeout": 60.0}, [1, 2, 2]), ({"background_timeout": 60.0}, [1, 1, 2])]
)
def test_timeouts_can_change_independently(setting: dict[str, Any], indexes: list[int]) -> None:
    """A step that sets one timeout leaves the other unchanged."""
    trace = steps((0, "event"), (1, "timeouts"), (101, "event"), (102, "background"), (202, "event"))
    trace[1] = attrs.evolve(trace[1], **setting)
    moments = Replay(trace, MemoryStore(), SessionOptions()).run()
    assert [moment.session_index for moment in moments if moment.input == "event"] == indexes


def entities(
    trace: list[Step], options: SessionOptions, on_input: Callable[[InputRecord], object] | None = None
) -> list[EntityData]:
    """Replay a trace and return the data of its entities."""
    moments = Replay(trace, MemoryStore(), options, on_input=on_input).run()
    return [moment.context.data for moment in moments if moment.context]


@given(traces(several_runs=True, several_users=True))
def test_any_trace_can_be_written_read_and_replayed(trace: list[Step]) -> None:
    """A random trace survives a round trip through JSON, and the replayed entities satisfy the session invariants."""
    lines = [step.to_json().encode() for step in trace]
    assert read_trace(lines, "random") == trace
    contexts = [moment.context for moment in Replay(trace, MemoryStore(), SessionOptions()).run() if moment.context]
    for _, group in itertools.groupby(contexts, key=attrgetter("user_id")):
        check_invariants(group)


@given(traces(several_runs=True, several_users=True), OPTIONS)
def test_log_of_a_replay_has_the_same_sessions(trace: list[Step], options: SessionOptions) -> None:
    """A log that a replay writes can be replayed: each event has the same place in the same session.

    A log does not contain changes of the limits, the wall clock, or other processes. Even if the first run resumed
    sessions after restarts, its log needs no option.
    """
    trace = [step for step in trace if step.input not in {"timeouts", "wall", "other"}] or [Step(START, "start")]
    options = attrs.evolve(options, count_empty_sessions=False)
    log: list[InputRecord] = []
    first = entities(trace, options, log.append)
    lines = [record.to_json().encode() for record in log]
    second = entities(read_trace(lines, "log"), attrs.evolve(options, continue_on_restart=False))
    assert [place(data) for data in first] == [place(data) for data in second]


def place(data: EntityData) -> tuple[object, ...]:
    """Return what identifies an event's session and its place in it, without random ids."""
    return data["sessionIndex"], data["eventIndex"], data["firstEventId"], data["firstEventTimestamp"]


def test_a_century_of_idle_time_replays_quickly() -> None:
    """Ticks that cannot change anything are skipped."""
    start = time.monotonic()
    moments = replay((0, "event"), (100 * 365 * 86400, "event"))
    assert time.monotonic() - start < 5
    assert [moment.session_index for moment in moments if moment.input == "event"] == [1, 2]


def test_replays_with_the_same_file_share_the_user(save_path: Path) -> None:
    """A second run with the same file keeps the user and continues the numbering."""
    runs = [
        list(Replay(steps((0, "event"), (1000, "event")), XmlStore(save_path), SessionOptions()).run())
        for _ in range(2)
    ]
    contexts = [moment.context for run in runs for moment in run if moment.context]
    assert len({context.user_id for context in contexts}) == 1
    assert [context.session_index for context in contexts] == [1, 2, 3, 4]
