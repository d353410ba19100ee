"""Time: the clock that counts sleep, and the clocks of tests."""

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
def test_each_platform_has_a_clock_that_counts_sleep(platform: str, name: str | None) -> None:
    """The id of the right clock, where there is one."""
    assert sleep_counting_clock(platform) == (name and getattr(time, name, None))


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME is Linux's")
def test_the_system_clock_counts_from_boot() -> None:
    """On Linux it reads CLOCK_BOOTTIME."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().monotonic()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_system_clock_tells_the_time_in_utc() -> None:
    """now() is aware, in UTC."""
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_a_manual_clock_moves_when_told() -> None:
    """Advance and suspend move both clocks, set_wall the wall clock alone."""
    clock = ManualClock(START)
    assert (clock.monotonic(), clock.now()) == (0.0, START)
    clock.advance(1.5)
    clock.suspend(3600)
    assert (clock.monotonic(), clock.now()) == (3601.5, START + timedelta(seconds=3601.5))
    clock.set_wall(START)
    assert (clock.monotonic(), clock.now()) == (3601.5, START)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_time_cannot_go_backwards(seconds: float) -> None:
    """A manual clock refuses what no clock does."""
    for move in (ManualClock().advance, ManualClock().suspend):
        with pytest.raises(ValueError, match="seconds must be finite and not negative"):
            move(seconds)


def test_a_manual_wall_clock_is_aware() -> None:
    """A naive wall time is refused."""
    with pytest.raises(ValueError, match="a time must have a time zone"):
        ManualClock().set_wall(datetime(2026, 1, 1))  # noqa: DTZ001  # naive is the point
    with pytest.raises(ValueError, match="a time must have a time zone"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001  # naive is the point


def test_a_manual_scheduler_ticks_what_is_due(
    make: MakeSession, clock: ManualClock, scheduler: ManualScheduler
) -> None:
    """A session is due an interval after its start, and again an interval after its last tick; late ticks are one."""
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


def test_a_manual_scheduler_keeps_nothing_alive(make: MakeSession, scheduler: ManualScheduler) -> None:
    """A dropped session is collected, and not ticked any more."""
    gone = weakref.ref(make())
    gc.collect()
    assert gone() is None
    assert scheduler.next_due() is None


def test_an_anchor_turns_monotonic_times_into_times_of_day() -> None:
    """Times of a session agree with each other, before and after the anchor."""
    anchor = Anchor(100.0, START)
    assert anchor.wall_time(160.0) == START + timedelta(minutes=1)
    assert anchor.wall_time(40.0) == START - timedelta(minutes=1)


@pytest.mark.parametrize(("shift", "follows"), [(0.9, False), (-0.9, False), (1, True), (-86400, True)])
def test_an_anchor_follows_a_clock_that_was_set(shift: float, *, follows: bool) -> None:
    """A second or more is a clock that was set; less is rounding."""
    anchor = Anchor(100.0, START)
    later = Anchor(200.0, START + timedelta(seconds=100 + shift))
    expected = START + timedelta(seconds=shift) if follows else START
    assert anchor.moved(by=later).wall_time(100.0) == expected
