"""Clocks: the system clock, which keeps counting during system sleep, and the manual clock and scheduler for tests."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_session import SystemClock
from client_session.clock import Anchor, sleep_counting_clock
from client_session.testing import ManualClock, ManualScheduler

if TYPE_CHECKING:
    from conftest import MakeSession

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("linux", "CLOCK_BOOTTIME"),
        ("android", "CLOCK_BOOTTIME"),
        ("darwin", "CLOCK_MONOTONIC"),
        ("ios", "CLOCK_MONOTONIC"),
        ("win32", None),
        ("emscripten", None),
    ],
)
def test_clock_is_chosen_by_platform(platform: str, name: str | None) -> None:
    """Linux uses CLOCK_BOOTTIME, macOS and iOS use CLOCK_MONOTONIC, and other platforms use neither."""
    assert sleep_counting_clock(platform) == (name and getattr(time, name, None))


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME exists only on Linux")
def test_system_clock_counts_from_boot() -> None:
    """On Linux, monotonic() reads CLOCK_BOOTTIME."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().monotonic()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_system_clock_returns_utc() -> None:
    """now() returns an aware datetime in UTC."""
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_manual_clock_moves_only_when_called() -> None:
    """advance() and suspend() move both clocks; set_wall() moves only the wall clock."""
    clock = ManualClock(START)
    assert (clock.monotonic(), clock.now()) == (0.0, START)
    clock.advance(1.5)
    clock.suspend(3600)
    assert (clock.monotonic(), clock.now()) == (3601.5, START + timedelta(seconds=3601.5))
    clock.set_wall(START)
    assert (clock.monotonic(), clock.now()) == (3601.5, START)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 10**400])
def test_manual_clock_rejects_invalid_durations(seconds: float) -> None:
    """advance() and suspend() reject negative, infinite and NaN durations, and do not move the clock."""
    clock = ManualClock()
    for move in (clock.advance, clock.suspend):
        with pytest.raises(ValueError, match=f"seconds must be finite and non-negative, not {seconds}"):
            move(seconds)
    assert (clock.monotonic(), clock.now()) == (0.0, START)


def test_manual_clock_rejects_a_naive_wall_time() -> None:
    """A naive datetime raises ValueError, both in the constructor and in set_wall()."""
    with pytest.raises(ValueError, match="wall must have a time zone"):
        ManualClock().set_wall(datetime(2026, 1, 1))  # noqa: DTZ001  # naive on purpose
    with pytest.raises(ValueError, match="wall must have a time zone"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001  # naive on purpose


def test_manual_scheduler_ticks_due_sessions(make: MakeSession, clock: ManualClock, scheduler: ManualScheduler) -> None:
    """A session's next tick is due one interval after its start or last tick; missed ticks are merged into one."""
    slow = make(check_interval=10)
    quick = make(check_interval=4)
    assert scheduler.next_due() == 4
    clock.advance(3.5)
    assert scheduler.run_due(clock) == 0
    clock.advance(0.5)
    assert scheduler.run_due(clock) == 1
    clock.advance(100)
    assert scheduler.run_due(clock) == 2
    assert scheduler.next_due() == 108
    quick.stop_checker()
    assert quick not in scheduler
    assert slow in scheduler
    assert scheduler.next_due() == 114


def test_manual_scheduler_does_not_keep_sessions_alive(make: MakeSession, scheduler: ManualScheduler) -> None:
    """A dropped session is collected and no longer ticked."""
    session_ref = weakref.ref(make())
    gc.collect()
    assert session_ref() is None
    assert scheduler.next_due() is None


def test_anchor_converts_monotonic_times_to_wall_times() -> None:
    """Monotonic times before and after the anchor map to the corresponding wall times."""
    anchor = Anchor(100.0, START)
    assert anchor.wall_time(160.0) == START + timedelta(minutes=1)
    assert anchor.wall_time(40.0) == START - timedelta(minutes=1)


@pytest.mark.parametrize(("shift", "follows"), [(0.9, False), (-0.9, False), (1, True), (-86400, True)])
def test_anchor_follows_a_wall_clock_that_was_set(shift: float, *, follows: bool) -> None:
    """A shift of one second or more means that the clock was set; a smaller shift is treated as a rounding error."""
    anchor = Anchor(100.0, START)
    later = Anchor(200.0, START + timedelta(seconds=100 + shift))
    expected = START + timedelta(seconds=shift) if follows else START
    assert anchor.adjusted(later).wall_time(100.0) == expected
