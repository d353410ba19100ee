"""Draws the chart of what sessionizing a log costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.sessionize import BY_KEY, GAPS, IDS, LIMIT, OURS, REPEATS, SKEWED
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
            f"{engine}, compared with a {GAPS}",
            "CPU time, less is better",
            {
                name: label
                for label in (OURS, f"{OURS}, {BY_KEY}", REPEATS, LIMIT, IDS)
                if (name := f"{engine}, {label}") in names
            },
        )
        for engine in _ENGINES
        if f"{engine}, {OURS}" in names
    ]
    skewed = {name: engine for engine in _ENGINES if (name := f"{engine}, {SKEWED}") in names}
    sections.append((SKEWED.capitalize(), "CPU time, compared with the usual log", skewed))
    versions = ", ".join(f"{name} {version}" for name, version in measured_on["versions"].items())
    return draw_sections("Cost of sessionizing a log", sections, rows, measured_on, versions)
