"""Start many processes simultaneously, all with the same save file."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path

from client_session import ClientSession
from client_session_persistence import loads
from torture.fault import Fault, Outcome, Scale
from torture.worker_pool import fork_child, print_report, run_in_fresh_interpreters

_PROCESSES = 8
_SESSIONS_EACH = 2


def _start(path: Path, gate: int, answer: int) -> None:
    """Wait for the gate, begin two sessions, and write the user, index and id of each to ``answer``."""
    os.read(gate, 1)
    session = ClientSession(path)
    contexts = []
    for _ in range(_SESSIONS_EACH):
        session.start_new_session()
        contexts.append(session.get_session_context(uuid.uuid4()))
    session.close()
    line = [[context.user_id, context.session_index, context.session_id] for context in contexts]
    os.write(answer, json.dumps([str(session.save_error or ""), line]).encode() + b"\n")


def _start_all(path: Path) -> str | None:
    """Start the processes at the same time, before the save file exists; return a loss, if any."""
    gate, opener = os.pipe()
    reader, answer = os.pipe()

    def start() -> None:
        os.close(opener)
        _start(path, gate, answer)

    processes = [fork_child(start) for _ in range(_PROCESSES)]
    for descriptor in (opener, gate, answer):
        os.close(descriptor)
    with os.fdopen(reader) as lines:
        answers = [json.loads(line) for line in lines]
    if any(os.waitpid(process, 0)[1] for process in processes):
        return "a process failed"
    if errors := [error for error, _ in answers if error]:
        return f"not saved: {errors}"
    sessions = [session for _, each in answers for session in each]
    if len({user for user, _, _ in sessions}) != 1:
        return f"{len({user for user, _, _ in sessions})} users"
    indexes = sorted(index for _, index, _ in sessions)
    if indexes != list(range(1, _PROCESSES * _SESSIONS_EACH + 1)):
        return f"indexes {indexes}"
    saved, newest = loads(path.read_bytes()), max(sessions, key=lambda session: int(session[1]))
    if [saved.user_id, saved.session_index, saved.session_id] != newest:
        return f"the file has session {saved.session_index}"
    return None


def _run_rounds(folder: Path, rounds: int) -> None:
    start = time.monotonic()
    by_round = {number: _start_all(folder / str(number) / "session.xml") for number in range(rounds)}
    losses = [f"round {number}: {loss}" for number, loss in by_round.items() if loss]
    print_report(rounds, losses, seconds=time.monotonic() - start)


def start_simultaneously(scale: Scale) -> Outcome:
    """Start eight processes at the same moment, before a save file exists."""
    (report,) = run_in_fresh_interpreters(__name__, [["10" if scale is Scale.SAMPLE else "200"]])
    milliseconds = report["counts"]["seconds"] / report["cases"] * 1000
    return Outcome(report["cases"], tuple(report["losses"]), f"{milliseconds:.0f} ms per round")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "eight processes start at the same moment, before a save file exists",
        "there is more than one user, or an index is duplicated or missing",
        start_simultaneously,
    ),
)

if __name__ == "__main__":
    _run_rounds(Path(sys.argv[1]), int(sys.argv[2]))
