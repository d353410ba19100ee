"""A hung lock holder delays a call by one second in total, and repeated ticks wait only once."""

from __future__ import annotations

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import XmlStore
from client_session_persistence.deadline import LOCK_SECONDS, MAX_LOCK_SECONDS, Wait, within_deadline
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import ClientSession
    from client_session.testing import ManualClock
    from conftest import MakeSession

NEVER = -math.inf
BUSY_MARGIN = 0.6
"""Extra seconds that a call may take on a busy machine. One second plus this margin is still less than two."""


def time_call(call: Callable[[], object]) -> float:
    """Return how long a call takes, even if it times out waiting for the lock."""
    start = time.monotonic()
    with contextlib.suppress(TimeoutError):
        call()
    return time.monotonic() - start


CALLS: dict[str, Callable[[ClientSession], object]] = {
    "event": lambda session: session.get_session_context(event_id(2)),
    "tick": lambda session: session.tick(),
    "toggle": lambda session: session.set_background(True),
    "touch": lambda session: session.touch(),
    "save": lambda session: session.save(),
    "close": lambda session: session.close(),
}


@pytest.mark.parametrize("call", CALLS)
def test_call_waits_once_for_a_held_lock(make: MakeSession, clock: ManualClock, save_path: Path, call: str) -> None:
    """A held lock delays a call by one second in total, even if the call saves several times."""
    session = make(save_path=save_path, count_empty_sessions=True, continue_on_restart=True)
    session.get_session_context(event_id(1))
    clock.advance(600)
    with XmlStore(save_path).lock():
        seconds = time_call(lambda: CALLS[call](session))
    assert 0.9 < seconds < LOCK_SECONDS + BUSY_MARGIN
    assert isinstance(session.save_error, TimeoutError)


def test_first_start_waits_once_for_a_held_lock(make: MakeSession, save_path: Path) -> None:
    """A constructor that saves both a user and a session is delayed by one second in total."""
    with XmlStore(save_path).lock():
        seconds = time_call(lambda: make(save_path=save_path, count_empty_sessions=True))
    assert 0.9 < seconds < LOCK_SECONDS + BUSY_MARGIN


def test_ticks_do_not_wait_for_a_lock_known_to_be_held(make: MakeSession, save_path: Path) -> None:
    """A game loop that ticks 60 times a second waits only once, even if another process continues to hold the lock."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        start = time.monotonic()
        for _ in range(60):
            session.tick()
        assert time.monotonic() - start < 0.9
        assert isinstance(session.save_error, TimeoutError)
    session.tick()
    assert session.save_error is None


def test_threads_share_one_wait(make: MakeSession, save_path: Path) -> None:
    """Calls made by several threads share a single wait for the store; the waits do not add up."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    session.start_new_session()
    calls = [lambda: session.get_session_context(event_id(2)), session.save, session.save, session.tick]
    with XmlStore(save_path).lock(), ThreadPoolExecutor(len(calls)) as pool:
        seconds = list(pool.map(time_call, calls))
    assert max(seconds) < LOCK_SECONDS + BUSY_MARGIN


def test_callback_has_its_own_deadline(make: MakeSession, save_path: Path) -> None:
    """A call made in a callback can wait a full second, even if the call that triggered the callback already waited."""
    left: list[float] = []
    session = make(
        save_path=save_path,
        continue_on_restart=True,
        on_state_change=lambda *_: left.append(Wait().seconds_left(NEVER, time.monotonic() - 0.5)),
    )
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        session.set_background(True)
    assert left == [pytest.approx(LOCK_SECONDS, abs=0.1)]


def test_calls_after_a_timeout_wait_again(make: MakeSession, save_path: Path) -> None:
    """After a timeout, save() and close() each wait up to one second again, because the lock may be free soon."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        assert time_call(session.save) > 0.9
        assert time_call(session.close) > 0.9


def test_queued_call_stops_waiting_when_another_call_gives_up() -> None:
    """After one call gives up, any call that began earlier makes one last attempt without waiting."""

    def check() -> None:
        wait = Wait()
        assert wait.seconds_left(NEVER, NEVER) > 0.9
        assert wait.seconds_left(NEVER, time.monotonic()) == 0.0

    within_deadline(check)


def test_lock_that_changes_hands_is_waited_for_longer() -> None:
    """Each change of hands extends a wait to a second from then, but the whole call waits for ten seconds at most."""

    def check(began: float) -> None:
        wait = Wait()
        now = time.monotonic()
        assert wait.seconds_left(now + 5.0, NEVER) == pytest.approx(6.0, abs=0.5)
        assert wait.seconds_left(now + 60.0, NEVER) == pytest.approx(began + MAX_LOCK_SECONDS - now, abs=0.5)

    start = time.monotonic()
    within_deadline(lambda: check(start))
    check(start)
