"""The command line: replay a trace, show a save file, draw the graph, verify the lifecycle."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client_session.clock import SystemClock
from client_session.explanation import describe_save_file
from client_session.graph import SessionState
from client_session.testing.driver import SessionOptions
from client_session.testing.replay import Replay
from client_session.testing.trace import TraceError, read_trace
from client_session.verify import diagram as drawing
from client_session_persistence import CorruptSaveFileError, MemoryStore, XmlStore
from client_session_persistence.codec import FIELDS
from client_session_persistence.snapshot import iso_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any, BinaryIO, NoReturn

    from client_session.testing.replay import Moment

_PIPED_WIDTH = 500
"""The output width if there is no terminal. Lines must not wrap, so that tools such as grep see one line per input."""
_DIAGRAMS = {"svg": drawing.svg, "mermaid": drawing.mermaid, "dot": drawing.dot}
_FORMAT_BY_SUFFIX = {"": "mermaid", ".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}
"""The diagram format for each suffix of the output file."""
_MIN_INLINE_WIDTH = 120
"""The minimum terminal width at which explanations are printed on the same line rather than below it."""
_STATE_STYLES = {
    SessionState.FOREGROUND_ACTIVE: "green",
    SessionState.BACKGROUND_ACTIVE: "blue",
    SessionState.EXPIRED_CHECKER_STOPPED: "yellow",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="client-session")
def client_session() -> None:
    """Client sessions for trackers."""


_DEFAULTS = SessionOptions()
_seconds = partial(click.option, type=float, metavar="SECONDS", show_default=True)


@client_session.command()
@click.argument("trace", type=click.File("rb"))
@click.option(
    "--save",
    "save_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Load and save the session in this file. Default: keep it in memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the entity of each event, one JSON object per line.")
@_seconds("--foreground-timeout", default=_DEFAULTS.foreground_timeout, help="Timeout in the foreground; inf: never.")
@_seconds("--background-timeout", default=_DEFAULTS.background_timeout, help="Timeout in the background; inf: never.")
@_seconds("--check-interval", default=_DEFAULTS.check_interval, help="Time between checks.")
@click.option("--no-ticks", is_flag=True, help="Apply only the ticks in the trace.")
@click.option("--count-empty-sessions", is_flag=True, help="Number sessions as the .NET tracker does.")
@click.option("--continue-on-restart", is_flag=True, help="Resume the saved session unless it has timed out.")
def replay(trace: BinaryIO, save_path: str | None, *, as_json: bool, no_ticks: bool, **options: Any) -> None:  # noqa: ANN401  # click passes the type-checked options by name
    """Replay TRACE in a session with a virtual clock, and print what happens.

    TRACE is a JSON Lines file ("-" for standard input) with one input per line, in chronological order, such as

    {"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}

    The inputs are event (with an id), background, foreground, new-session, touch, start-checker, stop-checker, timeouts
    (with foreground_timeout, background_timeout), tick (an extra check), save, restart, sleep (the machine sleeps until
    the next line), wall (the wall clock is set "to" a time), other (another process that uses the save file tracks an
    event, with an id).
    """
    try:
        steps = read_trace(trace, trace.name)
        store = XmlStore(save_path) if save_path else MemoryStore()
        run = Replay(steps, store, SessionOptions(**options), ticking=not no_ticks)
    except TraceError as error:
        _fail(str(error), status=2)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        for moment in run.run():
            if moment.context is not None:
                click.echo(moment.context.to_json())
    else:
        _print_timeline(run.run())
    if run.session.save_error is not None:
        _fail(f"not saved: {run.session.save_error}")


@client_session.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(file: str, *, as_json: bool) -> None:
    """Print the contents of the save file FILE. If it is corrupt or unreadable, print why and exit with status 1."""
    try:
        snapshot = XmlStore(file).load()
    except CorruptSaveFileError as error:
        user = f"the next run recovers user {error.recovered.user_id}" if error.recovered else "no user id to recover"
        _fail(f"{error}\n{user}")
    except OSError as error:
        _fail(f"{file} cannot be read: {error.strerror}")
    if snapshot is None:
        _fail(f"{file} was removed")
    fields = ((key, getattr(snapshot, field)) for key, (field, _) in FIELDS.items())
    values = {key: iso_time(value) if isinstance(value, datetime) else value for key, value in fields}
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for key, value in values.items():
        table.add_row(key, Text("-", "dim") if value is None else str(value))
    description = describe_save_file(snapshot, SystemClock().now(), _DEFAULTS.foreground_timeout)
    table.add_row("description", "\n".join(description))
    _console().print(table)


@client_session.command()
@click.option(
    "--format", "kind", type=click.Choice([*_DIAGRAMS]), help="Default: based on FILE's suffix; mermaid for stdout."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Default: stdout."
)
def diagram(kind: str | None, output: Path | None) -> None:
    """Draw the lifecycle graph."""
    kind = kind or _FORMAT_BY_SUFFIX.get(output.suffix if output else "")
    if kind is None:
        message = f"pass --format, or an output file whose name ends in {', '.join(filter(None, _FORMAT_BY_SUFFIX))}"
        raise click.UsageError(message)
    with _exit_on_error(output):
        data = _DIAGRAMS[kind]().encode()
        if output is not None:
            output.write_bytes(data)
    if output is None:
        click.echo(data, nl=False)


@client_session.command()
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Number of random cases in each part.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Seed for the random cases. Default: random.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write report.html and coverage.svg to this folder.",
)
def verify(examples: int, seed: int | None, report: Path | None) -> None:
    """Verify the lifecycle: explore it exhaustively, and compare random runs with an oracle.

    On failure, print the shortest failing trace and exit with status 1. Requires the "verify" extra.
    """
    try:
        from client_session.verify import command, run  # noqa: PLC0415  # Hypothesis comes with the "verify" extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "hypothesis":
            raise
        _fail("verify needs hypothesis: pip install 'client-session[verify]'")
    with _exit_on_error(report):
        if report is not None:
            report.mkdir(parents=True, exist_ok=True)
            drawing.svg()  # fail now rather than after the verification
        with command.progress_bars({part: 1 if part == "exploration" else examples for part in run.PARTS}) as advance:
            found = run.verify(examples, secrets.randbelow(2**32) if seed is None else seed, advance)
        command.show(found, report)
    sys.exit(1 if found.failures else 0)


_COLUMNS = {"time": 19, "input": 13, "state": 23, "session": 8, "index": 5, "event": 5}


def _print_timeline(moments: Iterable[Moment]) -> None:
    console = _console()
    if console.width >= _MIN_INLINE_WIDTH:
        table = _grid(2, header=True)
        table.add_column("what happened")
        for moment in moments:
            table.add_row(*_cells(moment), _explanation_text(moment))
        console.print(table)
        return
    console.print(_grid(1, header=True))
    for moment in moments:
        line = _grid(1, header=False)
        line.add_row(*_cells(moment))
        console.print(line)
        if moment.explanations:
            console.print(Padding(_explanation_text(moment), (0, 0, 0, 4)))


def _grid(gap: int, *, header: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", show_header=header)
    for heading, width in _COLUMNS.items():
        table.add_column(
            heading, no_wrap=True, min_width=width, justify="right" if heading in {"index", "event"} else "left"
        )
    return table


def _cells(moment: Moment) -> list[str | Text]:
    pending = moment.session_index is None
    return [
        f"{moment.at:%Y-%m-%d %H:%M:%S}",
        Text(moment.input, "dim" if moment.input == "tick" else ""),
        Text(moment.state.value, _STATE_STYLES[moment.state]),
        Text(moment.session_id[:8], "dim" if pending else ""),
        "-" if pending else str(moment.session_index),
        str(moment.event_index or "-"),
    ]


def _explanation_text(moment: Moment) -> Text:
    parts: list[tuple[str, str]] = []
    for explanation in moment.explanations:
        styles = ["yellow"] * bool(explanation.ended) + ["green"] * bool(explanation.begun)
        parts += itertools.zip_longest(explanation.clauses, styles, fillvalue="")
    return Text("; ").join(Text(*part) for part in parts)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


@contextlib.contextmanager
def _exit_on_error(output: Path | None) -> Generator[None]:
    try:
        yield
    except drawing.StalePictureError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or output} cannot be written: {error.strerror}")


def _fail(message: str, *, status: int = 1) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
