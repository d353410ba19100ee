"""Output that suits any terminal, pipe and encoding.

Text from outside (arguments, file names, traces, save files) is escaped, so that it cannot control the terminal or
imitate other lines. Every error is one line on standard error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client_session_persistence.snapshot import printable

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NoReturn

_UNLIMITED_WIDTH = 1000
"""The width if there is no terminal. Lines must not wrap, so that tools such as grep see one line per row."""
_MIN_TABLE_WIDTH = 80
"""The minimum terminal width at which tables have columns."""


class Program(click.Group):
    """A group of commands. A command that fails prints one line, preceded by the usage if its arguments are invalid."""

    def main(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # click's signature
        """Run a command and exit: with status 2 if the input is invalid, and with status 1 after any other error."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _warnings_on_stderr():
            try:
                status = super().main(*args, **(options | {"standalone_mode": False}))
                if sys.stdout is not None:
                    sys.stdout.flush()
            except click.Abort:
                status = 1
            except click.ClickException as error:
                _show(error)
                status = error.exit_code
            except OSError as error:
                _discard_output()
                status = 1
                if not isinstance(error, BrokenPipeError):
                    name = error.filename or "standard output"
                    _show(click.ClickException(f"{name} cannot be written: {error.strerror}"))
        sys.exit(status)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """End the command with an error."""
    raise _FailureError(message, status)


class _FailureError(click.ClickException):
    """An error with its own exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all; if that fails, end the command with an error that names the file."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            path.write_bytes(data)
            return
        target = path.resolve()
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".client-session-") as folder:
            written = Path(folder, "new")
            written.write_bytes(data)
            if target.exists():
                shutil.copymode(target, written)
            written.replace(target)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def echo(text: str) -> None:
    """Print a line."""
    click.echo(text, file=sys.stdout)  # without a file, click does not respect PYTHONIOENCODING=ascii


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error.

    It does not interpret markup, and wraps lines only on a terminal.
    """
    output = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not output.is_terminal:
        output.width = _UNLIMITED_WIDTH
    return output


def print_beside(output: Console, left: Text, right: Text, gap: int) -> None:
    """Print two texts next to each other; on a terminal, the right one is wrapped."""
    if not output.is_terminal:
        echo(f"{left.plain}{' ' * gap}{right.plain}".rstrip())
        return
    pair = Table.grid(padding=(0, gap, 0, 0), pad_edge=False)
    pair.add_column(no_wrap=True)
    pair.add_column(overflow="fold")
    pair.add_row(left, right)
    output.print(pair)


def print_indented(output: Console, text: Text) -> None:
    """Print a text below a line that it belongs to."""
    output.print(Padding(text, (0, 0, 0, min(4, output.width // 10))))


def print_table(output: Console, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table whose first column contains numbers. Rows with the number 0 are red."""
    if output.width < _MIN_TABLE_WIDTH:
        for row in (headings, *rows):
            output.print(Text("  ".join(row), _row_style(row)))
    elif output.is_terminal:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number else "right", overflow="fold")
        for row in rows:
            table.add_row(*row, style=_row_style(row))
        output.print(table)
    else:
        first, *others = (max(map(len, column)) for column in zip(headings, *rows, strict=True))
        for row in (headings, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row[1:], others, strict=True))
            echo("  ".join((row[0].rjust(first), *cells)).rstrip())


def _row_style(row: tuple[str, ...]) -> str:
    return "bold red" if row[0] == "0" else ""


def _show(error: click.ClickException) -> None:
    message = printable(error.format_message().replace("\n\t", " "))  # click lists choices on separate lines
    safe = (
        click.UsageError(message, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(message)
    )
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            safe.show(sys.stderr)


def _discard_output() -> None:
    """Point standard output at the null device, so that the interpreter does not retry the write at exit."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


class _Warning(logging.Formatter):
    """Formats a log record as one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return f"Warning: {printable(record.message)}"


@contextlib.contextmanager
def _warnings_on_stderr() -> Generator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(_Warning())
    logger = logging.getLogger("client_session")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
