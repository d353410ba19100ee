"""The ``client-session verify`` command: progress bars, tables and report files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from client_session.graph import TABLE
from client_session.verify import diagram
from client_session.verify.report import page

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from client_session.verify.run import Failure, Verification
    from client_session.verify.tally import Sample

_PIPED_WIDTH = 160


def show(result: Verification, report: Path | None) -> None:
    """Print the tables, and write the report files if ``report`` is a folder.

    Raises:
        OSError: the report cannot be written.
        StalePictureError: the shipped picture of the graph is stale, and cannot be redrawn without Graphviz.

    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(_rows(result))
    console.print()
    console.print(_invariants(result))
    console.print()
    if result.explored is not None:
        console.print(f"explored all {result.explored.states} states and {result.explored.edges} edges")
    console.print(f"{result.examples} examples, seed {result.seed}, {result.seconds:.1f} s")
    if report is not None:
        _write(report, result, console)
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


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading.startswith("times") else "left")
    return table


def _rows(result: Verification) -> Table:
    table = _table("times taken", "from", r"input \[guard] / effects", "to")
    for row in TABLE:
        count = result.tally.rows[row]
        to = "(same)" if row.destination is row.source else row.destination.value
        table.add_row(
            f"{count:,}", row.source.value, row.label.replace("[", r"\["), to, style=None if count else "bold red"
        )
    return table


def _invariants(result: Verification) -> Table:
    table = _table("times checked", "invariant", "meaning")
    for name, sentence in result.meanings.items():
        count = result.tally.invariants[name]
        table.add_row(f"{count:,}", name, sentence, style=None if count else "bold red")
    return table


def _write(report: Path, result: Verification, console: Console) -> None:
    for name, text in {"report.html": page(result), "coverage.svg": diagram.coverage(result.tally.rows)}.items():
        (report / name).write_text(text, encoding="utf-8")
        console.print(f"Wrote {report / name}", soft_wrap=True)


def _print_failure(failure: Failure, console: Console, report: Path | None) -> None:
    console.print(f"\n{failure.part} failed: {failure.message}", style="bold red", markup=False, soft_wrap=True)
    if failure.sample is None:
        return
    lines = "".join(f"{step.to_json()}\n" for step in failure.sample.steps)
    trace = "failure.jsonl"
    if report is not None:
        path = report / f"failure-{failure.part.replace(' ', '-')}.jsonl"
        path.write_text(lines, encoding="utf-8")
        trace = str(path)
    replay = f"client-session replay {_flags(failure.sample)} {trace}"
    console.print(f"Shortest failing trace. Replay it with {replay}:", soft_wrap=True)
    console.print(lines, end="", markup=False, soft_wrap=True)


def _flags(sample: Sample) -> str:
    options = sample.options
    flags = ["--no-ticks", f"--foreground-timeout {options.foreground_timeout:g}"]
    flags.append(f"--background-timeout {options.background_timeout:g}")
    flags += ["--count-empty-sessions"] * options.count_empty_sessions
    flags += ["--continue-on-restart"] * options.continue_on_restart
    return " ".join(flags)
