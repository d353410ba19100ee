"""Ends of sessions whose program is gone: reported at most once, by the start of the run that does not resume them."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from client_session import EndReason, MemoryStore, SessionState
from client_session_persistence import Snapshot, loads
from client_session_persistence.snapshot import is_resumable
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client_session import ClientSession, SessionSummary
    from client_session.testing import ManualClock
    from conftest import MakeSession


@pytest.fixture
def ended() -> list[SessionSummary]:
    """Return a list for the ends that are reported."""
    return []


@pytest.fixture
def run(make: MakeSession, ended: list[SessionSummary]) -> Callable[..., ClientSession]:
    """Return a function that starts a run with continue_on_restart."""

    def start(**options: Any) -> ClientSession:  # noqa: ANN401  # any constructor argument
        return make(continue_on_restart=True, on_session_end=ended.append, **options)

    return start


def test_end_is_reported_by_the_next_start(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock, store: MemoryStore
) -> None:
    """A session that timed out after its program was gone has a summary with the saved times and unknown focus."""
    start = clock.now()
    session = run()
    first = session.get_session_context(event_id(1), start - timedelta(days=1))
    clock.advance(60)
    session.get_session_context(event_id(2))
    session.save()
    clock.advance(600)
    assert run().session_index is None
    (summary,) = ended
    assert attrs.asdict(summary) == {
        "user_id": first.user_id,
        "session_id": first.session_id,
        "previous_session_id": None,
        "session_index": 1,
        "first_event_id": event_id(1),
        "first_event_time": start,
        "last_event_time": start + timedelta(seconds=60),
        "last_activity_time": start + timedelta(seconds=60),
        "event_count": 2,
        "foreground_seconds": None,
        "background_seconds": None,
        "reason": EndReason.TIMEOUT,
    }
    saved = store.load()
    assert saved is not None
    assert not is_resumable(saved)


def test_end_is_reported_once(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """Later starts do not report an end again, whether or not the run that reported it had a session of its own."""
    run().get_session_context(event_id(1))
    clock.advance(600)
    for _ in range(3):
        run()
    assert len(ended) == 1


def test_program_that_runs_once_a_day(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """Each day's session is reported on the next day, in order."""
    ids = []
    for day in range(30):
        with run() as session:
            ids.append(session.get_session_context(event_id(day)).session_id)
        clock.advance(86_400)
    assert [summary.session_id for summary in ended] == ids[:-1]
    assert {summary.reason for summary in ended} == {EndReason.TIMEOUT}


def test_saved_focus_decides(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """A session that was saved in the background is over after the background timeout."""
    session = run()
    session.get_session_context(event_id(1))
    session.set_background(True)
    clock.advance(299)
    again = run()
    assert again.session_id == session.session_id
    assert again.state is SessionState.FOREGROUND_ACTIVE
    again.set_background(True)
    clock.advance(1)
    assert run().session_index is None
    assert [summary.reason for summary in ended] == [EndReason.BACKGROUND_TIMEOUT]


@pytest.mark.parametrize(("max_duration", "reason"), [(900, EndReason.MAX_DURATION), (1100, None)])
def test_maximum_duration_counts_from_the_saved_start(
    run: Callable[..., ClientSession],
    ended: list[SessionSummary],
    clock: ManualClock,
    max_duration: float,
    reason: EndReason | None,
) -> None:
    """After a restart, the maximum duration counts the wall time since the session's first event."""
    session = run()
    for number in (1, 2):
        session.get_session_context(event_id(number))
        session.save()
        clock.advance(500)
    again = run(max_duration=max_duration)
    assert [summary.reason for summary in ended] == ([reason] if reason else [])
    if reason is None:
        assert again.expires_in == 100


def test_maximum_duration_follows_the_wall_clock(run: Callable[..., ClientSession], clock: ManualClock) -> None:
    """If the wall clock was set during the session, the saved start is adjusted like the last activity."""
    with run(max_duration=900) as session:
        session.get_session_context(event_id(1))
        clock.set_wall(clock.now() + timedelta(days=1))
        clock.advance(100)
    assert run(max_duration=900).expires_in == 500


def test_saved_times_in_the_future_end_the_session(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """If the wall clock was set back, the session is over."""
    with run() as session:
        session.get_session_context(event_id(1))
        session.set_background(True)
    clock.set_wall(clock.now() - timedelta(seconds=1))
    assert run().session_index is None
    assert [summary.reason for summary in ended] == [EndReason.BACKGROUND_TIMEOUT]


@pytest.mark.parametrize(("max_duration", "reasons"), [(None, []), (900, [EndReason.MAX_DURATION])])
def test_unknown_start_counts_as_over_with_a_maximum_duration(  # noqa: PLR0913, PLR0917  # two parameters and four fixtures
    run: Callable[..., ClientSession],
    ended: list[SessionSummary],
    store: MemoryStore,
    clock: ManualClock,
    max_duration: float | None,
    reasons: list[EndReason],
) -> None:
    """A session that an earlier version saved has no recorded start."""
    saved = Snapshot(
        user_id=event_id(7), session_id=event_id(8), session_index=4, event_index=2, last_activity=clock.now()
    )
    store.save(saved)
    session = run(max_duration=max_duration)
    assert session.session_index == (None if reasons else 4)
    assert [summary.reason for summary in ended] == reasons


def test_only_sessions_begun_to_continue_can_be_resumed(
    make: MakeSession, run: Callable[..., ClientSession], ended: list[SessionSummary]
) -> None:
    """A session that began without continue_on_restart is neither resumed nor reported by a run with it."""
    with make() as session:
        session.get_session_context(event_id(1))
    assert run().session_index is None
    make().get_session_context(event_id(2))
    assert run().session_index is None
    assert ended == []


def test_run_without_continue_on_restart_reports_nothing(
    make: MakeSession, run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """A run without continue_on_restart leaves the saved session to a run with it."""
    run().get_session_context(event_id(1))
    clock.advance(600)
    make(on_session_end=ended.append)
    assert ended == []
    run()
    assert len(ended) == 1


def test_end_in_the_run_is_saved_before_it_is_reported(make: MakeSession, store: MemoryStore) -> None:
    """When the end of a session is reported, the store no longer allows a later run to resume it."""
    resumable: list[bool] = []

    def check(_: SessionSummary) -> None:
        saved = store.load()
        resumable.append(saved is not None and is_resumable(saved))

    session = make(continue_on_restart=True, on_session_end=check)
    session.get_session_context(event_id(1))
    session.start_new_session()
    assert resumable == [False]


class ReadOnlyStore(MemoryStore):
    """A store that cannot be written to while ``is_read_only`` is set."""

    is_read_only = False

    def save(self, snapshot: Snapshot) -> None:
        """Save, or raise."""
        if self.is_read_only:
            msg = "read-only"
            raise OSError(msg)
        super().save(snapshot)


def test_end_that_cannot_be_marked_is_not_reported(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """If the store cannot be written to, a later start reports the end, once."""
    store = ReadOnlyStore()
    run(store=store).get_session_context(event_id(1))
    clock.advance(600)
    store.is_read_only = True
    run(store=store)
    assert ended == []
    store.is_read_only = False
    run(store=store)
    run(store=store)
    assert len(ended) == 1


def test_empty_sessions_are_counted_after_the_end(
    run: Callable[..., ClientSession], ended: list[SessionSummary], clock: ManualClock
) -> None:
    """With count_empty_sessions, the run that reports the end begins the next session at once."""
    run(count_empty_sessions=True).get_session_context(event_id(1))
    clock.advance(600)
    assert run(count_empty_sessions=True).session_index == 2
    assert [summary.session_index for summary in ended] == [1]


LIVES = """
import sys, uuid
from client_session import ClientSession
session = ClientSession(sys.argv[1], continue_on_restart=True)
print(session.get_session_context(uuid.uuid4()).session_id, flush=True)
while True:
    session.set_background(True)
    session.get_session_context(uuid.uuid4())
    session.set_background(False)
"""
NEXT_DAY = """
import datetime, sys
from client_session import ClientSession, SystemClock
class NextDay(SystemClock):
    def now(self):
        return super().now() + datetime.timedelta(days=1)
def ended(summary):
    print(summary.session_id, summary.reason, flush=True)
sys.stdin.read(1)
with ClientSession(sys.argv[1], continue_on_restart=True, clock=NextDay(), on_session_end=ended) as session:
    pass
"""


def spawn(program: str, path: Path) -> subprocess.Popen[str]:
    """Start a program."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("seed", range(3))
def test_killed_programs_are_reported_once_by_simultaneous_starts(tmp_path: Path, seed: int) -> None:
    """After a kill at a random point, one of four programs that start at once on the next day reports the end."""
    path = tmp_path / "session.xml"
    with spawn(LIVES, path) as program:
        assert program.stdout is not None
        session_id = program.stdout.readline().strip()
        time.sleep(random.Random(seed).random() * 0.05)  # noqa: S311  # not for security
        program.kill()
    starts = [spawn(NEXT_DAY, path) for _ in range(4)]
    reports = "".join(start.communicate("x", timeout=60)[0] for start in starts).split()
    assert reports[0] == session_id
    assert reports[1] in {EndReason.TIMEOUT, EndReason.BACKGROUND_TIMEOUT}
    assert len(reports) == 2
    assert not is_resumable(loads(path.read_bytes()))
