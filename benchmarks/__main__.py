"""``python -m benchmarks``: measure sessions, visitors or logs, print a table, and write results and a chart.

``--check`` only compares with the stored results.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import (
    contention,
    embedding,
    many_sessions,
    saving,
    sessionize,
    sessionize_chart,
    timings,
    visitors,
    visitors_chart,
)
from benchmarks.chart import draw
from benchmarks.results import VERSIONED, find_changes, machine, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from benchmarks.results import Row

HERE = Path(__file__).parent
_PIPED_WIDTH = 180


@attrs.frozen
class Suite:
    """Benchmarks whose results are stored together."""

    parts: Mapping[str, Callable[..., list[Row]]]
    """The functions that measure. Those of logs take a number of rows."""
    results: Path
    chart: Path
    draw: Callable[[Sequence[Row], dict[str, Any]], str]
    packages: Sequence[str]
    """The packages whose versions matter."""


SUITES = {
    "sessions": Suite(
        {
            "timings": timings.measure,
            "embedding": embedding.measure,
            "saving": saving.measure,
            "contention": contention.measure,
            "many-sessions": many_sessions.measure,
        },
        HERE / "results.json",
        HERE / "chart.svg",
        draw,
        VERSIONED,
    ),
    "visitors": Suite(
        {"visitors": visitors.measure},
        HERE / "visitors.json",
        HERE / "visitors.svg",
        visitors_chart.draw,
        visitors.VERSIONED,
    ),
    "sessionize": Suite(
        {
            "sessionize": sessionize.measure,
            "spark": sessionize.measure_spark,
            "parquet": sessionize.measure_parquet,
        },
        HERE / "sessionize.json",
        HERE / "sessionize.svg",
        sessionize_chart.draw,
        sessionize.VERSIONED,
    ),
}


def main() -> None:
    """Measure, then write or check the results. Exit with status 1 if the check finds a change."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="?", choices=SUITES, default="sessions", help="what to measure")
    parser.add_argument("--check", action="store_true", help="compare with the stored results, without writing files")
    parts = [name for suite in SUITES.values() for name in suite.parts]
    parser.add_argument("--only", choices=parts, help="measure only this part, without writing files")
    parser.add_argument("--rows", type=int, help="the rows of the logs to sessionize; without writing files")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    rows: list[Row] = []
    for name, measure in suite.parts.items():
        if options.only in {None, name}:
            begin = time.monotonic()
            with console.status(f"{name} …"):
                rows += measure() if options.rows is None else measure(options.rows)
            console.print(f"[dim]{name}: {time.monotonic() - begin:.0f} s[/]")
    console.print(table(rows))
    if options.check:
        stored, _ = read(suite.results)
        changes = find_changes(stored, rows)
        for change in changes:
            console.print(change, style="red")
        sys.exit(1 if changes else 0)
    if options.only is None and options.rows is None:
        write(suite.results, rows, machine(suite.packages))
        suite.chart.write_text(suite.draw(*read(suite.results)), encoding="utf-8")


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "ours", "reference", "compared with", "result", "range", "limit", ""):
        is_left = heading in {"", "compared with", "limit"}
        shown.add_column(heading, justify="left" if is_left else "right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            f"{row.ours:.4g} {row.unit}",
            "" if row.reference is None else f"{row.reference:.4g} {row.unit}",
            row.against,
            Text(row.shown, "bold"),
            f"{row.low:.3g}-{row.high:.3g}",
            row.limit,
            _verdict(row),
            style="dim" if row.bar is None else "",
        )
    return shown


def _verdict(row: Row) -> Text:
    if row.holds is None:
        return Text("no limit")
    return Text("met", "green") if row.holds else Text("not met", "red")


if __name__ == "__main__":
    main()
