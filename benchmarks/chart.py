"""Draws the SVG chart without a library: the time per event, and each row's value as a share of its limit.

The chart is narrow enough for a phone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from benchmarks.results import EVENT_COMPARISON, EVENT_ROW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Row

WIDTH = 560
MARGIN = 28
LENGTH = WIDTH - 2 * MARGIN
ROW_HEIGHT = 46
"""The height of a label with its bar below."""
_BAR_HEIGHT = 12
_MAX_SHARE = 1.1
"""The end of the axis of limits, as a multiple of the limit; longer bars are truncated."""
_CARD_COLOR, _EDGE_COLOR, INK, FAINT_INK, TRACK_COLOR = "#ffffff", "#d0d7de", "#24292f", "#636c76", "#eef1f4"
MET_COLOR, EXCEEDED_COLOR, REFERENCE_COLOR = "#2e8b5e", "#c8602a", "#a9b7c6"
_DARK_COLORS = {
    _CARD_COLOR: "#0d1117",
    _EDGE_COLOR: "#30363d",
    INK: "#e6edf3",
    FAINT_INK: "#9ea7b3",
    TRACK_COLOR: "#21262d",
    MET_COLOR: "#3fb37a",
    EXCEEDED_COLOR: "#e0854a",
    REFERENCE_COLOR: "#57677a",
}
"""The color on dark pages that replaces each color."""
_TITLE = "Cost of a client session"
_OURS = "client-session"
_FONT = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"


def draw(rows: Sequence[Row], measured_on: dict[str, Any]) -> str:
    """Return the chart as SVG."""
    limited_rows = [(row, row.bar) for row in rows if row.bar is not None]
    events = _times_per_event(rows)
    y = 46.0
    parts = [text(MARGIN, y, _TITLE, font_size=24, font_weight=600)]
    parts.append(
        text(MARGIN, y + 28, f"{measured_on['cpu']}, {measured_on['cores']} cores", fill=FAINT_INK, font_size=14)
    )
    parts.append(text(MARGIN, y + 48, f"{measured_on['python']}, {measured_on['date']}", fill=FAINT_INK, font_size=14))
    y += 84
    if events:
        parts += [heading(y, "Time per event", "log scale, less is better"), *_event_bars(events, y + 14)]
        y += 14 + ROW_HEIGHT * len(events) + 72
    met = sum(bar.holds(row.value) for row, bar in limited_rows)
    parts.append(heading(y, f"{met} of {len(limited_rows)} limits met", "share of the limit, less is better"))
    y += 14
    bottom = y + ROW_HEIGHT * len(limited_rows)
    parts.extend(axis({f"{share} %": share / 100 / _MAX_SHARE for share in (0, 25, 50, 75, 100)}, bottom))
    for number, (row, bar) in enumerate(limited_rows):
        color = MET_COLOR if row.holds else EXCEEDED_COLOR
        share = min(bar.used_share(row.value) / _MAX_SHARE, 1.0)
        parts.extend(
            labeled_bar(y + number * ROW_HEIGHT, (row.name, f"{row.shown} ({row.limit})"), share, color, 1 / _MAX_SHARE)
        )
    return svg(bottom + 48, parts, title=_TITLE)


def _times_per_event(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """Return each implementation's name and nanoseconds per event, fastest first."""
    comparisons = [row for row in rows if row.name.startswith(EVENT_COMPARISON)]
    event = next((row for row in rows if row.name == EVENT_ROW), None)
    if event is None:
        return []
    times = [(row.against, row.reference) for row in (event, *comparisons) if row.reference is not None]
    return sorted([*times, (_OURS, event.ours)], key=lambda item: item[1])


def _event_bars(events: Sequence[tuple[str, float]], top: float) -> Iterable[str]:
    """Yield a bar for each implementation, on an axis from one power of ten to another."""
    logarithms = [math.log10(nanoseconds / 1000) for _, nanoseconds in events]
    first, last = math.floor(logarithms[0] - 0.1), math.ceil(logarithms[-1])
    ticks = {f"{10.0**power:g} µs": (power - first) / (last - first) for power in range(first, last + 1)}
    yield from axis(ticks, top + ROW_HEIGHT * len(events))
    for number, ((name, nanoseconds), logarithm) in enumerate(zip(events, logarithms, strict=True)):
        color = MET_COLOR if name == _OURS else REFERENCE_COLOR
        words = name, f"{nanoseconds / 1000:.3g} µs"
        yield from labeled_bar(top + number * ROW_HEIGHT, words, (logarithm - first) / (last - first), color)


def axis(ticks: dict[str, float], y: float) -> Iterable[str]:
    """Yield the axis below the bars, with a tick and a label for each share of the length."""
    yield f'<path d="M{MARGIN} {y + 8:g}H{MARGIN + LENGTH}" stroke="{FAINT_INK}"/>'
    for words, share in ticks.items():
        x = MARGIN + LENGTH * share
        yield f'<path d="M{x:.1f} {y + 8:g}v5" stroke="{FAINT_INK}"/>'
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        yield text(x, y + 29, words, fill=FAINT_INK, font_size=14, text_anchor=anchor)


def labeled_bar(
    y: float, words: tuple[str, str], share: float, color: str, limit: float | None = None
) -> Iterable[str]:
    """Yield a label, a value, and below them a bar that fills a share of the length, with a line at the limit."""
    label, shown = words
    yield text(MARGIN, y + 22, label)
    ink = EXCEEDED_COLOR if color == EXCEEDED_COLOR else INK
    yield text(WIDTH - MARGIN, y + 22, shown, text_anchor="end", font_weight=600, fill=ink)
    yield _bar(y + 29, LENGTH, TRACK_COLOR)
    yield _bar(y + 29, max(LENGTH * share, 3), color)
    if limit is not None:
        x = MARGIN + LENGTH * limit
        yield f'<path d="M{x:.1f} {y + 26:g}v{_BAR_HEIGHT + 6}" stroke="{INK}" stroke-width="2"/>'


def heading(y: float, words: str, note: str) -> str:
    """Return a heading with a note at the right."""
    return text(MARGIN, y, words, font_size=18, font_weight=600) + text(
        WIDTH - MARGIN, y, note, fill=FAINT_INK, text_anchor="end", font_size=14
    )


def _bar(y: float, length: float, fill: str) -> str:
    return f'<rect x="{MARGIN}" y="{y:g}" width="{length:.1f}" height="{_BAR_HEIGHT}" rx="3" fill="{fill}"/>'


def text(x: float, y: float, words: str, **style: str | int) -> str:
    """Return a line of text, whose baseline begins at a point."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:g}"{attributes}>{escape(words)}</text>'


def svg(height: float, parts: Iterable[str], *, title: str) -> str:
    """Return a card with these parts, in colors for light and dark pages."""
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    dark = "".join(
        f'[fill="{color}"]{{fill:{replaced}}}[stroke="{color}"]{{stroke:{replaced}}}'
        for color, replaced in _DARK_COLORS.items()
    )
    content = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}"
 font-family={quoteattr(_FONT)} font-size="16" fill="{INK}">
<style>@media (prefers-color-scheme:dark){{{dark}}}</style>
<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:g}" rx="10" fill="{_CARD_COLOR}" stroke="{_EDGE_COLOR}"/>
{content}
</svg>
"""
