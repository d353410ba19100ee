"""How long a held lock of the save file delays a program: a second for each call, and not again for each tick."""

from __future__ import annotations

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import XmlStore
from client_session_persistence.deadline import LOCK_SECONDS, deadline, seconds_left
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import ClientSession
    from client_session.testing import ManualClock
    from conftest import MakeSession

BUSY = 0.6
"""Seconds that a busy machine may add; together with one second still less than two."""


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes, whether or not it raises for want of the lock."""
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
def test_a_call_waits_once(make: MakeSession, clock: ManualClock, save_path: Path, call: str) -> None:
    """However often a call has to save, a held lock delays it by a second in all."""
    session = make(save_path=save_path, count_empty_sessions=True, continue_on_restart=True)
    session.get_session_context(event_id(1))
    clock.advance(600)
    with XmlStore(save_path).lock():
        taken = seconds_of(lambda: CALLS[call](session))
    assert 0.9 < taken < LOCK_SECONDS + BUSY
    assert isinstance(session.save_error, TimeoutError)


def test_a_first_start_waits_once(make: MakeSession, save_path: Path) -> None:
    """A constructor that has to save both a user and a session is delayed by a second in all."""
    with XmlStore(save_path).lock():
        taken = seconds_of(lambda: make(save_path=save_path, count_empty_sessions=True))
    assert 0.9 < taken < LOCK_SECONDS + BUSY


def test_ticks_do_not_wait_for_a_lock_that_is_known_to_be_held(make: MakeSession, save_path: Path) -> None:
    """A game loop that ticks sixty times a second is held up once, and not for as long as another process hangs."""
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


def test_threads_wait_together(make: MakeSession, save_path: Path) -> None:
    """Calls that wait for each other do not wait for the store one after the other."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    session.start_new_session()
    calls = [lambda: session.get_session_context(event_id(2)), session.save, session.save, session.tick]
    with XmlStore(save_path).lock(), ThreadPoolExecutor(len(calls)) as pool:
        taken = list(pool.map(seconds_of, calls))
    assert max(taken) < LOCK_SECONDS + BUSY


def test_a_callback_has_a_second_of_its_own(make: MakeSession, save_path: Path) -> None:
    """What a callback calls is no part of the call that caused it, which may have waited."""
    left: list[float] = []
    session = make(
        save_path=save_path, continue_on_restart=True, on_state_change=lambda *_: left.append(seconds_left(-math.inf))
    )
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        session.set_background(True)
    assert left == [LOCK_SECONDS]


def test_who_calls_after_a_vain_wait_waits_again(make: MakeSession, save_path: Path) -> None:
    """A lock that was held for long may soon be free: an event, save() and close() give it a second each time."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        assert seconds_of(session.save) > 0.9
        assert seconds_of(session.close) > 0.9


def test_who_was_waiting_for_one_that_waited_in_vain_waits_no_longer() -> None:
    """A call that began before somebody gave up tries once more, however much of its second is left."""
    with deadline():
        assert seconds_left(timed_out_at=-math.inf) > 0.9
        assert seconds_left(timed_out_at=time.monotonic()) == 0.0
