"""The ``client-session sessionize`` command: files that appear when they are complete, and the summary."""

# Polars' types mention NumPy's, which need not be installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click
import polars as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from client_session.sessionize.errors import LogError
from client_session.sessionize.log_files import FORMATS, fault_of, scan_log, write_events
from client_session.sessionize.polars import sessionize, sessionize_parquet
from client_session.sessionize.settings import Settings, column_names
from client_session.sessionize.summary import LENGTHS, REASONS
from client_session.terminal import console, fail
from client_session.testing.trace import TraceError
from client_session_persistence.snapshot import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import NoReturn

    from client_session.sessionize.summary import Summary

_T = TypeVar("_T")
_STANDARD = Path("-")
"""Standard input or standard output."""
_PROGRESS_OF_SESSIONS = 0.9
"""The progress after sessionizing, if the result must still be converted."""
_WAIT_SECONDS = 0.1
_LABEL_WIDTH, _MAX_BAR_WIDTH = 20, 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


@attrs.frozen
class Files:
    """The files that a run reads and writes, with their formats."""

    log: Path
    log_kind: str
    output: Path
    output_kind: str
    carried: Path | None
    states: Path | None

    @classmethod
    def checked(  # noqa: PLR0913  # one argument per option
        cls, log: Path, output: Path, kind: str | None, carried: Path | None, states: Path | None, *, force: bool
    ) -> Files:
        """Return the files; end the command if one must not be overwritten, or has no known format."""
        log_kind, output_kind = _kind(log, kind), _kind(output, kind)
        if output != _STANDARD:
            output = _target(output, (log, carried), force=force)
        if states is not None:
            states = _target(states, (log,), force=force)
            if states == output:
                message = "--write-state must not be the file of --output"
                raise click.UsageError(message)
        return cls(log, log_kind, output, output_kind, carried, states)


def check(columns: Mapping[str, str], **settings: Any) -> None:  # noqa: ANN401  # the arguments of `sessionize`
    """Raise `ValueError` if a setting or the name of a column is invalid."""
    Settings.checked(**settings)
    column_names(columns)


def run(files: Files, columns: Mapping[str, str], **settings: Any) -> Summary:  # noqa: ANN401  # the arguments of `sessionize`
    """Sessionize the log, write the files, and return the summary.

    If this fails or is interrupted, no file appears or changes, and the command ends.
    """
    with _progress_bar() as show_progress:

        def work(check: Callable[[], None]) -> Summary:
            def progress(done: float) -> None:
                check()
                show_progress(done)

            return _run(files, columns, progress, **settings)

        return _interruptible(work)


def show(summary: Summary) -> None:
    """Print the summary to standard error."""
    output = console(stderr=True)
    rows = [
        ("users", summary.users),
        ("events", summary.events),
        ("  in a session", summary.events - summary.repeated_events - summary.events_without_session),
        ("  without a session", summary.events_without_session),
        ("  repeated, dropped", summary.repeated_events),
        ("sessions", summary.sessions),
        *((f"  {reason}", count) for reason, count in zip(REASONS, summary.reasons, strict=True)),
    ]
    if summary.carried_sessions:
        rows.append(("  begun earlier", summary.carried_sessions))
    bars = [(name, count) for (_, name), count in zip(LENGTHS, summary.lengths, strict=True)]
    number_width = max(len(f"{count:,}") for _, count in (*rows, *bars))
    bar_width = min(_MAX_BAR_WIDTH, output.width - _LABEL_WIDTH - number_width - 4)
    most = max(*summary.lengths, 1)

    def line(label: str, number: str, more: str = "", style: str = "") -> None:
        text = f"{label:{_LABEL_WIDTH}}  {number:>{number_width}}  {more}".rstrip()
        output.print(Text(text, style), soft_wrap=True)

    for label, count in rows:
        line(label, f"{count:,}", style="" if label.startswith(" ") else "bold")
    output.print()
    line("session length", "", style="bold")
    for label, count in bars:
        line(f"  {label}", f"{count:,}", _bar(count / most, bar_width, is_ascii=output.options.ascii_only))


def _run(files: Files, columns: Mapping[str, str], progress: Callable[[float], object], **settings: Any) -> Summary:  # noqa: ANN401  # the arguments of `sessionize`
    progress(0)
    with _folder_for(files.output) as folder:
        log = files.log
        if log == _STANDARD:
            log = folder / "log"
            with _writing(folder), log.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        states_folder = contextlib.nullcontext() if files.states is None else _folder_for(files.states)
        with states_folder as folder_of_states:
            states = None if folder_of_states is None else folder_of_states / "states"
            events = folder / "sessions"
            try:
                summary = _sessionize(files, log, events, states=states, columns=columns, progress=progress, **settings)
                if files.output_kind != "parquet":
                    events = folder / "converted"
                    write_events(folder / "sessions", events, files.output_kind)
            except (OSError, pl.exceptions.PolarsError) as error:
                _fail(files, log, error)
            progress(1)
            if files.output == _STANDARD:
                with events.open("rb") as lines:
                    shutil.copyfileobj(lines, sys.stdout.buffer)
                sys.stdout.flush()
            if states is not None and files.states is not None:
                with _writing(files.states):
                    states.replace(files.states)
            if files.output != _STANDARD:
                with _writing(files.output):
                    events.replace(files.output)
    return summary


def _sessionize(  # noqa: PLR0913  # what is read, and what is written
    files: Files,
    log: Path,
    events: Path,
    *,
    states: Path | None,
    columns: Mapping[str, str],
    progress: Callable[[float], object],
    **settings: Any,  # noqa: ANN401  # the arguments of `sessionize`
) -> Summary:
    name = _name(files.log, "input")
    try:
        rows = scan_log(log, files.log_kind, column_names(columns))
        carried = None if files.carried is None else pl.scan_parquet(files.carried)
        arguments: dict[str, Any] = {**settings, "columns": columns, "carried": carried}
        try:
            sessionize(rows, **arguments)  # lazy: this only checks the columns
        except (TypeError, ValueError) as error:
            fail(f"{name} cannot be sessionized: {error}", status=2)
        share = 1 if files.output_kind == "parquet" else _PROGRESS_OF_SESSIONS
        return sessionize_parquet(
            rows, events, **arguments, states=states, progress=lambda done: progress(share * done)
        )
    except LogError as error:
        click.echo(f"Error: {printable(name)} cannot be sessionized:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
        raise click.exceptions.Exit(2) from None
    except TraceError as error:
        fail(str(error), status=2)
    except ValueError as error:
        fail(f"{name} cannot be sessionized: {error}", status=2)


def _kind(path: Path, kind: str | None) -> str:
    found = FORMATS.get(path.suffix.lower()) or kind
    if path == _STANDARD and found not in {"csv", "jsonl"}:
        message = '"-" needs --format csv or --format jsonl'
    elif found is None:
        message = f"pass --format, or a file whose name ends in {', '.join(FORMATS)}, not {str(path)!r}"
    else:
        return found
    raise click.UsageError(message)


def _target(path: Path, sources: tuple[Path | None, ...], *, force: bool) -> Path:
    """Return the file that replaces ``path``: what a symbolic link points to."""
    path = Path(os.path.realpath(path))
    if path.exists():
        if not path.is_file():
            message = f"{path} is not a regular file"
            raise click.UsageError(message)
        if any(source is not None and source.exists() and path.samefile(source) for source in sources):
            message = f"{path} is read, so it must not be overwritten"
            raise click.UsageError(message)
        if not force:
            message = f"{path} exists; pass --force to overwrite it"
            raise click.UsageError(message)
    return path


@contextlib.contextmanager
def _folder_for(target: Path) -> Generator[Path]:
    """Yield a temporary folder on the file system of the target, so that a file in it can be renamed to the target."""
    parent = None if target == _STANDARD else target.parent
    with _writing(target if parent else Path(tempfile.gettempdir())):
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=parent)
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def _fail(files: Files, log: Path, error: Exception) -> NoReturn:
    """End the command after an error of Polars, whose text has the number of the operating system's error."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else None
    if code is not None:
        fail(f"{_name(files.output, 'output')} cannot be written: {os.strerror(code)}")
    fail(f"{_name(files.log, 'input')} cannot be read: {fault_of(log, files.log_kind, error)}", status=2)


def _name(path: Path, stream: str) -> str:
    return f"standard {stream}" if path == _STANDARD else str(path)


def _interruptible(work: Callable[[Callable[[], None]], _T]) -> _T:
    """Return what ``work`` returns, which runs in a thread; SIGINT, SIGTERM and SIGHUP stop it.

    Python runs signal handlers only in the main thread, and there only between queries, which may take minutes. Polars
    stops a query on SIGINT. ``work`` is given a function that raises an error if it should stop.
    """
    if threading.current_thread() is not threading.main_thread():
        return work(lambda: None)
    received: list[int] = []
    is_stopped = threading.Event()
    running: Future[_T] = Future()

    def stop(number: int, _: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    def check() -> None:
        if is_stopped.is_set():
            raise KeyboardInterrupt

    def run_work() -> None:
        try:
            running.set_result(work(check))
        except BaseException as error:  # noqa: BLE001  # the main thread raises it
            running.set_exception(error)

    thread = threading.Thread(target=run_work)
    with _signal_handler(stop):
        try:
            thread.start()
            # With Polars's handler for SIGINT, waiting without a timeout would not be interrupted.
            while not wait((running,), _WAIT_SECONDS).done:
                pass
            return running.result()
        except KeyboardInterrupt:
            is_stopped.set()
            with _silent_threads():
                _stop(thread)
            if not received:
                raise
    signal.raise_signal(received[0])
    raise KeyboardInterrupt


@contextlib.contextmanager
def _signal_handler(handler: Callable[[int, object], None]) -> Generator[None]:
    """Handle SIGTERM and SIGHUP, unless they are ignored, as with nohup, or handled already."""
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [number for name in names if (number := getattr(signal, name, None)) is not None]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _silent_threads() -> Generator[None]:
    """Discard what is written to the descriptor of standard error: Polars's threads report that they were stopped."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _stop(thread: threading.Thread) -> None:
    """Interrupt the current query, and those that follow, until the thread has cleaned up."""
    while True:
        try:
            while thread.is_alive():
                thread.join(_WAIT_SECONDS)
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:  # ours, or the user's
            continue
        return


@contextlib.contextmanager
def _progress_bar() -> Generator[Callable[[float], object]]:
    """Show a progress bar, and yield a function that takes the part of the work that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    output = Console(stderr=True)
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as progress:
        task = progress.add_task("sessionizing", total=1)
        yield lambda done: progress.update(task, completed=done)


def _bar(share: float, width: int, *, is_ascii: bool) -> str:
    if is_ascii:
        return "#" * math.ceil(share * width)
    full, part = divmod(math.ceil(share * width * len(_EIGHTHS)), len(_EIGHTHS))
    return f"{'█' * full}{_EIGHTHS[part]}".rstrip()
