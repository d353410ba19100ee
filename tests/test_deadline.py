"""A hung lock holder delays a call by one second in total, and repeated ticks wait only once."""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import XmlStore
from client_session_persistence.deadline import Wait, within_deadline
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import ClientSession
    from client_session.testing import ManualClock
    from conftest import MakeSession, ManualTime

NEVER = -math.inf
ONE_SECOND = pytest.approx(1.0, abs=0.01)


CALLS: dict[str, Callable[[ClientSession], object]] = {
    "event": lambda session: session.get_session_context(event_id(2)),
    "tick": lambda session: session.tick(),
    "toggle": lambda session: session.set_background(True),
    "touch": lambda session: session.touch(),
    "save": lambda session: session.save(),
    "close": lambda session: session.close(),
}


@pytest.mark.parametrize("call", CALLS)
def test_call_waits_once_for_a_held_lock(
    make: MakeSession, clock: ManualClock, save_path: Path, manual_time: ManualTime, call: str
) -> None:
    """A held lock delays a call by one second in total, even if the call saves several times."""
    session = make(save_path=save_path, count_empty_sessions=True, continue_on_restart=True)
    session.get_session_context(event_id(1))
    clock.advance(600)
    with XmlStore(save_path).lock(), contextlib.suppress(TimeoutError):
        CALLS[call](session)
    assert manual_time.slept == ONE_SECOND
    assert isinstance(session.save_error, TimeoutError)


def test_first_start_waits_once_for_a_held_lock(make: MakeSession, save_path: Path, manual_time: ManualTime) -> None:
    """A constructor that saves both a user and a session is delayed by one second in total."""
    with XmlStore(save_path).lock():
        make(save_path=save_path, count_empty_sessions=True)
    assert manual_time.slept == ONE_SECOND


def test_ticks_do_not_wait_for_a_lock_known_to_be_held(
    make: MakeSession, save_path: Path, manual_time: ManualTime
) -> None:
    """A game loop that ticks 60 times a second waits only once, even if another process continues to hold the lock."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        for _ in range(60):
            session.tick()
        assert manual_time.slept == ONE_SECOND
        assert isinstance(session.save_error, TimeoutError)
    session.tick()
    assert session.save_error is None


def test_threads_share_one_wait(make: MakeSession, save_path: Path, manual_time: ManualTime) -> None:
    """Calls made by several threads share a single wait for the store; the waits do not add up."""
    session = make(save_path=save_path)
    session.get_session_context(event_id(1))
    session.start_new_session()

    def save() -> None:
        with contextlib.suppress(TimeoutError):
            session.save()

    calls = [lambda: session.get_session_context(event_id(2)), save, save]
    threads = [threading.Thread(target=call) for call in calls]
    with XmlStore(save_path).lock():
        manual_time.hold_until_called(len(threads))  # a call that began after the wait would wait on its own
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert manual_time.slept == ONE_SECOND


def test_callback_has_its_own_deadline(make: MakeSession, save_path: Path, manual_time: ManualTime) -> None:
    """A call made in a callback can wait a full second, even if the call that triggered the callback already waited."""
    left: list[float] = []
    session = make(
        save_path=save_path,
        continue_on_restart=True,
        on_state_change=lambda *_: left.append(Wait().seconds_left(NEVER, manual_time.monotonic() - 0.5)),
    )
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        session.set_background(True)
    assert left == [ONE_SECOND]


def test_calls_after_a_timeout_wait_again(make: MakeSession, save_path: Path, manual_time: ManualTime) -> None:
    """After a timeout, save() and close() each wait up to one second again, because the lock may be free soon."""
    session = make(save_path=save_path)
    with XmlStore(save_path).lock():
        session.get_session_context(event_id(1))
        with pytest.raises(TimeoutError):
            session.save()
        assert manual_time.slept == pytest.approx(2.0, abs=0.01)
        session.close()
    assert manual_time.slept == pytest.approx(3.0, abs=0.01)


def test_queued_call_stops_waiting_when_another_call_gives_up(manual_time: ManualTime) -> None:
    """After one call gives up, any call that began earlier makes one last attempt without waiting."""

    def check() -> None:
        wait = Wait()
        assert wait.seconds_left(NEVER, NEVER) == ONE_SECOND
        assert wait.seconds_left(NEVER, manual_time.monotonic()) == 0.0

    within_deadline(check)


def test_lock_that_changes_hands_is_waited_for_longer(manual_time: ManualTime) -> None:
    """Each change of hands extends a wait to a second from then, but the whole call waits for ten seconds at most."""

    def check() -> None:
        wait = Wait()
        now = manual_time.monotonic()
        assert wait.seconds_left(now + 5.0, NEVER) == pytest.approx(6.0, abs=0.01)
        assert wait.seconds_left(now + 60.0, NEVER) == pytest.approx(10.0, abs=0.01)
        manual_time.sleep(4.0)
        assert wait.seconds_left(now + 60.0, NEVER) == pytest.approx(6.0, abs=0.01)

    within_deadline(check)
    check()
