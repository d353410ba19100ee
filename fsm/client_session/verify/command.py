"""The ``client-session verify`` command: progress bars, tables and report files."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from client_session.graph import TABLE
from client_session.terminal import console as standard_output
from client_session.terminal import print_table, write_file
from client_session.verify import picture
from client_session.verify.report import page
from client_session_persistence.snapshot import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from client_session.verify.run import Failure, Verification
    from client_session.verify.tally import Sample


def show(result: Verification, report: Path | None) -> None:
    """Write the report files if ``report`` is a folder, and print the tables."""
    written = [] if report is None else _write(report, result)
    console = standard_output()
    print_table(console, *_rows(result))
    console.print()
    print_table(console, *_invariants(result))
    console.print()
    if result.explored is not None:
        console.print(f"explored all {result.explored.states} states and {result.explored.edges} edges")
    timelines = f"{result.timelines} timelines of at most {result.length} inputs"
    console.print(f"compared visitors with a ClientSession on {timelines}")
    names = ", ".join(result.sessionizers)
    console.print(f"sessionized {result.logs} logs of at most {result.length} inputs on {names}")
    console.print(f"{result.examples} examples, seed {result.seed}, {result.seconds:.1f} s")
    for path in written:
        console.print(f"Wrote {printable(str(path))}", soft_wrap=True)
    for failure in result.failures:
        _print_failure(failure, console, report)


@contextlib.contextmanager
def progress_bars(totals: Mapping[str, int]) -> Generator[Callable[[str], object]]:
    """Show a progress bar for each part, and yield a function that advances a part's bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {part: progress.add_task(part, total=total) for part, total in totals.items()}
        yield lambda part: progress.advance(tasks[part])


def _rows(result: Verification) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and rows of the table that shows how often each row of the graph was taken."""
    rows: list[tuple[str, ...]] = [
        (
            f"{result.tally.rows[row]:,}",
            row.source.value,
            row.label,
            "(same)" if row.destination is row.source else row.destination.value,
        )
        for row in TABLE
    ]
    return ("times taken", "from", "input [guard] / effects", "to"), rows


def _invariants(result: Verification) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and rows of the table that shows how often each invariant was checked."""
    rows: list[tuple[str, ...]] = [
        (f"{result.tally.invariants[name]:,}", name, meaning) for name, meaning in result.meanings.items()
    ]
    return ("times checked", "invariant", "meaning"), rows


def _write(report: Path, result: Verification) -> list[Path]:
    texts = {
        report / "report.html": page(result),
        report / "coverage.svg": picture.coverage(result.tally.rows),
        **{_trace_path(report, failure): _trace(failure) for failure in result.failures if failure.sample},
    }
    for path, text in texts.items():
        write_file(path, text.encode())
    return list(texts)


def _trace_path(report: Path, failure: Failure) -> Path:
    return report / f"failure-{failure.part.replace(' ', '-')}.jsonl"


def _trace(failure: Failure) -> str:
    return "".join(f"{step.to_json()}\n" for step in failure.sample.steps) if failure.sample else ""


def _print_failure(failure: Failure, console: Console, report: Path | None) -> None:
    message = "\n".join(map(printable, failure.message.splitlines()))
    console.print(f"\n{failure.part} failed: {message}", style="bold red", soft_wrap=True)
    if failure.sample is None:
        return
    path = Path("failure.jsonl") if report is None else _trace_path(report, failure)
    replay = f"client-session replay {_flags(failure.sample)} {printable(shlex.quote(str(path)))}"
    console.print(f"Shortest failing trace. Replay it with {replay}:", soft_wrap=True)
    console.print(_trace(failure), end="", soft_wrap=True)


def _flags(sample: Sample) -> str:
    options = sample.options
    flags = ["--no-ticks", f"--foreground-timeout {options.foreground_timeout:g}"]
    flags.append(f"--background-timeout {options.background_timeout:g}")
    flags += [] if options.max_duration is None else [f"--max-duration {options.max_duration:g}"]
    flags += ["--extend-on-focus-change"] * options.extend_on_focus_change
    flags += ["--count-empty-sessions"] * options.count_empty_sessions
    flags += ["--continue-on-restart"] * options.continue_on_restart
    return " ".join(flags)
