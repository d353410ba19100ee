"""The verification of sessionizing: which logs stand for all others, and how differences are found and shown."""

from __future__ import annotations

import functools
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings

from client_session.graph import Command, Input
from client_session.input_log import REMEMBERED_EVENTS, InputRecord
from client_session.sessionize import Fold
from client_session.testing import InvariantError
from client_session.testing.manual import START
from client_session.verify.offline import (
    SETTINGS,
    LogSettings,
    distinct_log_count,
    distinct_logs,
    exhaustive_logs,
    expected,
    random_logs,
)
from client_session.verify.offline_check import Chunk, CutLog, check_chunk, chunk_count, chunks, installed
from client_session.verify.sessionizers import FoldSessionizer, Sessionizer
from client_session.verify.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client_session.sessionize.fold import SessionizedEvent, UserState


def log_of(*inputs: tuple[float, str, str | None]) -> list[InputRecord]:
    """Return the log of a user, given seconds, inputs and event ids."""
    return [
        InputRecord("user", START + timedelta(seconds=seconds), number, given, event_id)
        for number, (seconds, given, event_id) in enumerate(inputs)
    ]


def places(logs: Iterable[list[InputRecord]], chosen: LogSettings) -> set[tuple[tuple[int, int, bool], ...]]:
    """Return the places of the events of each log, for logs that have any."""
    found: dict[str, list[tuple[int, int, bool]]] = {}
    for event in expected((record for log in logs for record in log), chosen)[0]:
        place = (event.session_index, event.event_index, event.input == Input.PASSIVE)
        found.setdefault(event.user_id, []).append(place)
    return set(map(tuple, found.values()))


@pytest.mark.parametrize("chosen", SETTINGS)
def test_distinct_logs_have_the_sessions_of_all_logs(chosen: LogSettings) -> None:
    """Whatever places the events of a log of three inputs have, those of a distinct log have, too."""
    distinct = [list(distinct_logs(length, chosen)) for length in (1, 2, 3)]
    assert list(map(len, distinct)) == [distinct_log_count(length, chosen) for length in (1, 2, 3)]
    found: set[tuple[tuple[int, int, bool], ...]] = set().union(*(places(logs, chosen) for logs in distinct))
    assert places(exhaustive_logs(2), chosen) | places(exhaustive_logs(3, gaps=(0, 2, 4)), chosen) <= found


def test_chunks_have_all_distinct_logs() -> None:
    """Chunks are bounded, and together have each log once."""
    found = [log.records for chunk in chunks(3, SETTINGS[0], random.Random(1)) for log in chunk.logs]  # noqa: S311
    assert found == list(distinct_logs(3, SETTINGS[0]))
    assert chunk_count(3, SETTINGS[0]) == 1
    assert chunk_count(4, SETTINGS[0]) == 5


@functools.cache
def random_cut_logs() -> list[CutLog]:
    """Return the logs of many users, each cut at another place; the same ones each time."""
    logs: list[CutLog] = []

    @settings(max_examples=150, database=None, derandomize=True)
    @given(random_logs(max_size=25))
    def collect(records: list[InputRecord]) -> None:
        for user_id in dict.fromkeys(record.user_id for record in records):
            log = [attrs.evolve(each, user_id=f"user {len(logs)}") for each in records if each.user_id == user_id]
            logs.append(CutLog(log, len(logs) % (len(log) + 1)))

    collect()
    return logs


EVERY_SESSIONIZER = pytest.mark.parametrize("sessionizer", installed(), ids=lambda sessionizer: str(sessionizer.name))


@EVERY_SESSIONIZER
@pytest.mark.parametrize("chosen", SETTINGS)
def test_random_logs_of_many_users(sessionizer: Sessionizer, chosen: LogSettings) -> None:
    """Each user's log equals the fold, in one run, and in two parts that are cut at any place."""
    check_chunk(Chunk(random_cut_logs(), chosen), [sessionizer], Tally())


@EVERY_SESSIONIZER
def test_maximum_duration_while_checking_is_stopped(sessionizer: Sessionizer) -> None:
    """All logs of four inputs that decide where the maximum duration ends a session equal the fold."""
    logs = exhaustive_logs(4, (Input.EVENT, Command.TOUCH, Command.STOP_CHECKER), (1, 2, 3))
    check_chunk(Chunk([CutLog(log, 2) for log in logs], SETTINGS[2]), [sessionizer], Tally())


@EVERY_SESSIONIZER
@pytest.mark.parametrize("kind", [Input.EVENT, Input.PASSIVE])
@pytest.mark.parametrize("others", [REMEMBERED_EVENTS - 1, REMEMBERED_EVENTS])
def test_eight_events_are_remembered(sessionizer: Sessionizer, kind: str, others: int) -> None:
    """An event that is sent again is dropped if fewer than eight events came in between."""
    between = [(number, kind, f"event {number}") for number in range(1, others + 1)]
    log = log_of((0, Input.EVENT, "first"), *between, (60, Command.TOUCH, None), (60, kind, "first"))
    chosen = attrs.evolve(SETTINGS[0], foreground_timeout=100)
    events, _ = sessionizer.run(log, attrs.asdict(chosen))
    assert len(events) == 1 + others + (others == REMEMBERED_EVENTS)
    check_chunk(Chunk([CutLog(log, 3)], chosen), [sessionizer], Tally())


class Broken(FoldSessionizer):
    """A sessionizer that ignores ``new-session``, or the states that are carried."""

    def __init__(self, *, carries: bool) -> None:
        """Choose the bug."""
        self._carries = carries

    def run(
        self, records: Sequence[InputRecord], settings: dict[str, Any], carried: Sequence[UserState] = ()
    ) -> tuple[list[SessionizedEvent], list[UserState]]:
        """Return the log's events and states."""
        if self._carries:
            return super().run([each for each in records if each.input != Command.NEW_SESSION], settings, carried)
        return super().run(records, settings)


@pytest.mark.parametrize(
    ("carries", "invariant", "inputs"),
    [(True, "log engines", ["new-session"]), (False, "log parts", ["touch"])],
)
def test_shortest_log_is_shown(*, carries: bool, invariant: str, inputs: list[str]) -> None:
    """The error names the invariant, the engine and the settings, and has the shortest log that differs."""
    log = log_of((0, "touch", None), (1, "event", "a"), (2, "new-session", None), (3, "event", "b"))
    logs = [CutLog([attrs.evolve(each, user_id=f"user {number}") for each in log], 2) for number in range(9)]
    tally = Tally()
    with pytest.raises(InvariantError) as caught:
        check_chunk(Chunk(logs, SETTINGS[0]), [Broken(carries=carries)], tally)
    first, _, *records = str(caught.value).splitlines()
    assert first.startswith(f"{invariant}: fold, with LogSettings(foreground_timeout=4,")
    assert [record.split('"input":"')[1].split('"')[0] for record in records] == inputs
    assert tally.invariants["log specification"] == 9


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"user_id": "anna"}, TypeError, "record must be an InputRecord, not an object of type dict"),
        (InputRecord("anna", START, 1, "click"), ValueError, "click"),
        (InputRecord("anna", START, 1, "event"), ValueError, "event_id"),
    ],
)
def test_bad_record_has_no_effect(record: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401  # not a record
    """The fold refuses what is no record or a wrong one, and does not know its user afterward."""
    log = Fold()
    with pytest.raises(error, match=message):
        log.add(record)
    assert list(log.states()) == []
