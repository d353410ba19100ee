"""Many processes that start at the same moment on one save file."""

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
from torture.forking import forked, in_fresh_interpreters, report

_PROCESSES = 8
_SESSIONS_EACH = 2


def _start(path: Path, gate: int, told: int) -> None:
    """Start at the same moment as the others, begin two sessions, and tell whose and which they were."""
    os.read(gate, 1)
    session = ClientSession(path)
    contexts = []
    for _ in range(_SESSIONS_EACH):
        session.start_new_session()
        contexts.append(session.get_session_context(uuid.uuid4()))
    session.close()
    line = [[context.user_id, context.session_index, context.session_id] for context in contexts]
    os.write(told, json.dumps([str(session.save_error or ""), line]).encode() + b"\n")


def _lost_by_starts(path: Path) -> str | None:
    """Let processes start at once on a file that is not there yet; return what went wrong."""
    gate, opening = os.pipe()
    read, told = os.pipe()

    def start() -> None:
        os.close(opening)
        _start(path, gate, told)

    processes = [forked(start) for _ in range(_PROCESSES)]
    for descriptor in (opening, gate, told):
        os.close(descriptor)
    with os.fdopen(read) as lines:
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
    held, newest = loads(path.read_bytes()), max(sessions, key=lambda session: int(session[1]))
    if [held.user_id, held.session_index, held.session_id] != newest:
        return f"the file has session {held.session_index}"
    return None


def _start_at_once(folder: Path, rounds: int) -> None:
    start = time.monotonic()
    lost = {number: _lost_by_starts(folder / str(number) / "session.xml") for number in range(rounds)}
    losses = [f"round {number}: {reason}" for number, reason in lost.items() if reason]
    report(rounds, losses, seconds=time.monotonic() - start)


def first_starts(scale: Scale) -> Outcome:
    """Start eight processes at the same moment, where no file is yet."""
    (only,) = in_fresh_interpreters(__name__, [["10" if scale is Scale.FAST else "200"]])
    milliseconds = only["counts"]["seconds"] / only["cases"] * 1000
    return Outcome(only["cases"], tuple(only["losses"]), f"{milliseconds:.0f} ms a round")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "eight processes that start at the same moment, where no file is yet",
        "more than one user, or an index twice or missing",
        first_starts,
    ),
)

if __name__ == "__main__":
    _start_at_once(Path(sys.argv[1]), int(sys.argv[2]))
