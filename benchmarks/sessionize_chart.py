"""Draws the chart of what sessionizing a log costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.sessionize import GAPS, IDS, LIMIT, OURS, REPEATS, SAME_SORT, SKEWED, USUAL_LOG
from benchmarks.visitors_chart import draw_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Row

_ENGINES = ("Polars", "DuckDB", "Spark")


def draw(rows: Sequence[Row], measured_on: dict[str, Any]) -> str:
    """Return the chart as SVG, with a group of bars for each engine that was measured."""
    names = {row.name for row in rows}
    sections = [
        (
            engine,
            f"compared with a {GAPS}, less is better",
            {
                name: label
                for label in (OURS, SAME_SORT, REPEATS, LIMIT, IDS)
                if (name := f"{engine}, {label}") in names
            },
        )
        for engine in _ENGINES
        if f"{engine}, {OURS}" in names
    ]
    skewed = {name: engine for engine in _ENGINES if (name := f"{engine}, {SKEWED}") in names}
    sections.append((SKEWED, f"compared with {USUAL_LOG}", skewed))
    versions = ", ".join(f"{name} {version}" for name, version in measured_on["versions"].items())
    return draw_sections("CPU time of sessionizing a log", sections, rows, measured_on, versions)
