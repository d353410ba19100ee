"""Draws the chart of what visitors cost, narrow enough for a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.chart import (
    EXCEEDED_COLOR,
    FAINT_INK,
    MARGIN,
    MET_COLOR,
    REFERENCE_COLOR,
    ROW_HEIGHT,
    heading,
    labeled_bar,
    svg,
    text,
)
from benchmarks.visitors import GET_AND_SET, RANDOM_PROCESS, SAME_PROCESS, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Row

_TITLE = "Cost of visitors"

_SECTIONS = (
    (f"Throughput compared with {GET_AND_SET}", "more is better", (SAME_PROCESS, RANDOM_PROCESS)),
    (
        "8 processes on one visitor",
        "ms, less is better",
        tuple(f"{SHARED}: {name}" for name in ("p50", "p99", "p99.9")),
    ),
    (
        "Memory per visitor",
        "bytes, less is better",
        ("bytes per visitor in Redis", "the same, eight sessions of one event", "bytes per visitor in MemoryStates"),
    ),
)


def draw(rows: Sequence[Row], measured_on: dict[str, Any]) -> str:
    """Return the chart as SVG: three groups of bars, whose lines mark the limits."""
    by_name = {row.name: row for row in rows}
    parts = [text(MARGIN, 46, _TITLE, font_size=24, font_weight=600)]
    y = 74
    for line in (
        f"{measured_on['cpu']}, {measured_on['cores']} cores, {measured_on['os']}",
        f"{measured_on['python']}, redis-py {measured_on['versions']['redis']}, {measured_on['date']}",
    ):
        parts.append(text(MARGIN, y, line, fill=FAINT_INK, font_size=14))
        y += 20
    for words, note, names in _SECTIONS:
        y += 26
        parts.append(heading(y, words, note))
        y += 14
        found = [by_name[name] for name in names]
        longest = max(max(row.value, 0 if row.bar is None else row.bar.limit) for row in found) * 1.08
        for name, row in zip(names, found, strict=True):
            parts.extend(_bar(name.removeprefix(f"{SHARED}: "), row, longest, y))
            y += ROW_HEIGHT
    return svg(y + 16, parts, title=_TITLE)


def _bar(label: str, row: Row, longest: float, y: float) -> Iterable[str]:
    color = REFERENCE_COLOR if row.bar is None else MET_COLOR if row.holds else EXCEEDED_COLOR
    limit = f" ({row.limit})" if row.bar else ""
    line = None if row.bar is None else row.bar.limit / longest
    yield from labeled_bar(y, (label, f"{row.shown}{limit}"), row.value / longest, color, line)
