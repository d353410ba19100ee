"""The command-line example: runs one after another, and at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from client_session_persistence import default_save_path
from test_entity import VALIDATORS, data_of

TOOL = Path(__file__).parents[1] / "examples" / "cli_tool.py"


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a run of the tool."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, TOOL, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def entities(run: subprocess.Popen[str], *, silent: bool = True) -> list[dict[str, Any]]:
    """Return what a run printed, when it has ended well."""
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert (errors == "") is silent, errors
    found = [data_of(json.loads(line)) for line in output.splitlines()]
    for data in found:
        VALIDATORS["1-0-2"].validate(data)
    return found


def test_runs_within_the_timeout_are_one_session(save_path: Path) -> None:
    """Events count on from run to run; a run after the timeout begins the next session."""
    first = [entities(start("--save", save_path, "build", "test")), entities(start("--save", save_path, "deploy"))]
    same = [data for run in first for data in run]
    assert [data["eventIndex"] for data in same] == [1, 2, 3]
    assert {(data["sessionIndex"], data["sessionId"], data["firstEventId"]) for data in same} == {
        (1, same[0]["sessionId"], same[0]["firstEventId"])
    }
    (late,) = entities(start("--save", save_path, "--timeout", "0.001", "build"))
    assert (late["sessionIndex"], late["eventIndex"]) == (2, 1)
    assert (late["previousSessionId"], late["userId"]) == (same[0]["sessionId"], same[0]["userId"])


def test_runs_at_the_same_time_are_one_session(save_path: Path) -> None:
    """Six runs that start together on no save file share user, session and first event; none doubles an index."""
    together = [start("--save", save_path, "build", "test") for _ in range(6)]
    found = [data for run in together for data in entities(run)]
    assert sorted(data["eventIndex"] for data in found) == list(range(1, 13))
    names = ("userId", "sessionId", "sessionIndex", "previousSessionId", "firstEventId", "firstEventTimestamp")
    assert len({tuple(data[name] for name in names) for data in found}) == 1
    assert found[0]["sessionIndex"] == 1


def test_a_killed_run_doubles_no_event(save_path: Path) -> None:
    """What a run printed before it was killed was saved before: the next run counts on from there."""
    with start("--save", save_path, *["build"] * 100, PYTHONUNBUFFERED="1") as run:
        assert run.stdout is not None
        lines = [run.stdout.readline()]
        run.kill()
        lines += run.stdout
    printed = [data_of(json.loads(line)) for line in lines if line.endswith("\n")]
    (after,) = entities(start("--save", save_path, "build"))
    assert after["sessionId"] == printed[0]["sessionId"]
    assert [data["eventIndex"] for data in printed] == list(range(1, len(printed) + 1))
    assert after["eventIndex"] in {len(printed) + 1, len(printed) + 2}


def test_a_save_file_that_cannot_be_is_never_in_the_way(tmp_path: Path) -> None:
    """Where no file can be made, the program says so and goes on."""
    (tmp_path / "file").touch()
    (event,) = entities(start("--save", tmp_path / "file" / "session.xml", "build"), silent=False)
    assert event["eventIndex"] == 1


def test_the_file_is_where_the_platform_wants_it(tmp_path: Path) -> None:
    """Without a path the save file is the user's own."""
    entities(start("build", HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path)))
    assert [path.parent.name for path in tmp_path.rglob("session.xml")] == [
        default_save_path("client-session-cli").parent.name
    ]
