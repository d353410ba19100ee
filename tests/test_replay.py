"""Replaying a trace on a virtual clock."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from client_session import Input, SessionState
from client_session.graph import TABLE
from client_session.machine import send
from client_session.testing import SessionOptions
from client_session.testing.replay import Moment, Replay
from client_session.testing.trace import Step, read_trace
from client_session_persistence import MemoryStore, XmlStore
from event_ids import event_id

if TYPE_CHECKING:
    import pytest

    from client_session.machine import Cursor

EXAMPLE = Path(__file__).parents[1] / "examples" / "desktop_day.jsonl"
START = datetime.fromisoformat("2026-11-23T09:00:00Z")


def steps(*inputs: tuple[float, str]) -> list[Step]:
    """Return a trace of inputs at seconds after the start."""
    return [
        Step(START + timedelta(seconds=at), name, event_id(number) if name == "event" else None)
        for number, (at, name) in enumerate(inputs)
    ]


def replay(*inputs: tuple[float, str], **options: float) -> list[Moment]:
    """Return what is seen of a trace, in memory."""
    return list(Replay(steps(*inputs), MemoryStore(), SessionOptions(**options)).run())  # type: ignore[arg-type]  # durations


def test_the_example_day_shows_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """About 60 inputs, and each row of the graph is gone through."""
    gone_through: set[tuple[SessionState, Input]] = set()

    def watch(cursor: Cursor, given: Input) -> None:
        gone_through.add((cursor.state, given))
        send(cursor, given)

    monkeypatch.setattr("client_session.lifecycle.send", watch)
    day = read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name)
    assert 55 <= len(day) <= 75
    moments = list(Replay(day, MemoryStore(), SessionOptions()).run())
    # Events that change no state take the short path, past the machine.
    gone_through |= {(moment.state, Input.EVENT) for moment in moments if moment.context and moment.event_index > 1}
    assert gone_through == {(row.source, row.input) for row in TABLE}


def test_the_example_day_makes_no_empty_sessions() -> None:
    """Sessions are numbered 1, 2, 3… and each that began has ended at the close."""
    day = read_trace(EXAMPLE.read_bytes().splitlines(), EXAMPLE.name)
    moments = list(Replay(day, MemoryStore(), SessionOptions()).run())
    begun = [moment.session_index for moment in moments if moment.begun]
    assert begun == list(range(1, len(begun) + 1))
    assert [summary.session_index for moment in moments for summary in moment.ended] == begun


def test_ticks_come_where_they_would_have_come() -> None:
    """A session ends at the first multiple of the interval that finds it timed out, and only such ticks are shown."""
    moments = replay((0, "event"), (7, "event"), (2000, "touch"))
    assert [(moment.input, (moment.at - START).total_seconds()) for moment in moments] == [
        ("event", 0),
        ("event", 7),
        ("tick", 615),
        ("touch", 2000),
        ("close", 2000),
    ]
    assert moments[2].ended[0].reason == "timeout"


def test_no_tick_comes_while_the_machine_sleeps() -> None:
    """After sleep the next input notices what time it is."""
    moments = replay((0, "event"), (10, "sleep"), (5000, "event"))
    assert [moment.input for moment in moments] == ["event", "sleep", "event", "close"]
    assert moments[2].ended[0].session_index == 1
    assert moments[2].session_index == 2


def test_every_input_is_applied() -> None:
    """Focus, touch, restart, start-checker and tick do what they say."""
    moments = replay(
        (0, "background"), (1, "foreground"), (2, "event"), (500, "touch"), (1000, "event"), (1001, "restart"),
        (1002, "event"), (1003, "background"), (3000, "tick"), (3001, "start-checker"),
    )  # fmt: skip
    shown = [(moment.input, moment.state, moment.session_index, moment.event_index) for moment in moments]
    foreground, background, expired = SessionState
    assert shown == [
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


def test_a_century_of_silence_is_replayed_at_once() -> None:
    """Ticks that can change nothing take no time."""
    begin = time.monotonic()
    moments = replay((0, "event"), (100 * 365 * 86400, "event"))
    assert time.monotonic() - begin < 5
    assert [moment.session_index for moment in moments if moment.input == "event"] == [1, 2]


def test_two_days_on_one_file_are_one_users(save_path: Path) -> None:
    """The second run keeps the user, and its index goes on."""
    runs = [
        list(Replay(steps((0, "event"), (1000, "event")), XmlStore(save_path), SessionOptions()).run())
        for _ in range(2)
    ]
    contexts = [moment.context for run in runs for moment in run if moment.context]
    assert len({context.user_id for context in contexts}) == 1
    assert [context.session_index for context in contexts] == [1, 2, 3, 4]
