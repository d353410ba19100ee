"""The command-line example, run repeatedly and concurrently."""

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
    """Wait for a run to succeed and return the data of the entities it printed."""
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert (errors == "") is silent, errors
    entities_data = [data_of(json.loads(line)) for line in output.splitlines()]
    for data in entities_data:
        VALIDATORS["1-0-2"].validate(data)
    return entities_data


def test_runs_within_the_timeout_share_a_session(save_path: Path) -> None:
    """Events are numbered across runs; a run after the timeout begins the next session."""
    first = [entities(start("--save", save_path, "build", "test")), entities(start("--save", save_path, "deploy"))]
    events = [data for run in first for data in run]
    assert [data["eventIndex"] for data in events] == [1, 2, 3]
    assert {(data["sessionIndex"], data["sessionId"], data["firstEventId"]) for data in events} == {
        (1, events[0]["sessionId"], events[0]["firstEventId"])
    }
    (next_event,) = entities(start("--save", save_path, "--timeout", "0.001", "build"))
    assert (next_event["sessionIndex"], next_event["eventIndex"]) == (2, 1)
    assert (next_event["previousSessionId"], next_event["userId"]) == (events[0]["sessionId"], events[0]["userId"])


def test_concurrent_runs_share_a_session(save_path: Path) -> None:
    """Six runs that start together share a user, a session and its first event, with no duplicate event indexes."""
    runs = [start("--save", save_path, "build", "test") for _ in range(6)]
    entities_data = [data for run in runs for data in entities(run)]
    assert sorted(data["eventIndex"] for data in entities_data) == list(range(1, 13))
    names = ("userId", "sessionId", "sessionIndex", "previousSessionId", "firstEventId", "firstEventTimestamp")
    assert len({tuple(data[name] for name in names) for data in entities_data}) == 1
    assert entities_data[0]["sessionIndex"] == 1


def test_killed_run_does_not_duplicate_an_event(save_path: Path) -> None:
    """Each event is saved before it is printed, so the run after a killed run continues the numbering."""
    with start("--save", save_path, *["build"] * 100, PYTHONUNBUFFERED="1") as run:
        assert run.stdout is not None
        lines = [run.stdout.readline()]
        run.kill()
        lines += run.stdout
    printed = [data_of(json.loads(line)) for line in lines if line.endswith("\n")]
    (next_event,) = entities(start("--save", save_path, "build"))
    assert next_event["sessionId"] == printed[0]["sessionId"]
    assert [data["eventIndex"] for data in printed] == list(range(1, len(printed) + 1))
    assert next_event["eventIndex"] in {len(printed) + 1, len(printed) + 2}


def test_unusable_save_path_does_not_stop_the_program(tmp_path: Path) -> None:
    """If the save file cannot be created, the program reports the error and continues."""
    (tmp_path / "file").touch()
    (event,) = entities(start("--save", tmp_path / "file" / "session.xml", "build"), silent=False)
    assert event["eventIndex"] == 1


def test_default_save_path_is_in_the_data_directory(tmp_path: Path) -> None:
    """Without a path, the file is created in the user's data directory."""
    entities(start("build", HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path)))
    assert [path.parent.name for path in tmp_path.rglob("session.xml")] == [
        default_save_path("client-session-cli").parent.name
    ]
