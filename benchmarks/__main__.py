"""``python -m benchmarks``: measure, print a table, write ``results.json`` and ``chart.svg``; --check only compares."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import contention, many_sessions, saving, timings
from benchmarks.chart import draw
from benchmarks.results import find_changes, machine, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.results import Row

HERE = Path(__file__).parent
RESULTS, CHART = HERE / "results.json", HERE / "chart.svg"
_PIPED_WIDTH = 180
PARTS: dict[str, Callable[[], list[Row]]] = {
    "timings": timings.measure,
    "saving": saving.measure,
    "contention": contention.measure,
    "many-sessions": many_sessions.measure,
}


def main() -> None:
    """Measure, then write or check the results; exit with status 1 if a check finds a change."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the stored results; write nothing")
    parser.add_argument("--only", choices=PARTS, help="measure one part; write nothing")
    options = parser.parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    rows: list[Row] = []
    for name, measure in PARTS.items():
        if options.only in {None, name}:
            begin = time.monotonic()
            with console.status(f"{name} …"):
                rows += measure()
            console.print(f"[dim]{name}: {time.monotonic() - begin:.0f} s[/]")
    console.print(table(rows))
    if options.check:
        stored, _ = read(RESULTS)
        changes = find_changes(stored, rows)
        for change in changes:
            console.print(change, style="red")
        sys.exit(1 if changes else 0)
    if options.only is None:
        write(RESULTS, rows, machine())
        CHART.write_text(draw(*read(RESULTS)), encoding="utf-8")


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
