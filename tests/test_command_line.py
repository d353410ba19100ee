"""The command line, run as an installed program."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft4Validator, FormatChecker

from client_session.testing.trace import INPUTS
from client_session.verify import diagram as drawing
from client_session_persistence import Snapshot, SqliteStates, SqliteStore, dumps, loads
from event_ids import event_id
from terminal import COMMAND, run_on_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
EXAMPLE = str(ROOT / "examples" / "desktop_day.jsonl")
SCHEMA = json.loads((ROOT / "tests/data/iglu/client_session-1-0-2.json").read_text())


def run(
    *arguments: str, stdin: str | None = None, command: Sequence[str] = (COMMAND,)
) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "COLUMNS"}}
    return subprocess.run(  # noqa: S603  # our own command
        [*command, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def trace(*lines: tuple[str, str]) -> str:
    """Return a trace of inputs that all happen on the same day."""
    return "\n".join(
        json.dumps({"at": f"2026-11-23T{at}Z", "input": name} | ({"id": event_id(number)} if name == "event" else {}))
        for number, (at, name) in enumerate(lines)
    )


TWO_EVENTS = trace(("09:00:00", "event"), ("09:02:00", "event"))


def test_replay_prints_a_timeline() -> None:
    """If the output is piped, the timeline has aligned columns but no colors."""
    result = run("replay", EXAMPLE)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == ["time", "input", "state", "session", "index", "event", "what", "happened"]
    columns = [heading.index(name) for name in ("time", "input", "state", "session")]
    row = re.compile(r"2026-11-23 \d\d:\d\d:\d\d  [a-z-]+ +[a-z-]+ +[0-9a-f]{8} +(\d+|-) +(\d+|-)( .*)?")
    assert len(lines) > 60
    for line in lines:
        assert row.fullmatch(line), line
        assert all(line[column - 1] == " " != line[column] for column in columns[1:]), line


def test_python_m_client_session_is_the_same_command() -> None:
    """``python -m client_session`` works without the installed script."""
    result = run("replay", "-", stdin=TWO_EVENTS, command=(sys.executable, "-m", "client_session"))
    assert result.returncode == 0
    assert "session 1 begins" in result.stdout


def test_replay_is_colored_on_a_terminal() -> None:
    """States are colored if the output is a terminal."""
    status, output = run_on_terminal("replay", EXAMPLE, columns=150)
    assert status == 0
    assert "\x1b[32mforeground-active" in output


@pytest.mark.parametrize("columns", [80, 119])
def test_narrow_terminal_moves_the_description_below_the_row(columns: int) -> None:
    """Columns are not cut off, lines are wrapped only between words, and no words are lost."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(columns)}
    result = subprocess.run(  # noqa: S603  # our own command
        [COMMAND, "replay", EXAMPLE], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == ["time", "input", "state", "session", "index", "event"]
    output = " ".join(" ".join(lines).split())
    descriptions = [
        line[line.index("session 1") :].strip()
        for line in run("replay", EXAMPLE).stdout.splitlines()
        if "610 s" in line
    ]
    assert len(descriptions) == 1
    assert descriptions[0] in output


def test_replay_json_prints_the_entities() -> None:
    """``--json`` prints a valid entity for each event that belongs to a session, one entity per line."""
    result = run("replay", "--json", EXAMPLE)
    entities = [json.loads(line) for line in result.stdout.splitlines()]
    events_without_session = 1
    assert len(entities) == Path(EXAMPLE).read_text().count('"id"') - events_without_session
    for entity in entities:
        Draft4Validator(SCHEMA, format_checker=FormatChecker()).validate(entity["data"])


def test_replay_saves_and_show_prints_the_file(save_path: Path) -> None:
    """``--write`` writes the session, a second run continues from it, and ``show`` prints it as text and as JSON."""
    for _ in range(2):
        assert run("replay", "--save", str(save_path), "--write", "-", stdin=TWO_EVENTS).returncode == 0
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (2, 2)
    output = run("show", str(save_path))
    fields = dict(line.split(maxsplit=1) for line in output.stdout.splitlines())
    assert fields["userId"].strip() == saved.user_id
    assert fields["sessionIndex"].strip() == "2"
    assert fields["lastActivity"].strip() == "2026-11-23T09:02:00.000Z"
    description = "session 2 (2 events) began at 2026-11-23 09:00:00Z"
    assert fields["description"].strip() == description
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
        "sessionStart": "2026-11-23T09:00:00.000Z",
        "background": None,
    }


@pytest.mark.parametrize(
    ("minutes", "options", "continues"),
    [(1, {}, True), (10, {}, False), (10, {"foreground": 1800}, True), (10, {"background": 1800}, False)],
)
def test_show_predicts_whether_a_start_would_continue(
    save_path: Path,
    minutes: int,
    options: dict[str, int],
    continues: bool,  # noqa: FBT001  # parametrized
) -> None:
    """The prediction uses the system clock, the given timeouts and the wording of `ClientSession.explain`."""
    last_activity = datetime.now(UTC) - timedelta(minutes=minutes)
    saved = Snapshot(
        user_id=event_id(7), session_id=event_id(8), session_index=3, event_index=5, last_activity=last_activity
    )
    save_path.write_bytes(dumps(saved))
    verb = "continue" if continues else "not continue"
    timeout = f"{options.get('foreground', 600):,}"
    expected = rf"with continue_on_restart, it would {verb} now: idle for \d+ s \(timeout {timeout} s\)"
    arguments = [f"--{place}-timeout={seconds}" for place, seconds in options.items()]
    assert re.search(expected, run("show", str(save_path), *arguments).stdout)


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
def test_replay_applies_the_session_options(options: list[str], indexes: list[int]) -> None:
    """The options for the timeouts, for empty sessions and for restarts are applied to the session."""
    stdin = trace(("09:00:00", "event"), ("09:02:00", "event"), ("09:20:00", "restart"), ("09:20:01", "event"))
    result = run("replay", "--json", *options, "-", stdin=stdin)
    assert [json.loads(line)["data"]["sessionIndex"] for line in result.stdout.splitlines()] == indexes


def test_replay_applies_the_limits_and_the_meaning_of_focus_changes() -> None:
    """``--max-duration`` ends a busy session, and ``--extend-on-focus-change`` extends an idle one."""
    busy = trace(("09:00:00", "event"), ("09:05:00", "event"), ("09:10:00", "event"))
    assert "session 1 (2 events) ended: it reached the maximum duration of 600 s" in (
        run("replay", "--max-duration", "600", "-", stdin=busy).stdout
    )
    assert "ended: closed" in run("replay", "--max-duration", "inf", "-", stdin=busy).stdout
    idle = trace(("09:00:00", "event"), ("09:09:00", "background"), ("09:13:00", "event"))
    assert "session 2 begins" in run("replay", "-", stdin=idle).stdout
    assert "session 2 begins" not in run("replay", "--extend-on-focus-change", "-", stdin=idle).stdout


def test_replay_writes_a_log_that_it_can_read(tmp_path: Path) -> None:
    """The records that ``--log`` writes have the same sessions as the trace."""
    log = tmp_path / "inputs.jsonl"
    log.write_text("older")
    result = run("replay", "--json", "--log", str(log), EXAMPLE)
    assert (result.returncode, result.stderr) == (0, "")
    assert log.read_text().startswith('{"user_id":"')
    places = [
        [(data["sessionIndex"], data["eventIndex"], data["firstEventId"]) for data in map(data_of_line, lines)]
        for lines in (result.stdout.splitlines(), run("replay", "--json", str(log)).stdout.splitlines())
    ]
    assert places[0] == places[1]


def data_of_line(line: str) -> dict[str, object]:
    """Return the data of an entity that ``--json`` printed."""
    data: dict[str, object] = json.loads(line)["data"]
    return data


def test_output_does_not_overwrite_what_the_replay_reads(tmp_path: Path) -> None:
    """If the log or the picture is the trace or the save file, the exit status is 2 and the file is kept."""
    day = tmp_path / "day.jsonl"
    day.write_text(TWO_EVENTS)
    (tmp_path / "link.jsonl").symlink_to(day)
    for option in ("--log", "--svg"):
        for arguments in (
            [option, str(tmp_path / "link.jsonl"), str(day)],
            ["--save", str(day), option, str(day), "-"],
        ):
            result = run("replay", *arguments, stdin=TWO_EVENTS)
            assert (result.returncode, result.stdout) == (2, "")
            assert result.stderr.splitlines()[-1] == f"Error: {option} must not be {day}, which the replay reads"
    assert day.read_text() == TWO_EVENTS
    both = run("replay", "--log", str(tmp_path / "out"), "--svg", str(tmp_path / "x" / ".." / "out"), str(day))
    assert both.returncode == 2
    assert both.stderr.splitlines()[-1] == f"Error: --svg must not be {tmp_path / 'out'}, which --log writes"
    missing = run("replay", "--log", str(tmp_path / "none" / "log"), str(day))
    assert missing.returncode == 1
    assert missing.stderr == f"Error: {tmp_path / 'none' / 'log'} cannot be written: No such file or directory\n"


def test_replay_draws_a_timeline(tmp_path: Path) -> None:
    """``--svg`` replaces a file by the picture of the replay, and changes nothing that is printed."""
    picture = tmp_path / "<day>.svg"
    picture.write_text("older")
    result = run("replay", "--json", "--svg", str(picture), EXAMPLE)
    assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (0, "", 48)
    assert picture.read_bytes() == (ROOT / "diagrams" / "day.svg").read_bytes()
    assert run("replay", "--svg", str(picture), "-", stdin="").returncode == 2
    assert picture.read_bytes() == (ROOT / "diagrams" / "day.svg").read_bytes()


def test_files_are_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failed write keeps the older file; a successful one keeps its mode and a symbolic link to it."""
    target, link = tmp_path / "day.svg", tmp_path / "link.svg"
    target.write_text("older")
    target.chmod(0o640)
    link.symlink_to(target)
    limited = "import resource as r, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limited += (
        "r.setrlimit(r.RLIMIT_FSIZE, (1000, 1000)); from client_session.cli import client_session; client_session()"
    )
    failed = run("replay", "--svg", str(link), EXAMPLE, command=(sys.executable, "-c", limited))
    assert (failed.returncode, failed.stderr) == (1, f"Error: {link} cannot be written: File too large\n")
    assert target.read_text() == "older"
    assert run("replay", "--svg", str(link), EXAMPLE).returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() == (ROOT / "diagrams" / "day.svg").read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [target, link]


def test_bad_line_is_reported_and_nothing_is_saved(save_path: Path, tmp_path: Path) -> None:
    """For a bad line, stderr shows the file, line number and error; the exit status is 2, and nothing is saved."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(TWO_EVENTS + '\n{"at": "2026-11-23T09:03:00Z", "input": "explode"}\n')
    result = run("replay", "--save", str(save_path), "--write", str(bad))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"Error: {bad}:3: 'input' must be one of event," in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *itertools.product(
            ["replay"],
            ["foreground-timeout", "background-timeout", "max-duration", "check-interval"],
            ["0", "-1", "nan", "-inf", "soon"],
        ),
        ("replay", "check-interval", "inf"),
        *itertools.product(["show"], ["foreground-timeout", "background-timeout"], ["0", "-1", "nan", "soon"]),
    ],
)
def test_bad_option_is_named_in_the_error(command: str, option: str, value: str) -> None:
    """Given a bad value, the command names the option and exits with status 2."""
    result = run(command, f"--{option}", value, EXAMPLE)
    assert result.returncode == 2
    assert f"--{option}" in result.stderr
    assert option.replace("-", "_") not in result.stderr
    assert "math.inf" not in result.stderr
    assert ("'soon' is not a valid number of seconds" in result.stderr) is (value == "soon")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["replay", "--write", EXAMPLE], "--write"),
        (["replay", "--save", "", EXAMPLE], "--save"),
        (["replay", "--save", " ", EXAMPLE], "--save"),
        (["replay", "--save", "none/", EXAMPLE], "--save"),
        (["replay", "--log", "", EXAMPLE], "--log"),
        (["diagram", "-o", ""], "-o"),
        (["diagram", "--output", "x.jpg"], ".svg, .dot, .gv, .mmd"),
        (["diagram", "--format", "jpg"], "--format"),
        (["verify", "--report", ""], "--report"),
        (["verify", "--examples", "0"], "--examples"),
        (["verify", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_argument_is_named_as_it_was_typed(arguments: list[str], named: str, tmp_path: Path) -> None:
    """The last line of the message names the option, the exit status is 2, and no file is created."""
    result = subprocess.run(  # noqa: S603  # our own command
        [COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert named in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_folder_is_rejected_as_a_save_file(tmp_path: Path) -> None:
    """If the save path is a folder, the command exits with status 2 before doing anything else."""
    result = run("replay", "--save", str(tmp_path), EXAMPLE)
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr


def test_failed_save_is_reported(tmp_path: Path) -> None:
    """If saving fails, the timeline is still printed, and the exit status is 1."""
    (tmp_path / "file").write_text("")
    result = run("replay", "--save", str(tmp_path / "file" / "session.xml"), "--write", "-", stdin=TWO_EVENTS)
    assert result.returncode == 1
    assert "session 1 begins" in result.stdout
    assert "Error: not saved: " in result.stderr


def test_show_explains_a_corrupt_file(save_path: Path) -> None:
    """``show`` prints the reason and whether the user id can be recovered, and exits with status 1."""
    save_path.write_bytes(dumps(Snapshot(user_id=event_id(7), session_index=3))[:-1])
    result = run("show", str(save_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"Error: {save_path} is corrupt: not well-formed XML: unclosed token" in result.stderr
    assert f"the next run recovers user {event_id(7)}" in result.stderr
    save_path.write_bytes(b"")
    assert "no user id" in run("show", str(save_path)).stderr


def test_show_names_a_file_it_cannot_read(tmp_path: Path) -> None:
    """For a missing file or a folder, the exit status is 2; for a FIFO, it is 1, and the command does not block."""
    assert run("show", str(tmp_path / "none.xml")).returncode == 2
    assert run("show", str(tmp_path)).returncode == 2
    os.mkfifo(tmp_path / "fifo")
    result = run("show", str(tmp_path / "fifo"))
    assert result.returncode == 1
    assert "cannot be read: Not a regular file" in result.stderr


def test_show_reports_a_file_that_vanishes(save_path: Path) -> None:
    """If the file is removed after the existence check, the error says so, and the exit status is 1."""
    save_path.write_bytes(dumps(Snapshot(user_id=event_id(7))))
    program = (
        "from client_session import cli, XmlStore; load = XmlStore.load;"
        "XmlStore.load = lambda store, **options: (store.path.unlink(), load(store, **options))[1];"
        "cli.client_session()"
    )
    done = run("show", str(save_path), command=(sys.executable, "-c", program))
    assert (done.returncode, done.stderr) == (1, f"Error: {save_path} was removed\n")


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the contents of each file in a folder, read by another process, so that ours keeps its locks."""
    program = "import pathlib, sys; print({p.name: p.read_bytes() for p in pathlib.Path(sys.argv[1]).iterdir()})"
    printed = subprocess.check_output([sys.executable, "-c", program, folder], text=True)  # noqa: S603  # our own
    contents: dict[str, bytes] = ast.literal_eval(printed)
    return contents


@pytest.mark.parametrize("state", ["closed", "open", "after a kill", "without an index"])
def test_show_prints_each_session_of_a_database(tmp_path: Path, state: str) -> None:
    """``show`` prints every session with its name, whether or not a program has the database open; no file changes."""
    path = tmp_path / "sessions.db"
    store, other = SqliteStore(path), SqliteStore(path, "évil")
    store.save(Snapshot(user_id=event_id(7)))
    other.save(Snapshot(user_id=event_id(8), session_id=event_id(9), session_index=3))
    if state == "closed":
        del store, other
    elif state != "open":
        copies = tmp_path / "copies"
        copies.mkdir()
        for suffix in ("", "-wal", *(["-shm"] if state == "after a kill" else [])):
            program = "import shutil, sys; shutil.copy(*sys.argv[1:])"
            subprocess.run([sys.executable, "-c", program, f"{path}{suffix}", str(copies)], check=True)  # noqa: S603  # our own
        path = copies / path.name
    before = contents_of(path.parent) if state != "closed" else {}
    result = run("show", str(path), "--json")
    assert result.stderr == ""
    assert {name: values["sessionIndex"] for name, values in json.loads(result.stdout).items()} == {
        "default": 0,
        "évil": 3,
    }
    printed = run("show", str(path)).stdout
    assert re.findall(r"^name +(\S+)$", printed, re.MULTILINE) == ["default", "évil"]
    assert f"userId                {event_id(8)}" in printed
    if state != "closed":
        assert contents_of(path.parent) == before


def test_show_explains_a_database_that_it_cannot_use(tmp_path: Path) -> None:
    """A corrupt database, and one of visitors or another application, give a one-line error and status 1."""
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    result = run("show", str(path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path} is the database of another application (application_id 0")
    SqliteStates(tmp_path / "visitors.db").swap("key", None, b"value", 60)
    result = run("show", str(tmp_path / "visitors.db"))
    assert (result.returncode, result.stdout) == (1, "")
    assert "visitors.db is a database of visitors' states (SqliteStates), not of sessions" in result.stderr
    path.write_bytes(b"SQLite format 3\0" + bytes(4080))
    result = run("show", str(path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path} is corrupt: ")


def test_path_that_means_something_else_to_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is called :memory: needs a path with a folder."""
    monkeypatch.chdir(tmp_path)
    Path(":memory:").write_bytes(dumps(Snapshot(user_id=event_id(7))))
    result = run("show", ":memory:")
    assert result.returncode == 2
    assert "Error: FILE must be the path of a file, not ':memory:'" in result.stderr
    assert run("show", "./:memory:").returncode == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to switch users")
def test_show_reports_a_permission_error(open_folder: Path) -> None:
    """If the file belongs to another user and cannot be read, the exit status is 1."""
    save_path = open_folder / "session.xml"
    save_path.write_bytes(dumps(Snapshot(user_id=event_id(7))))
    save_path.chmod(0)
    program = "import os; from client_session.cli import client_session; os.setuid(65534); client_session()"
    result = run("show", str(save_path), command=(sys.executable, "-c", program))
    assert (result.returncode, result.stderr) == (1, f"Error: {save_path} cannot be read: Permission denied\n")


@pytest.mark.parametrize("kind", ["mermaid", "dot"])
def test_diagram_as_text(kind: str, tmp_path: Path) -> None:
    """The diagram is printed, or written to a file whose extension determines the format."""
    expected = {"mermaid": drawing.mermaid(), "dot": drawing.dot()}[kind]
    assert run("diagram", "--format", kind).stdout == expected
    target = tmp_path / {"mermaid": "graph.mmd", "dot": "graph.dot"}[kind]
    assert run("diagram", "-o", str(target)).returncode == 0
    assert target.read_text() == expected


def test_diagram_as_svg_needs_no_other_program(tmp_path: Path) -> None:
    """The SVG in the package is printed or written to a file."""
    environment = {**os.environ, "PATH": str(tmp_path)}
    for arguments in (["--format", "svg"], ["-o", str(tmp_path / "graph.svg")]):
        result = subprocess.run(  # noqa: S603  # our own command
            [COMMAND, "diagram", *arguments], env=environment, capture_output=True, check=True, timeout=60
        )
        picture = result.stdout or (tmp_path / "graph.svg").read_bytes()
        assert picture == (ROOT / "diagrams" / "lifecycle.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
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
def test_help_lists_arguments_and_options(arguments: list[str], expected: list[str]) -> None:
    """The help for each command explains the arguments and options."""
    result = run(*arguments)
    assert result.returncode == 0
    output = " ".join(result.stdout.split())
    assert all(name in output for name in expected)


def test_wrong_usage_is_explained() -> None:
    """For a missing or unknown command or option, the usage is printed and the exit status is 2."""
    for arguments in ([], ["unknown"], ["replay"], ["replay", EXAMPLE, "--unknown"], ["diagram", "--format", "gif"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert "Usage: client-session" in result.stderr + result.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_explained(missing: str) -> None:
    """For a missing dependency, the exit status is 1 and the message contains the pip command that installs it."""
    program = f"import sys; sys.modules['{missing}'] = None; from client_session.__main__ import main; main()"
    result = run("-c", program, command=(sys.executable,))
    assert result.returncode == 1
    assert result.stderr == f"client-session needs {missing}: pip install 'client-session[cli]'\n"


@pytest.mark.parametrize("arguments", [["show", "x.xml"], ["verify"]])
def test_broken_installation_is_not_blamed_on_a_missing_extra(arguments: list[str]) -> None:
    """If a module from another package is missing, the traceback names it."""
    module = {"show": "client_session.verify.diagram", "verify": "client_session.verify.report"}[arguments[0]]
    program = f"import sys; sys.modules['{module}'] = None; from client_session.__main__ import main; main()"
    done = run("-c", program, *arguments, command=(sys.executable,))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ModuleNotFoundError: import of {module} halted")


def test_library_does_not_import_the_cli_dependencies() -> None:
    """Importing the library does not load click, rich or hypothesis."""
    modules = "sys, client_session, client_session_persistence, client_session.testing"
    program = f"import {modules}; print({{'click', 'rich', 'hypothesis'}} & sys.modules.keys())"
    assert run("-c", program, command=(sys.executable,)).stdout == "set()\n"
