"""The command line: replay a trace, show a save file, draw the graph, verify the lifecycle, sessionize a log."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import click
from rich.text import Text

from client_session import __version__
from client_session.arguments import snapshot_store, timeout
from client_session.clock import SystemClock
from client_session.explanation import describe_save_file
from client_session.graph import SessionState
from client_session.sessionize.sql import carried_state_sql, problems_sql, sessionize_sql
from client_session.sessionize.sql_dialects import DIALECTS
from client_session.terminal import Program, console, echo, fail, print_beside, print_indented, write_file
from client_session.testing import timeline
from client_session.testing.driver import SessionOptions
from client_session.testing.json_lines import MAX_LINE_BYTES
from client_session.testing.replay import Replay, TraceTooLongError
from client_session.testing.trace import TraceError, read_trace
from client_session.verify import diagram as drawing
from client_session.verify import picture
from client_session_persistence import CorruptSaveFileError, MemoryStore, StoreError, XmlStore
from client_session_persistence.codec import FIELDS
from client_session_persistence.path_argument import file_path
from client_session_persistence.snapshot import iso_time
from client_session_persistence.sqlite_store import is_sqlite, read_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO

    from rich.console import Console

    from client_session.input_log import InputRecord
    from client_session.testing.replay import Moment
    from client_session.testing.trace import Step
    from client_session_persistence import Snapshot, SnapshotStore

_DIAGRAMS = {"svg": picture.svg, "mermaid": drawing.mermaid, "dot": drawing.dot}
_FORMAT_BY_SUFFIX = {"": "mermaid", ".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}
"""The diagram format for each suffix of the output file."""
_MIN_INLINE_WIDTH = 120
"""The minimum terminal width at which explanations are printed on the same line rather than below it."""
_MIN_PAIR_WIDTH = 60
"""The minimum terminal width at which the values in a save file are printed next to their keys."""
_STATE_STYLES = {
    SessionState.FOREGROUND_ACTIVE: "green",
    SessionState.BACKGROUND_ACTIVE: "blue",
    SessionState.EXPIRED_CHECKER_STOPPED: "yellow",
}


@click.group(cls=Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def client_session(context: click.Context) -> None:
    """Client sessions for trackers."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


class _Path(click.Path):
    """A path that is not empty. An empty one usually comes from an unset variable in a script."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  # click's signature
        if not value:
            self.fail("must not be empty", param, ctx)
        return super().convert(value, param, ctx)


class _Seconds(click.types.FloatParamType):
    """A number; its range is checked with the session's other arguments."""

    name = "number of seconds"


_DEFAULTS = SessionOptions()
_seconds = partial(click.option, type=_Seconds(), metavar="SECONDS", show_default=True)
_SECONDS = ("foreground_timeout", "background_timeout", "max_duration", "check_interval")
_OPTIONS = {"save_path": "--save"} | {name: f"--{name.replace('_', '-')}" for name in (*_SECONDS, "namespace")}
"""The option that sets each argument of the session."""


def _timeouts(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the timeouts."""
    for place in ("background", "foreground"):
        name = f"{place}_timeout"
        default = getattr(_DEFAULTS, name)
        command = _seconds(_OPTIONS[name], default=default, help=f"Timeout in the {place}; inf: never.")(command)
    return command


def _limits(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that decide which events share a session."""
    extend = click.option("--extend-on-focus-change", is_flag=True, help="Count a focus change as activity.")
    longest = _seconds("--max-duration", help="Maximum duration of a session. Default: no limit.")
    return _timeouts(longest(extend(command)))


def _usage_error(error: ValueError) -> click.UsageError:
    """Return the error for an invalid argument of a session, in the terms of the command line."""
    message = str(error).replace("math.inf", "inf")
    for name, option in _OPTIONS.items():
        message = message.replace(name, option)
    return click.UsageError(message)


@attrs.frozen
class _WorkingCopy:
    """A store that starts with a save file's contents and keeps all changes in memory."""

    file: XmlStore
    changes: MemoryStore = attrs.field(factory=MemoryStore)

    def load(self) -> Snapshot | None:
        return self.changes.load() or self.file.load(read_only=True)

    def save(self, snapshot: Snapshot) -> None:
        self.changes.save(snapshot)

    def replace_user(self, snapshot: Snapshot) -> None:
        self.changes.replace_user(snapshot)

    def lock(self) -> AbstractContextManager[object]:
        return self.changes.lock()


@client_session.command()
@click.argument("trace", type=click.File("rb"))
@click.option(
    "--save",
    "save_path",
    type=_Path(dir_okay=False),
    metavar="FILE",
    help="Start with the session in this save file. Changes are kept in memory. Default: start without a session.",
)
@click.option("--write", is_flag=True, help="Write the changes to the save file.")
@click.option("--json", "as_json", is_flag=True, help="Print the entity of each event, one JSON object per line.")
@_limits
@_seconds("--check-interval", default=_DEFAULTS.check_interval, help="Time between checks.")
@click.option("--no-ticks", is_flag=True, help="Apply only the ticks in the trace.")
@click.option("--count-empty-sessions", is_flag=True, help="Number sessions as the .NET tracker does.")
@click.option("--continue-on-restart", is_flag=True, help="Resume the saved session unless it is over.")
@click.option(
    "--log",
    type=_Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the inputs that decide which events share a session to this file, as on_input receives them.",
)
@click.option(
    "--svg", type=_Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw a timeline of the replay."
)
def replay(  # noqa: PLR0913  # one argument per option
    trace: BinaryIO,
    save_path: str | None,
    *,
    write: bool,
    as_json: bool,
    no_ticks: bool,
    log: Path | None,
    svg: Path | None,
    **options: Any,  # noqa: ANN401  # click passes the type-checked options by name
) -> None:
    """Replay TRACE in a session with a virtual clock, and print what happens.

    TRACE is a JSON Lines file ("-" for standard input) with one input per line, in chronological order, such as

    {"at": "2026-11-23T09:00:00Z", "input": "event", "id": "<uuid>"}

    The inputs are event and passive (with an id), touch, background, foreground, new-session, forget, start-checker,
    stop-checker, timeouts (with foreground_timeout, background_timeout, max_duration), tick (an extra check), save,
    start (only first), restart, sleep (the machine sleeps until the next line), wall (the wall clock is set "to" a
    time), other (another process that uses the save file tracks an event, with an id).

    TRACE can also be the log of one program's inputs: the records that on_input receives, or that --log writes.
    """
    if write and save_path is None:
        message = "--write needs --save"
        raise click.UsageError(message)
    steps = _read_steps(trace)
    _check_outputs({"--log": log, "--svg": svg}, trace.name, save_path)
    with _log_writer(log) as on_input:
        try:
            store = MemoryStore() if save_path is None else _open(save_path, write=write)
            run = Replay(steps, store, SessionOptions(**options), ticking=not no_ticks, on_input=on_input)
        except TraceTooLongError as error:
            fail(f"{trace.name}: {error}; pass --no-ticks or a longer --foreground-timeout", status=2)
        except ValueError as error:
            raise _usage_error(error) from error
        _show_replay(run.run() if svg is None else _drawn(run.run(), svg, trace.name), as_json=as_json)
    if run.session.save_error is not None:
        fail(f"not saved: {run.session.save_error}")


def _show_replay(moments: Iterable[Moment], *, as_json: bool) -> None:
    if not as_json:
        _print_timeline(moments)
        return
    for moment in moments:
        if moment.context is not None:
            echo(moment.context.to_json())


def _drawn(moments: Iterable[Moment], svg: Path, name: str) -> list[Moment]:
    """Return the moments after drawing their timeline."""
    result = list(moments)
    write_file(svg, timeline.draw(result, Path(name).name).encode())
    return result


def _read_steps(trace: BinaryIO) -> list[Step]:
    try:
        return read_trace(iter(partial(trace.readline, MAX_LINE_BYTES + 1), b""), trace.name)
    except TraceError as error:
        fail(str(error), status=2)
    except OSError as error:
        fail(f"{trace.name} cannot be read: {error.strerror}")


def _check_outputs(outputs: dict[str, Path | None], *inputs: str | None) -> None:
    """Ensure that the files that the replay writes are neither its ``inputs`` nor each other."""
    taken = {Path(name).resolve(): f"{name}, which the replay reads" for name in inputs if name is not None}
    for option, output in outputs.items():
        if output is None:
            continue
        if owner := taken.get(output.resolve()):
            message = f"{option} must not be {owner}"
            raise click.UsageError(message)
        taken[output.resolve()] = f"{output}, which {option} writes"


@contextlib.contextmanager
def _log_writer(log: Path | None) -> Generator[Callable[[InputRecord], object] | None]:
    """Yield an ``on_input`` callback whose records are written to the file ``log`` at the end."""
    if log is None:
        yield None
        return
    records: list[InputRecord] = []
    yield records.append
    write_file(log, "".join(f"{record.to_json()}\n" for record in records).encode())


def _open(save_path: str, *, write: bool) -> SnapshotStore:
    store = snapshot_store(save_path, None, lambda: XmlStore)
    return store if write else _WorkingCopy(cast("XmlStore", store))


@client_session.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_timeouts
def show(file: str, *, as_json: bool, foreground_timeout: float, background_timeout: float) -> None:
    """Print the contents of FILE: a save file, or a database with the sessions of `SqliteStore`, each with its name.

    If it is corrupt or unreadable, print why and exit with status 1. No file is changed or created. The timeouts, which
    a save file does not contain, decide whether the session is over.
    """
    try:
        foreground = timeout("foreground_timeout", foreground_timeout)
        background = timeout("background_timeout", background_timeout)
        file_path("FILE", file)
    except ValueError as error:
        raise _usage_error(error) from error
    is_database = is_sqlite(file)
    try:
        sessions = read_sessions(file) if is_database else {"": XmlStore(file).load(read_only=True)}
    except StoreError as error:
        if is_database or not isinstance(error, CorruptSaveFileError):
            fail(str(error))
        user = f"the next run recovers user {error.recovered.user_id}" if error.recovered else "no user id to recover"
        fail(f"{error}; {user}")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    shown: dict[str, dict[str, object]] = {}
    for name, snapshot in sessions.items():
        if snapshot is None:
            fail(f"{file} was removed")
        fields = ((key, getattr(snapshot, field)) for key, (field, _) in FIELDS.items())
        shown[name] = {key: iso_time(value) if isinstance(value, datetime) else value for key, value in fields}
        if not as_json:
            description = describe_save_file(snapshot, SystemClock().now(), foreground, background)
            _print_snapshot(({"name": name} if is_database else {}) | shown[name], description)
    if as_json:
        echo(json.dumps(shown if is_database else shown[""], indent=2))


def _print_snapshot(values: dict[str, object], description: Iterable[str]) -> None:
    output, width = console(), max(map(len, values))
    lines = [(key, "-" if value is None else str(value)) for key, value in values.items()]
    lines += [("" if number else "description", line) for number, line in enumerate(description)]
    for key, value in lines:
        if output.width < _MIN_PAIR_WIDTH:
            if key:
                output.print(Text(key, "bold"))
            print_indented(output, Text(value))
        else:
            print_beside(output, Text(key.ljust(width), "bold"), Text(value), gap=3)


@client_session.command()
@click.option(
    "--format", "kind", type=click.Choice([*_DIAGRAMS]), help="Default: based on FILE's suffix; mermaid for stdout."
)
@click.option(
    "-o",
    "--output",
    type=_Path(dir_okay=False, readable=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Default: stdout.",
)
def diagram(kind: str | None, output: Path | None) -> None:
    """Draw the lifecycle graph."""
    if output == Path("-"):
        output = None
    kind = kind or _FORMAT_BY_SUFFIX.get(output.suffix.lower() if output else "")
    if kind is None:
        message = f"pass --format, or an output file whose name ends in {', '.join(filter(None, _FORMAT_BY_SUFFIX))}"
        raise click.UsageError(message)
    data = _DIAGRAMS[kind]().encode()
    if output is None:
        click.echo(data, nl=False)
    else:
        write_file(output, data)


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
    "--length",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Compare all timelines and logs of at most N inputs (on SQLite, N - 1). 4 takes ten minutes, 5 eight hours.",
)
@click.option(
    "--report",
    type=_Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write report.html and coverage.svg to this folder.",
)
def verify(examples: int, seed: int | None, length: int, report: Path | None) -> None:
    """Verify the lifecycle: explore it exhaustively, and compare random runs with an oracle.

    Visitors are compared with a ClientSession, on all short timelines and on random ones. Short logs and random ones
    are sessionized with SQLite and, if they are installed, DuckDB and Polars, in one run and in two.

    On failure, print the shortest failing trace and exit with status 1. Requires the "verify" extra.
    """
    try:
        from client_session.verify import command, run  # noqa: PLC0415  # Hypothesis comes with the "verify" extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "hypothesis":
            raise
        fail("verify needs hypothesis: pip install 'client-session[verify]'")
    if report is not None:
        try:
            report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"{error.filename} cannot be written: {error.strerror}")
    with command.progress_bars(run.totals(examples, length)) as advance:
        found = run.verify(examples, secrets.randbelow(2**32) if seed is None else seed, length, advance)
    command.show(found, report)
    if found.failures:
        raise click.exceptions.Exit(1)


def _renamed_columns(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the name of each column that is given as ``COLUMN=NAME``."""
    names: dict[str, str] = {}
    for value in values:
        column, separator, name = value.partition("=")
        if not separator:
            message = f"{value!r} is not COLUMN=NAME"
            raise click.BadParameter(message, ctx, param)
        names[column] = name
    return names


def _log_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for sessionizing a log."""
    for option in (
        click.option("--keep-repeats", is_flag=True, help="Count events again that are sent again."),
        click.option(
            "--column",
            "columns",
            multiple=True,
            callback=_renamed_columns,
            metavar="COLUMN=NAME",
            help="The name of a column in the log, such as user_id=domain_userid. Repeatable.",
        ),
        click.option(
            "--namespace", default="default", show_default=True, metavar="NAME", help="Namespace of the session ids."
        ),
    ):
        command = option(command)
    return _limits(command)


@client_session.command()
@click.argument("log", type=_Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=_Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="OUT",
    required=True,
    help='The file to write; "-": standard output.',
)
@click.option("--force", is_flag=True, help="Overwrite files.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "csv", "jsonl"]),
    help="Format of LOG and OUT if their names do not end in .parquet, .csv, .jsonl or .ndjson.",
)
@_log_options
@click.option(
    "--carried",
    type=_Path(exists=True, dir_okay=False, path_type=Path),
    metavar="STATES",
    help="Continue from the states that --write-state wrote for all earlier inputs.",
)
@click.option(
    "--write-state",
    type=_Path(dir_okay=False, path_type=Path),
    metavar="STATES",
    help="Write each user's state after the log to this Parquet file.",
)
def sessionize(  # noqa: PLR0913  # one argument per option
    log: Path,
    output: Path,
    *,
    force: bool,
    kind: str | None,
    columns: dict[str, str],
    carried: Path | None,
    write_state: Path | None,
    keep_repeats: bool,
    **settings: Any,  # noqa: ANN401  # click passes the type-checked options by name
) -> None:
    """Group the events in LOG into sessions, write a row for each event to OUT, and print a summary.

    LOG is a Parquet, CSV or JSON Lines file with the columns user_id, time, sequence, input and event_id, such as the
    records that on_input receives, or a trace for replay. It may be in any order and larger than memory. Times may have
    any UTC offset; those without one are UTC. OUT has these columns of each event that belongs to a session, and those
    of its entity.

    The files appear when they are complete. Requires the "polars" extra.
    """
    try:
        from client_session.sessionize import command  # noqa: PLC0415  # Polars comes with the "polars" extra
    except ImportError as error:
        cause = error.__cause__ or error
        if not (isinstance(cause, ModuleNotFoundError) and cause.name in {"polars", "polars_hash"}):
            raise
        fail("sessionize needs Polars: pip install 'client-session[polars]'")
    files = command.Files.checked(log, output, kind, carried, write_state, force=force)
    try:
        command.check(columns, **settings)
    except ValueError as error:
        raise _usage_error(error) from error
    command.show(command.run(files, columns, drop_repeats=not keep_repeats, **settings))


@client_session.command()
@click.option("--dialect", type=click.Choice([*DIALECTS]), required=True, help="The engine that runs the query.")
@click.option("--log", default="log", show_default=True, metavar="TABLE", help="The log: a table or a subquery.")
@_log_options
@click.option("--carried", metavar="TABLE", help="A table with the result of --state for all earlier inputs.")
@click.option("--state", "query", flag_value="state", help="Print the query for each user's state after the log.")
@click.option("--problems", "query", flag_value="problems", help="Print the query for what is wrong with the log.")
def sql(  # noqa: PLR0913  # one argument per option
    dialect: str,
    *,
    columns: dict[str, str],
    keep_repeats: bool,
    query: str | None,
    log: str,
    carried: str | None,
    **settings: Any,  # noqa: ANN401  # click passes the type-checked options by name
) -> None:
    """Print the query that groups the events in a log into sessions.

    The log has the columns user_id, time, sequence, input and event_id; the result is that of sessionize.
    """
    given: dict[str, Any] = {"log": log, "columns": columns, "carried": carried}
    try:
        if query == "problems":
            text = problems_sql(dialect, **given)
        else:
            print_query = carried_state_sql if query == "state" else sessionize_sql
            text = print_query(dialect, **given, drop_repeats=not keep_repeats, **settings)
    except ValueError as error:
        raise _usage_error(error) from error
    echo(text.rstrip("\n"))


_COLUMNS = {"time": 19, "input": 13, "state": 23, "session": 8, "index": 5, "event": 5}


def _print_timeline(moments: Iterable[Moment]) -> None:
    output = console()
    is_inline = output.width >= _MIN_INLINE_WIDTH
    gap = 2 if is_inline else 1
    heading = _row([Text(name) for name in _COLUMNS], gap)
    heading.stylize("bold")
    if is_inline:
        print_beside(output, heading, Text("what happened", "bold"), gap)
    elif len(heading) <= output.width:
        output.print(heading)
    for moment in moments:
        cells, explanation = _cells(moment), _explanation_text(moment)
        row = _row(cells, gap)
        if is_inline:
            print_beside(output, row, explanation, gap)
            continue
        if len(row) <= output.width:
            output.print(row)
        else:
            _print_narrow(output, *cells)
        if explanation:
            print_indented(output, explanation)


def _print_narrow(output: Console, *cells: Text) -> None:
    """Print what does not fit in a row below each other."""
    time, given, state, session_id, index, event = cells
    output.print(Text(" ").join((time, given)))
    print_indented(output, state)
    print_indented(output, Text.assemble("session ", session_id, ", index ", index, ", event ", event))


def _row(cells: list[Text], gap: int) -> Text:
    padded = [cell.copy() for cell in cells]
    for cell, (heading, width) in zip(padded, _COLUMNS.items(), strict=True):
        cell.align("right" if heading in {"index", "event"} else "left", max(width, len(cell)))
    return Text(" " * gap).join(padded)


def _cells(moment: Moment) -> list[Text]:
    pending = moment.session_index is None
    return [
        Text(moment.at.replace(tzinfo=None).isoformat(" ", "seconds")),
        Text(moment.input, "dim" if moment.input == "tick" else ""),
        Text(moment.state.value, _STATE_STYLES[moment.state]),
        Text(moment.session_id[:8], "dim" if pending else ""),
        Text("-" if pending else str(moment.session_index)),
        Text(str(moment.event_index or "-")),
    ]


def _explanation_text(moment: Moment) -> Text:
    parts: list[tuple[str, str]] = []
    for explanation in moment.explanations:
        styles = ["yellow"] * bool(explanation.ended) + ["green"] * bool(explanation.begun)
        parts += itertools.zip_longest(explanation.clauses, styles, fillvalue="")
    return Text("; ").join(Text(*part) for part in parts)
