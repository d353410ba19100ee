"""What the command line prints: escaped names, any encoding and width, closed pipes, full disks, hostile traces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_session_persistence import Snapshot, dumps
from client_session_persistence.codec import ARRAYS, INSTANCE, SCHEMA
from event_ids import event_id
from hostile_bytes import pair
from terminal import COMMAND, environment, run_on_terminal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

ROOT = Path(__file__).parents[1]
EXAMPLE = str(ROOT / "examples" / "desktop_day.jsonl")
AT = "2026-11-23T09:00:00Z"
SAVED = Snapshot(
    user_id=event_id(7),
    session_id=event_id(8),
    previous_session_id=event_id(9),
    session_index=2147483647,
    event_index=5,
)

HOSTILE = {
    "escape": "\x1b]0;pwned\x07\x1b[2J",
    "C1": "\x9b2J\x9d0;pwned\x9c",
    "bidi": "\u202egnp.exe\u2066",
    "newline": "x\nError: all fine",
    "line separator": "x\u2028Error: all fine\x85Error: all fine",
    "carriage return": "x\rError: all fine\x0b\x0c",
    "markup": "[bold red]x[/bold red][link=http://evil]x[/link]:boom:",
    "surrogate": "\udcff\udc80",
}
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\nError: all fine")


def run(*arguments: str | bytes, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command without a terminal."""
    return subprocess.run(  # noqa: S603  # our own command
        [COMMAND, *arguments], capture_output=True, check=False, timeout=120, env=env or environment()
    )


def run_into(output: int | BinaryIO, arguments: list[str], save_path: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the command on the files it needs, with its output going to a file or descriptor."""
    save_path.write_bytes(dumps(SAVED))
    more = {"show": [str(save_path)], "replay": [EXAMPLE], "verify": ["--examples", "1", "--length", "0"]}.get(
        arguments[0], []
    )
    return subprocess.run(  # noqa: S603  # our own command
        [COMMAND, *arguments, *more],
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
        env=environment(),
    )


def run_on_plain_terminal(*arguments: str | bytes, columns: int = 100) -> tuple[int, str]:
    """Run the command on a terminal of this width; return its exit status and its output without colors."""
    status, output = run_on_terminal(*arguments, columns=columns)
    return status, re.sub(r"\x1b\[[0-9;]*m", "", output)


def hostile_traces(text: str) -> dict[str, str]:
    """Return traces that have this text in every possible place."""
    event = {"at": AT, "input": "event", "id": event_id(1)}
    return {
        "field": json.dumps({**event, text: 1}),
        "duplicate field": f"{{{json.dumps(text)}: 1, {json.dumps(text)}: 2}}",
        "input": json.dumps({**event, "input": text}),
        "at": json.dumps({**event, "at": text}),
        "id": json.dumps({**event, "id": text}),
        "to": json.dumps({"at": AT, "input": "wall", "to": text}),
        "timeout": json.dumps({"at": AT, "input": "timeouts", "foreground_timeout": text}),
        "array": json.dumps([text]),
        "nested": json.dumps({**event, "id": {text: text}}),
        "no JSON": text,
    }


def hostile_files(text: str) -> dict[str, str]:
    """Return save files that have this text in every possible place."""
    root = f'<ArrayOfKeyValueOfstringanyType xmlns="{ARRAYS}" xmlns:i="{INSTANCE}" xmlns:x="{SCHEMA}">'
    user = pair("userId", event_id(7))
    bodies = {
        "text": user + text,
        "duplicate key": user + 2 * pair(text, "1"),
        "user": pair("userId", text),
        "session": user + pair("sessionId", text),
        "mechanism": user + pair("storageMechanism", text),
        "index": user + pair("sessionIndex", text, "x:int"),
        "time": user + pair("lastActivity", text, "x:dateTime"),
        "type": pair("userId", event_id(7), text),
        "unknown key": user + pair("newer", text),
        "instruction": f"<?x {text}?>",
        "element": f"<{text}/>",
    }
    files = {name: f"{root}{body}</ArrayOfKeyValueOfstringanyType>" for name, body in bodies.items()}
    return {**files, "encoding": f'<?xml version="1.0" encoding="x{text}"?><a/>', "no XML": text}


@pytest.mark.parametrize("kind", HOSTILE)
def test_text_from_files_cannot_control_the_terminal(kind: str, tmp_path: Path) -> None:
    """Whatever a trace, a save file or a name contains, the terminal gets no control characters and no extra lines."""
    text = HOSTILE[kind]
    commands: list[tuple[str, str | bytes]] = []
    for command, contents in (("replay", hostile_traces(text)), ("show", hostile_files(text))):
        for place, content in contents.items():
            path = tmp_path / f"{command} {place}"
            path.write_bytes(content.encode("utf-8", "surrogateescape"))
            commands.append((command, str(path)))
    name = os.fsencode(tmp_path) + b"/" + text.replace("/", "").encode("utf-8", "surrogateescape")
    Path(os.fsdecode(name)).write_text("{")
    commands += [("replay", name), ("show", name), ("show", name + b"none"), (text.replace("\0", ""), b"x")]
    program = (
        "import os, sys; from client_session.cli import client_session\n"
        "for line in sys.stdin.buffer.read().split(b'\\0')[:-1]:\n"
        "    try: client_session([os.fsdecode(part) for part in line.split(b'\\x1f')], 'client-session')\n"
        "    except SystemExit as error: sys.stderr.flush(); sys.stderr.write(f'status {error.code}\\n')\n"
    )
    lines = b"".join(b"\x1f".join(os.fsencode(part) for part in parts) + b"\0" for parts in commands)
    result = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program],
        input=lines,
        capture_output=True,
        check=True,
        timeout=120,
        env=environment(FORCE_COLOR="1"),
    )
    output = re.sub(r"\x1b\[[0-9;]*m", "", (result.stdout + result.stderr).decode())
    found = FORBIDDEN.search(output)
    assert found is None, output[max(0, (found.start() if found else 0) - 300) :][:400]
    assert output.count("status ") == len(commands)
    assert "Traceback" not in output


def test_save_path_is_escaped_in_warnings(tmp_path: Path) -> None:
    """A warning about a corrupt save file shows its name escaped, in one line."""
    path = tmp_path / "x\x1b[2J\nError: all fine.xml"
    path.write_text("no XML")
    status, output = run_on_plain_terminal("replay", "--save", str(path), EXAMPLE)
    assert status == 0
    assert r"Warning: " in output
    assert r"x\x1b[2J\nError: all fine.xml is corrupt" in output
    assert FORBIDDEN.search(output) is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_any_encoding_is_enough(encoding: str, tmp_path: Path) -> None:
    """Characters that the output's encoding lacks are escaped; nothing fails."""
    env = environment(PYTHONIOENCODING=encoding)
    name = tmp_path / "caf\xe9 \u65e5\u672c \U0001f600.xml"
    name.write_bytes(dumps(SAVED))
    bad = tmp_path / "\u65e5\u672c.jsonl"
    bad.write_text(json.dumps({"at": AT, "input": "\u65e5\u672c"}))
    report = tmp_path / "\u65e5\u672c"
    expected = {
        ("replay", EXAMPLE): 0,
        ("replay", "--save", str(name), EXAMPLE): 0,
        ("show", str(name)): 0,
        ("show", str(bad)): 1,
        ("show", str(tmp_path / "none\u65e5")): 2,
        ("replay", str(bad)): 2,
        ("diagram", "--format", "svg"): 0,
        ("--help",): 0,
        ("replay", "--\u65e5"): 2,
    }
    if encoding == "ascii":  # the poorest; verification takes seconds
        expected["verify", "--examples", "1", "--length", "0", "--report", str(report)] = 0
    for arguments, status in expected.items():
        result = run(*arguments, env=env)
        assert result.returncode == status, (arguments, result.stderr)
        assert b"Traceback" not in result.stderr
        (result.stdout + result.stderr).decode("utf-8" if arguments[0] == "diagram" else encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full does not exist")
@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["show", "--json"],
        ["replay"],
        ["replay", "--json"],
        ["diagram"],
        ["verify"],
        ["--help"],
        ["--version"],
    ],
)
def test_full_disk_is_a_one_line_error(arguments: list[str], save_path: Path) -> None:
    """If standard output cannot be written, the command says so in one line and exits with status 1."""
    with Path("/dev/full").open("wb") as full:
        result = run_into(full, arguments, save_path)
    assert (result.returncode, result.stderr) == (
        1,
        b"Error: standard output cannot be written: No space left on device\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full does not exist")
def test_full_disk_is_reported_for_files(tmp_path: Path) -> None:
    """If an output file cannot be written, the error names it."""
    result = run("diagram", "-o", "/dev/full")
    assert (result.returncode, result.stderr) == (
        1,
        b"Error: /dev/full cannot be written: No space left on device\n",
    )
    (tmp_path / "coverage.svg").symlink_to("/dev/full")
    result = run("verify", "--examples", "1", "--length", "0", "--report", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"Error: {tmp_path}/coverage.svg cannot be written: No space left on device\n".encode()


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "--json"], ["show"], ["diagram"], ["verify"], ["--help"]])
def test_closed_pipe_ends_the_command_quietly(arguments: list[str], save_path: Path) -> None:
    """If nobody reads the output, the command prints no error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run_into(writer, arguments, save_path)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_narrow_terminal_loses_nothing(columns: int, save_path: Path) -> None:
    """On a narrow terminal, no line is too long, and every value is printed."""
    save_path.write_bytes(dumps(SAVED))
    trace = save_path.with_name("trace.jsonl")
    trace.write_text("".join(f'{{"at": "{AT}", "input": "event", "id": "{event_id(n)}"}}\n' for n in range(12)))
    status, output = run_on_plain_terminal("replay", "--save", str(save_path), str(trace), columns=columns)
    assert status == 0
    assert max(map(len, output.splitlines())) <= columns
    words = " ".join(output.split())
    for number in range(1, 13):
        assert re.search(
            rf"2026-11-23 09:00:00 event foreground-active session [0-9a-f]{{8}}, index 2147483647, event {number}\b",
            words,
        )
    status, output = run_on_plain_terminal("show", str(save_path), columns=columns)
    assert status == 0
    assert max(map(len, output.splitlines())) <= columns
    letters = "".join(output.split())
    assert all(value in letters for value in (event_id(7), event_id(8), event_id(9), "2147483647"))
    status, output = run_on_plain_terminal("verify", "--examples", "1", "--length", "0", columns=columns)
    assert status in (0, 1)
    assert "expired-checker-stopped" in "".join(output.split())


@pytest.mark.parametrize("arguments", [["replay", EXAMPLE], ["show"], ["verify", "--examples", "1", "--length", "0"]])
def test_piped_output_has_no_trailing_spaces(arguments: list[str], save_path: Path) -> None:
    """Without a terminal, each row is one line, and lines are not padded."""
    save_path.write_bytes(dumps(SAVED))
    lines = run(*arguments, *([str(save_path)] if arguments == ["show"] else [])).stdout.decode().splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line != line.rstrip()] == []
    assert max(len(line) - len(" ".join(line.split())) for line in lines) <= 60, "columns are as wide as their contents"


def test_commands_run_without_standard_streams(save_path: Path) -> None:
    """A program without standard output, such as a service, can run the commands."""
    save_path.write_bytes(dumps(SAVED))
    closed = 'exec "$0" "$@" >&- 2>&-'
    for arguments in (["show", str(save_path)], ["replay", EXAMPLE], ["diagram"]):
        result = subprocess.run(["sh", "-c", closed, COMMAND, *arguments], check=False, timeout=60)  # noqa: S603, S607
        assert result.returncode == 0


@pytest.mark.parametrize("leftovers", [[".tmp"], [".tmp", ".lock", ".bak", ".corrupt"], []])
@pytest.mark.parametrize("content", [dumps(SAVED), b"no XML", b""])
@pytest.mark.parametrize("command", ["show", "replay"])
def test_reading_commands_change_nothing_on_disk(
    command: str, content: bytes, leftovers: list[str], tmp_path: Path
) -> None:
    """`show` and `replay --save` neither create, change nor delete a file, whatever is next to the save file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "session.xml"
    for name in ("", *leftovers):
        Path(f"{path}{name}").write_bytes(content or b"a draft")
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    modified = folder.stat().st_mtime_ns
    run(*(["show", str(path)] if command == "show" else ["replay", "--save", str(path), EXAMPLE]))
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before
    assert folder.stat().st_mtime_ns == modified


def test_replay_creates_no_save_file(save_path: Path) -> None:
    """Without ``--write``, `replay --save` does not create a file, and with it, it does."""
    assert run("replay", "--save", str(save_path), EXAMPLE).returncode == 0
    assert list(save_path.parent.iterdir()) == []
    assert run("replay", "--save", str(save_path), "--write", EXAMPLE).returncode == 0
    assert save_path.exists()


def step(at: str, name: str, **fields: object) -> str:
    """Return a line of a trace."""
    return json.dumps({"at": at, "input": name} | ({"id": event_id(1)} if name == "event" else {}) | fields)


BEGIN, END = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
LONG_GAPS = {
    "end of the calendar": [
        step("9999-12-31T23:00:00Z", "event"),
        *(step(END, name) for name in ("event", "background", "restart")),
    ],
    "sleep until the end": [
        step("9999-12-31T23:40:00Z", "event"),
        step("9999-12-31T23:45:00Z", "sleep"),
        step(END, "tick"),
    ],
    "wall clock at the end": [
        step("2026-01-01T00:00:00Z", "event"),
        step("2026-01-01T00:00:01Z", "wall", to=END),
        step("2026-01-01T00:30:00Z", "event"),
    ],
    "wall clock at the beginning": [
        step("2026-01-01T00:00:00Z", "event"),
        step("2026-01-01T00:10:01Z", "wall", to=BEGIN),
        step("2026-01-01T00:30:00Z", "event"),
    ],
    "centuries": [
        step(BEGIN, "event"),
        step("2026-01-01T00:00:00Z", "event"),
        step("4026-01-01T00:00:00Z", "background"),
        step("6026-01-01T00:00:00Z", "event"),
        step("8026-01-01T00:00:00Z", "foreground"),
    ],
    "centuries in one session": [
        step(BEGIN, "timeouts", foreground_timeout=1e300),
        step(BEGIN, "event"),
        step(END, "event"),
    ],
    "centuries of a pending session": [
        step(BEGIN, "timeouts", background_timeout=1e10),
        step(BEGIN, "background"),
        step(END, "event"),
    ],
    "tiny timeouts": [
        step(BEGIN, "timeouts", foreground_timeout=5e-324, background_timeout=5e-324),
        step(BEGIN, "event"),
        step("9026-01-01T00:05:00Z", "event"),
        step("9026-01-01T00:05:00Z", "background"),
        step(END, "event"),
    ],
}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--continue-on-restart"],
        ["--count-empty-sessions"],
        ["--check-interval", "1e-9"],
        ["--check-interval", "1e308"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", LONG_GAPS)
def test_gaps_of_centuries_take_little_time(name: str, options: list[str], tmp_path: Path) -> None:
    """The time to replay a trace does not depend on how much time it spans, up to the calendar's ends."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(LONG_GAPS[name]))
    result = subprocess.run(  # noqa: S603  # our own command
        ["sh", "-c", 'ulimit -t 20; exec "$0" "$@"', COMMAND, "replay", *options, str(trace)],  # noqa: S607
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert b"Traceback" not in result.stderr
    if "--count-empty-sessions" in options and result.returncode == 2:
        assert f"{trace}: the trace spans ".encode() in result.stderr
    else:
        assert (result.returncode, result.stderr) == (0, b"")
