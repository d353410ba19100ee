"""Start many processes simultaneously, all with the same save file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from client_session import ClientSession, XmlStore
from client_session_persistence import loads
from torture.fault import Fault, Outcome, Scale
from torture.slow_disk import delay_fsync
from torture.worker_pool import fork_child, print_report, run_in_fresh_interpreters


@attrs.frozen
class Herd:
    """Processes that start at the same moment."""

    processes: int
    sessions_each: int = 2
    is_background: bool = False
    fsync_seconds: float = 0.0
    continues: bool = False
    """Whether the processes take turns to continue one session; each then tracks one event."""


def _start(herd: Herd, path: Path, gate: int, answer: int) -> None:
    """Wait for the gate, begin sessions, and write the user, index and id of each to ``answer``."""
    os.read(gate, 1)
    session = ClientSession(store=XmlStore(path, background=herd.is_background), continue_on_restart=herd.continues)
    contexts = []
    for _ in range(herd.sessions_each):
        if not herd.continues:
            session.start_new_session()
        contexts.append(session.get_session_context(uuid.uuid4()))
    error = session.save_error
    session.save()
    session.close()
    line = [
        [context.user_id, context.event_index if herd.continues else context.session_index, context.session_id]
        for context in contexts
    ]
    os.write(answer, json.dumps([str(error or ""), line]).encode() + b"\n")


def _start_all(herd: Herd, path: Path) -> str | None:
    """Start the processes at the same time, before the save file exists; return a loss, if any."""
    gate, opener = os.pipe()
    reader, answer = os.pipe()

    def start() -> None:
        os.close(opener)
        _start(herd, path, gate, answer)

    processes = [fork_child(start) for _ in range(herd.processes)]
    for descriptor in (opener, gate, answer):
        os.close(descriptor)
    with os.fdopen(reader) as lines:
        answers = [json.loads(line) for line in lines]
    if any(os.waitpid(process, 0)[1] for process in processes):
        return "a process failed"
    if errors := [error for error, _ in answers if error]:
        return f"not saved: {errors}"
    return _find_loss(herd, path, [session for _, each in answers for session in each])


def _find_loss(herd: Herd, path: Path, sessions: list[list[Any]]) -> str | None:
    if len({user for user, _, _ in sessions}) != 1:
        return f"{len({user for user, _, _ in sessions})} users"
    indexes = sorted(index for _, index, _ in sessions)
    if indexes != list(range(1, herd.processes * herd.sessions_each + 1)):
        return f"indexes {indexes}"
    if herd.continues:
        return None if len({session_id for _, _, session_id in sessions}) == 1 else "several sessions"
    saved, newest = loads(path.read_bytes()), max(sessions, key=lambda session: int(session[1]))
    if [saved.user_id, saved.session_index, saved.session_id] != newest:
        return f"the file has session {saved.session_index}"
    return None


def _run_rounds(folder: Path, rounds: int, herd: Herd) -> None:
    start = time.monotonic()
    by_round = {number: _start_all(herd, folder / str(number) / "session.xml") for number in range(rounds)}
    losses = [f"round {number}: {loss}" for number, loss in by_round.items() if loss]
    print_report(rounds, losses, seconds=time.monotonic() - start)


def _start_simultaneously(herd: Herd, sample: tuple[int, Herd], rounds: int, scale: Scale) -> Outcome:
    """Start the processes at the same moment, before a save file exists."""
    if scale is Scale.SAMPLE:
        rounds, herd = sample
    with tempfile.TemporaryDirectory(prefix="client-session-slow-disk-") as folder:
        environment = delay_fsync(Path(folder), herd.fsync_seconds) if herd.fsync_seconds else {}
        arguments = [[str(rounds), json.dumps(attrs.asdict(herd))]]
        (report,) = run_in_fresh_interpreters(__name__, arguments, environment)
    milliseconds = report["counts"]["seconds"] / report["cases"] * 1000
    return Outcome(report["cases"], tuple(report["losses"]), f"{milliseconds:.0f} ms per round")


_CONTINUED = Herd(20, 1, continues=True)
_LOSS = "there is more than one user, or an index is duplicated or missing"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "eight processes start at the same moment, before a save file exists",
        _LOSS,
        partial(_start_simultaneously, Herd(8), (10, Herd(8)), 200),
    ),
    Fault(
        "200 processes start at the same moment, before a save file exists",
        _LOSS,
        partial(_start_simultaneously, Herd(200, 1), (1, Herd(50, 1)), 20),
    ),
    Fault(
        "20 short runs with continue_on_restart start at the same moment",
        "they do not continue one session, or an event index is duplicated or missing",
        partial(_start_simultaneously, _CONTINUED, (1, _CONTINUED), 50),
    ),
    *(
        Fault(
            f"eight processes start at the same moment, on a disk whose fsync takes {milliseconds} ms{suffix}",
            _LOSS,
            partial(
                _start_simultaneously,
                Herd(8, 2, is_background, milliseconds / 1000),
                (1, Herd(4, 1, is_background, milliseconds / 1000)),
                5,
            ),
        )
        for milliseconds in (100, 400)
        for is_background, suffix in ((False, ""), (True, " (background saves)"))
    ),
)

if __name__ == "__main__":
    _run_rounds(Path(sys.argv[1]), int(sys.argv[2]), Herd(**json.loads(sys.argv[3])))
