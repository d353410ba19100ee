"""Draws the chart of what visitors cost, narrow enough for a phone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from benchmarks.chart import (
    EXCEEDED_COLOR,
    FAINT_INK,
    MARGIN,
    MET_COLOR,
    REFERENCE_COLOR,
    ROW_HEIGHT,
    axis,
    heading,
    labeled_bar,
    svg,
    text,
)
from benchmarks.visitors import GET_AND_SET, RANDOM_PROCESS, SAME_PROCESS, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.results import Row

_TITLE = "Cost of visitors"
_AXIS_HEIGHT = 44

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
    sections = [
        (heading, note, {name: name.removeprefix(f"{SHARED}: ") for name in names})
        for heading, note, names in _SECTIONS
    ]
    return draw_sections(_TITLE, sections, rows, measured_on, f"redis-py {measured_on['versions']['redis']}")


def draw_sections(
    title: str,
    sections: Iterable[tuple[str, str, Mapping[str, str]]],
    rows: Sequence[Row],
    measured_on: dict[str, Any],
    versions: str,
) -> str:
    """Return a chart of groups of bars, each with a heading, a note, and a label for each row's name."""
    by_name = {row.name: row for row in rows}
    parts = [text(MARGIN, 46, title, font_size=24, font_weight=600)]
    y = 74
    for line in (
        f"{measured_on['cpu']}, {measured_on['cores']} cores, {measured_on['os']}",
        f"{measured_on['python']}, {versions}, {measured_on['date']}",
    ):
        parts.append(text(MARGIN, y, line, fill=FAINT_INK, font_size=14))
        y += 20
    for words, note, labels in sections:
        y += 26
        parts.append(heading(y, words, note))
        y += 14
        found = [by_name[name] for name in labels]
        longest = max(max(row.value, 0 if row.bar is None else row.bar.limit) for row in found) * 1.08
        for label, row in zip(labels.values(), found, strict=True):
            parts.extend(_bar(label, row, longest, y))
            y += ROW_HEIGHT
        parts.extend(axis(_ticks(longest), y))
        y += _AXIS_HEIGHT
    return svg(y + 16, parts, title=title)


def _ticks(longest: float) -> dict[str, float]:
    """Return the labels of at most six round values and where they are on an axis, as shares of its length."""
    power = 10.0 ** math.floor(math.log10(longest))
    step = next(step for digit in (0.2, 0.5, 1, 2) if longest < 6 * (step := digit * power))
    return {f"{number * step:g}": number * step / longest for number in range(int(longest / step) + 1)}


def _bar(label: str, row: Row, longest: float, y: float) -> Iterable[str]:
    color = REFERENCE_COLOR if row.bar is None else MET_COLOR if row.holds else EXCEEDED_COLOR
    limit = f" ({row.limit})" if row.bar else ""
    line = None if row.bar is None else row.bar.limit / longest
    yield from labeled_bar(y, (label, f"{row.shown}{limit}"), row.value / longest, color, line)
