"""Running the installed command on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "client-session")


def environment(**changes: str) -> dict[str, str]:
    """Return the environment without the variables that affect output."""
    ignored = {"FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING", "NO_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in ignored} | changes


def run_on_terminal(*arguments: str | bytes, columns: int = 100) -> tuple[int, str]:
    """Run the command on a terminal of this width; return its exit status and its output, with escape sequences."""
    leader, follower = pty.openpty()
    attributes = termios.tcgetattr(follower)
    attributes[1] &= ~termios.OPOST  # do not translate line breaks
    termios.tcsetattr(follower, termios.TCSANOW, attributes)
    with subprocess.Popen(  # noqa: S603  # our own command
        [COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(TERM="xterm-256color", COLUMNS=str(columns)),
    ) as process:
        os.close(follower)
        output = b""
        with contextlib.suppress(OSError):  # raised when the process has closed the terminal
            while piece := os.read(leader, 65536):
                output += piece
        status = process.wait(timeout=60)
    os.close(leader)
    return status, output.decode()
