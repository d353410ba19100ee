"""The command line, run as its users run it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft4Validator, FormatChecker

from client_session import diagram as drawing
from client_session.testing.trace import INPUTS
from client_session_persistence import Snapshot, dumps, loads
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
EXAMPLE = str(ROOT / "examples" / "desktop_day.jsonl")
SCHEMA = json.loads((ROOT / "tests/data/iglu/client_session-1-0-2.json").read_text())
COMMAND = str(Path(sys.executable).parent / "client-session")


def run(
    *arguments: str, given: str | None = None, command: Sequence[str] = (COMMAND,)
) -> subprocess.CompletedProcess[str]:
    """Run the command as installed."""
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "COLUMNS"}}
    return subprocess.run(  # noqa: S603  # our own command
        [*command, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def trace(*lines: tuple[str, str]) -> str:
    """Return a trace of inputs at times of one day."""
    return "\n".join(
        json.dumps({"at": f"2026-11-23T{at}Z", "input": name} | ({"id": event_id(number)} if name == "event" else {}))
        for number, (at, name) in enumerate(lines)
    )


TWO_EVENTS = trace(("09:00:00", "event"), ("09:02:00", "event"))


def test_replay_prints_a_timeline() -> None:
    """Time, input, state, session, index, event and what happened, in aligned columns, plain when piped."""
    done = run("replay", EXAMPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["time", "input", "state", "session", "index", "event", "what", "happened"]
    columns = [heading.index(name) for name in ("time", "input", "state", "session")]
    row = re.compile(r"2026-11-23 \d\d:\d\d:\d\d  [a-z-]+ +[a-z-]+ +[0-9a-f]{8} +(\d+|-) +(\d+|-)( .*)?")
    assert len(lines) > 60
    for line in lines:
        assert row.fullmatch(line), line
        assert all(line[column - 1] == " " != line[column] for column in columns[1:]), line


def test_python_m_fsm_is_the_same_command() -> None:
    """Without the script on the path there is the module."""
    done = run("replay", "-", given=TWO_EVENTS, command=(sys.executable, "-m", "client_session"))
    assert done.returncode == 0
    assert "session 1 begins" in done.stdout


def test_replay_has_colour_on_a_terminal() -> None:
    """The states are coloured where somebody looks."""
    leader, follower = pty.openpty()
    with subprocess.Popen(  # noqa: S603  # our own command
        [COMMAND, "replay", EXAMPLE], stdout=follower, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "150"}
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(timeout=60) == 0
    os.close(leader)
    assert b"\x1b[32mforeground-active" in shown


@pytest.mark.parametrize("columns", [80, 119])
def test_in_a_narrow_terminal_what_happened_stands_below(columns: int) -> None:
    """No column is cut off, no line is broken but between words, and the words are the same."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(columns)}
    done = subprocess.run(  # noqa: S603  # our own command
        [COMMAND, "replay", EXAMPLE], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == ["time", "input", "state", "session", "index", "event"]
    shown = " ".join(" ".join(lines).split())
    told = [
        line[line.index("session 1") :].strip()
        for line in run("replay", EXAMPLE).stdout.splitlines()
        if "610 s" in line
    ]
    assert len(told) == 1
    assert told[0] in shown


def test_replay_json_prints_the_entities() -> None:
    """One valid entity for each event, a line each."""
    done = run("replay", "--json", EXAMPLE)
    entities = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(entities) == Path(EXAMPLE).read_text().count('"event"')
    for entity in entities:
        Draft4Validator(SCHEMA, format_checker=FormatChecker()).validate(entity["data"])


def test_replay_saves_and_show_shows(save_path: Path) -> None:
    """--save keeps the session in a file, a second run goes on from it, show prints it, as text and as JSON."""
    for _ in range(2):
        assert run("replay", "--save", str(save_path), "-", given=TWO_EVENTS).returncode == 0
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (2, 2)
    shown = run("show", str(save_path))
    fields = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert fields["userId"].strip() == saved.user_id
    assert fields["sessionIndex"].strip() == "2"
    assert fields["lastActivity"].strip() == "2026-11-23T09:02:00.000Z"
    began = "session 2 (2 events) began at 2026-11-23 09:00:00Z"
    assert fields["description"].strip() == began
    assert json.loads(run("show", "--json", str(save_path)).stdout) == {
        "userId": saved.user_id,
        "sessionId": saved.session_id,
        "previousSessionId": saved.previous_session_id,
        "sessionIndex": 2,
        "storageMechanism": "LOCAL_STORAGE",
        "firstEventId": event_id(0),
        "firstEventTimestamp": "2026-11-23T09:00:00.000Z",
        "eventIndex": 2,
        "lastActivity": "2026-11-23T09:02:00.000Z",
    }


@pytest.mark.parametrize(("minutes", "goes_on"), [(1, True), (10, False)])
def test_show_says_what_a_start_would_make_of_it(save_path: Path, minutes: int, goes_on: bool) -> None:  # noqa: FBT001  # an example's outcome
    """By the machine's clock and the default timeout, in the words of `ClientSession.explain`."""
    last_activity = datetime.now(UTC) - timedelta(minutes=minutes)
    saved = Snapshot(
        user_id=event_id(7), session_id=event_id(8), session_index=3, event_index=5, last_activity=last_activity
    )
    save_path.write_bytes(dumps(saved))
    verb = "continue" if goes_on else "not continue"
    expected = rf"with continue_on_restart, it would {verb} now: idle for \d+ s \(timeout 600 s\)"
    assert re.search(expected, run("show", str(save_path)).stdout)


@pytest.mark.parametrize(
    ("options", "indexes"),
    [
        ([], [1, 1, 2]),
        (["--foreground-timeout", "60"], [1, 2, 3]),
        (["--background-timeout", "60"], [1, 1, 2]),
        (["--count-empty-sessions"], [1, 1, 3]),
        (["--foreground-timeout", "5000"], [1, 1, 2]),
        (["--foreground-timeout", "5000", "--continue-on-restart"], [1, 1, 1]),
    ],
)
def test_session_options(options: list[str], indexes: list[int]) -> None:
    """Timeouts split sessions, empty ones are counted, and a restart in time goes on, as asked."""
    given = trace(("09:00:00", "event"), ("09:02:00", "event"), ("09:20:00", "restart"), ("09:20:01", "event"))
    done = run("replay", "--json", *options, "-", given=given)
    assert [json.loads(line)["data"]["sessionIndex"] for line in done.stdout.splitlines()] == indexes


def test_a_bad_line_is_named_and_nothing_is_saved(save_path: Path, tmp_path: Path) -> None:
    """File, line and fault on stderr, exit status 2, no save file, no output."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(TWO_EVENTS + '\n{"at": "2026-11-23T09:03:00Z", "input": "explode"}\n')
    done = run("replay", "--save", str(save_path), str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: {bad}:3: 'input' must be one of event," in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize("option", ["foreground-timeout", "background-timeout", "check-interval"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_bad_options_are_named(option: str, value: str) -> None:
    """Exit status 2, and the option or argument in the message."""
    done = run("replay", f"--{option}", value, EXAMPLE)
    assert done.returncode == 2
    assert option in done.stderr.replace("_", "-")
    assert "Traceback" not in done.stderr


def test_a_folder_is_no_save_file(tmp_path: Path) -> None:
    """Exit status 2, before anything happens."""
    done = run("replay", "--save", str(tmp_path), EXAMPLE)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr


def test_what_could_not_be_saved_is_said(tmp_path: Path) -> None:
    """The timeline is printed all the same; exit status 1."""
    (tmp_path / "file").write_text("")
    done = run("replay", "--save", str(tmp_path / "file" / "session.xml"), "-", given=TWO_EVENTS)
    assert done.returncode == 1
    assert "session 1 begins" in done.stdout
    assert "Error: not saved: " in done.stderr


def test_show_says_what_is_wrong(save_path: Path) -> None:
    """Of a corrupt file: the reason, and whether the user can be recovered; exit status 1."""
    save_path.write_bytes(dumps(Snapshot(user_id=event_id(7), session_index=3))[:-1])
    done = run("show", str(save_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: {save_path} is corrupt: not well-formed XML: unclosed token" in done.stderr
    assert f"the next start recovers user {event_id(7)}" in done.stderr
    save_path.write_bytes(b"")
    assert "no user id" in run("show", str(save_path)).stderr


def test_show_names_what_cannot_be_read(tmp_path: Path) -> None:
    """A missing file or a folder is wrong use (2); a FIFO is said to be none, at once (1)."""
    assert run("show", str(tmp_path / "none.xml")).returncode == 2
    assert run("show", str(tmp_path)).returncode == 2
    os.mkfifo(tmp_path / "fifo")
    done = run("show", str(tmp_path / "fifo"))
    assert done.returncode == 1
    assert "cannot be read: Not a regular file" in done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_show_says_what_may_not_be_read(open_folder: Path) -> None:
    """Somebody else's file is as it should be, and yet cannot be shown (1)."""
    save_path = open_folder / "session.xml"
    save_path.write_bytes(dumps(Snapshot(user_id=event_id(7))))
    save_path.chmod(0)
    program = "import os; from client_session.cli import client_session; os.setuid(65534); client_session()"
    done = run("show", str(save_path), command=(sys.executable, "-c", program))
    assert (done.returncode, done.stderr) == (1, f"Error: {save_path} cannot be read: Permission denied\n")


@pytest.mark.parametrize("kind", ["mermaid", "dot"])
def test_diagrams_as_text(kind: str, tmp_path: Path) -> None:
    """Printed, or written to a file whose name says which."""
    expected = {"mermaid": drawing.mermaid(), "dot": drawing.dot()}[kind]
    assert run("diagram", "--format", kind).stdout == expected
    target = tmp_path / {"mermaid": "graph.mmd", "dot": "graph.dot"}[kind]
    assert run("diagram", "-o", str(target)).returncode == 0
    assert target.read_text() == expected


def test_the_picture_needs_no_graphviz(tmp_path: Path) -> None:
    """The SVG is the shipped one, printed or written to a file."""
    environment = {**os.environ, "PATH": str(tmp_path)}
    for arguments in (["--format", "svg"], ["-o", str(tmp_path / "graph.svg")]):
        done = subprocess.run(  # noqa: S603  # our own command
            [COMMAND, "diagram", *arguments], env=environment, capture_output=True, check=True, timeout=60
        )
        picture = done.stdout or (tmp_path / "graph.svg").read_bytes()
        assert picture == (ROOT / "diagrams" / "lifecycle.svg").read_bytes()


def test_a_stale_picture_is_one_line_of_error(tmp_path: Path) -> None:
    """After a change of the table, without Graphviz: exit status 1, and no traceback."""
    program = (
        "from client_session import cli, diagram; diagram.source_mark = lambda: 'changed';"
        "cli.client_session(['diagram', '--format', 'svg'])"
    )
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", program],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, f"Error: {drawing.StalePictureError()}\n")


def test_an_unknown_suffix_needs_a_format(tmp_path: Path) -> None:
    """Exit status 2, and no file."""
    done = run("diagram", "-o", str(tmp_path / "graph.png"))
    assert done.returncode == 2
    assert "give --format" in done.stderr
    assert not (tmp_path / "graph.png").exists()
    assert run("diagram", "--format", "dot", "-o", str(tmp_path / "graph.txt")).returncode == 0


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """Exit status 1, naming the file."""
    done = run("diagram", "-o", str(tmp_path / "none" / "graph.mmd"))
    assert done.returncode == 1
    assert "graph.mmd cannot be written: No such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--help"], ["replay", "show", "diagram", "--version"]),
        (
            ["replay", "-h"],
            [*INPUTS, "--save", "--json", "--foreground-timeout", "--continue-on-restart", "[default: 600]"],
        ),
        (["show", "--help"], ["--json", "FILE"]),
        (["diagram", "--help"], ["--format", "svg|mermaid|dot", "--output"]),
    ],
)
def test_help_names_everything(arguments: list[str], named: list[str]) -> None:
    """Each command explains its arguments and options."""
    done = run(*arguments)
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert all(name in shown for name in named)


def test_wrong_use_is_explained() -> None:
    """An unknown command or option, or none, is exit status 2 with the usage."""
    for arguments in ([], ["dance"], ["replay"], ["replay", EXAMPLE, "--dance"], ["diagram", "--format", "gif"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert "Usage: client-session" in done.stderr + done.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_the_command_says_how_to_get_it(missing: str) -> None:
    """No traceback, but what to install."""
    program = f"import sys; sys.modules['{missing}'] = None; from client_session.__main__ import main; main()"
    done = run("-c", program, command=(sys.executable,))
    assert done.returncode == 1
    assert done.stderr == f"client-session needs {missing}: pip install 'client-session[cli]'\n"


def test_the_library_imports_nothing_of_the_commands() -> None:
    """An embedder's import brings neither click nor rich nor hypothesis."""
    modules = "sys, client_session, client_session_persistence, client_session.testing"
    program = f"import {modules}; print({{'click', 'rich', 'hypothesis'}} & sys.modules.keys())"
    assert run("-c", program, command=(sys.executable,)).stdout == "set()\n"
