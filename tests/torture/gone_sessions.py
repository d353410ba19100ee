"""Kill a start at each system call while it reports the end of a session whose program is gone."""

from __future__ import annotations

import signal
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import Snapshot, loads
from client_session_persistence.snapshot import is_resumable
from event_ids import event_id
from torture.fault import Fault, Outcome, Scale
from torture.kill_at_system_calls import SAMPLING_INTERVAL, prepare_folder
from torture.strace import run_traced
from torture.worker_pool import run_in_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from client_session import SessionSummary

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
GONE = Snapshot(
    user_id=event_id(7),
    session_id=event_id(8),
    session_index=41,
    event_index=5,
    last_activity=YESTERDAY,
    session_start=YESTERDAY,
    background=False,
)


def _start(folder: Path) -> None:
    """Start a run that appends each end to a file, and track an event."""

    def report(summary: SessionSummary) -> None:
        with (folder / "reports").open("a") as reports:
            reports.write(f"{summary.session_id}\n")

    path = folder / "session.xml"
    with ClientSession(path, scheduler=ManualScheduler(), continue_on_restart=True, on_session_end=report) as session:
        session.get_session_context(event_id(1))


def _traced(folder: Path) -> Callable[[AbstractContextManager[None]], list[str]]:
    def work(traced: AbstractContextManager[None]) -> list[str]:
        with traced:
            _start(folder)
        return []

    return work


def _losses(folder: Path, status: int) -> list[str]:
    """Restart after a kill, and return the losses."""
    if status != -signal.SIGKILL:
        return [f"ended with status {status} instead of being killed"]
    saved = loads((folder / "session.xml").read_bytes())
    is_unmarked = saved.session_id == GONE.session_id and is_resumable(saved)
    reports = folder / "reports"
    was_reported = reports.exists() and bool(reports.read_text())
    _start(folder)
    count = len(reports.read_text().splitlines()) if reports.exists() else 0
    if is_unmarked and was_reported:
        return ["the end was reported before it was marked"]
    if count > 1 or (is_unmarked and count == 0):
        return [f"the end was reported {count} times"]
    return []


def _run_shard(shard: int, shards: int, scale: Scale) -> Outcome:
    step = shards * (SAMPLING_INTERVAL if scale is Scale.SAMPLE else 1)
    losses: list[str] = []
    with tempfile.TemporaryDirectory(prefix="client-session-torture-") as root:
        folder, trace = Path(root) / "created" / "session", Path(root) / "trace"
        prepare_folder(folder, GONE)
        _start(folder)  # untraced, so that every traced child makes the same calls
        prepare_folder(folder, GONE)
        calls = run_traced(_traced(folder), trace).calls
        for position in range(shard, len(calls), step):
            call = calls[position]
            prepare_folder(folder, GONE)
            traced = run_traced(_traced(folder), trace, f"inject={call.name}:signal=SIGKILL:when={call.number}")
            lost = _losses(folder, traced.status)
            losses.extend(f"killed at call {position}, {call.name} {call.number}: {loss}" for loss in lost)
    return Outcome(len(range(shard, len(calls), step)), tuple(losses), f"{len(calls)} system calls")


def _run_all(scale: Scale) -> Outcome:
    return run_in_workers(_run_shard, scale)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "a start is killed at each system call while it reports the end of a session whose program is gone",
        "the end is reported twice, or not at all although it was not marked in the file",
        _run_all,
    ),
)
