"""Many hosts, one order: every answer equals that of one host that applied all inputs in the store's order."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs
import pytest

from client_session_persistence import MemoryStates
from engines import stores
from linearizability import History, find_violations
from visitor_hosts import BACKGROUND_TIMEOUT, FOREGROUND_TIMEOUT, run_host, run_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def violations(history: History) -> list[str]:
    """Return what differs from a replay."""
    return find_violations(history, FOREGROUND_TIMEOUT, BACKGROUND_TIMEOUT)


@pytest.fixture(scope="module")
def history() -> History:
    """Return what one host saw."""
    return run_host(MemoryStates(), 3, 400, 1)


def test_one_host_equals_the_replay(history: History) -> None:
    """The checker accepts what one host saw, in which several sessions began and ended."""
    assert violations(history) == []
    assert len(history.ends) > 10


def _drop_an_input(history: History) -> None:
    history.inputs.pop(50)


def _count_twice(history: History) -> None:
    record = next(record for record in history.inputs if record.input == "event")
    last = max(each.sequence for each in history.inputs if each.user_id == record.user_id)
    history.inputs.append(attrs.evolve(record, sequence=last + 1))


def _swap_answers(history: History) -> None:
    events = [number for number, (_, context) in enumerate(history.answers) if context is not None]
    first, second = history.answers[events[3]], history.answers[events[4]]
    history.answers[events[3]], history.answers[events[4]] = (first[0], second[1]), (second[0], first[1])


def _lose_an_answer(history: History) -> None:
    number = next(number for number, (_, context) in enumerate(history.answers) if context is not None)
    history.answers[number] = (history.answers[number][0], None)


def _report_an_end_twice(history: History) -> None:
    history.ends.append(history.ends[0])


def _lose_an_end(history: History) -> None:
    history.ends.pop()


def _end_too_early(history: History) -> None:
    history.ends[0] = attrs.evolve(history.ends[0], event_count=history.ends[0].event_count + 1)


def _reverse_time(history: History) -> None:
    user = history.inputs[0].user_id
    records = [number for number, record in enumerate(history.inputs) if record.user_id == user]
    first, last = records[0], records[-1]
    history.inputs[last] = attrs.evolve(history.inputs[last], time=history.inputs[first].time.replace(year=2000))


@pytest.mark.parametrize(
    "plant",
    [
        _drop_an_input, _count_twice, _swap_answers, _lose_an_answer, _report_an_end_twice, _lose_an_end,
        _end_too_early, _reverse_time,
    ],
)  # fmt: skip
def test_checker_finds_planted_bugs(history: History, plant: Callable[[History], None]) -> None:
    """Each kind of wrong answer is found."""
    changed = History(list(history.inputs), list(history.answers), list(history.ends))
    plant(changed)
    assert violations(changed)


@pytest.mark.parametrize("visitors", [1, 50])
def test_threads_share_visitors(visitors: int) -> None:
    """Eight threads of one process apply inputs to the same visitors."""
    states, total, lock = MemoryStates(), History(), threading.Lock()

    def work(seed: int) -> None:
        seen = run_host(states, visitors, 150, seed)
        with lock:
            total.add(seen)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert violations(total) == []


@pytest.fixture(scope="module")
def running() -> Iterator[stores.Servers]:
    """Yield the servers that tests have started."""
    started = stores.Servers()
    yield started
    started.close()


@pytest.mark.parametrize("visitors", [1, 50])
@pytest.mark.parametrize("kind", stores.parameters(*stores.SHARED, *stores.ASYNC))
def test_processes_share_visitors(tmp_path: Path, running: stores.Servers, kind: str, visitors: int) -> None:
    """Eight processes apply inputs to the same visitors in one store."""
    place = tmp_path / "visitors.db" if kind == "sqlite" else running.get(stores.server_name(kind)).port
    total = run_hosts(kind, place, visitors=visitors, inputs=100)
    assert violations(total) == []
    assert len(total.answers) > 400
