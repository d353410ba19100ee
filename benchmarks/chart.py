"""Draws the SVG chart without a library: the time per event, and each row's value as a share of its limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from benchmarks.results import EVENT_COMPARISON, EVENT_ROW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Bar, Row

_WIDTH = 1000
_MARGIN = 36
_BAR_LEFT = 330
"""The x coordinate at which the bars begin, to the right of the labels."""
_FULL_LENGTH = 232
"""The length of a bar whose value equals its limit."""
_MAX_RATIO = 1.25
"""The maximum length of a bar, as a multiple of `_FULL_LENGTH`; longer bars are truncated."""
_LINE_HEIGHT = 28
_BAR_HEIGHT = 14
# A card with its own background looks the same on light and dark pages.
_CARD_COLOR, _EDGE_COLOR, INK, FAINT_INK, TRACK_COLOR = "#ffffff", "#d0d7de", "#24292f", "#636c76", "#eef1f4"
MET_COLOR, EXCEEDED_COLOR, REFERENCE_COLOR = "#2e8b5e", "#c8602a", "#a9b7c6"
_TITLE = "Cost of a client session"
_OURS = "client-session"
_FONT = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"


def draw(rows: Sequence[Row], measured_on: dict[str, Any]) -> str:
    """Return the chart as SVG."""
    limited_rows = [(row, row.bar) for row in rows if row.bar is not None]
    events = _times_per_event(rows)
    parts: list[str] = []
    y = 58
    parts.append(text(_MARGIN, y, _TITLE, font_size=21, font_weight=600))
    parts.append(text(_MARGIN, y + 23, _caption(measured_on), fill=FAINT_INK))
    y += 68
    if events:
        parts.append(text(_MARGIN, y, "Time per event", font_size=15, font_weight=600))
        parts.append(text(_BAR_LEFT, y, "log scale; shorter is better", fill=FAINT_INK))
        y += 12
        parts.extend(_event_bars(events, y))
        y += _LINE_HEIGHT * len(events) + 42
    met = sum(bar.holds(row.value) for row, bar in limited_rows)
    parts.append(text(_MARGIN, y, f"{met} of {len(limited_rows)} limits met", font_size=15, font_weight=600))
    parts.append(text(_BAR_LEFT, y, "share of the limit", fill=FAINT_INK))
    limit = _BAR_LEFT + _FULL_LENGTH
    parts.append(text(limit, y, "limit", text_anchor="middle"))
    y += 12
    for number, (row, bar) in enumerate(limited_rows):
        parts.extend(_limit_bar(row, bar, y + number * _LINE_HEIGHT))
    bottom = y + len(limited_rows) * _LINE_HEIGHT
    parts.append(f'<path d="M{limit} {y - 5}V{bottom}" stroke="{INK}" stroke-width="1.5" stroke-dasharray="3 3"/>')
    return svg(bottom + 30, parts)


def _times_per_event(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """Return each implementation's name and nanoseconds per event, fastest first."""
    comparisons = [row for row in rows if row.name.startswith(EVENT_COMPARISON)]
    event = next((row for row in rows if row.name == EVENT_ROW), None)
    if event is None:
        return []
    times = [(row.against, row.reference) for row in (event, *comparisons) if row.reference is not None]
    return sorted([*times, (_OURS, event.ours)], key=lambda item: item[1])


def _event_bars(events: Sequence[tuple[str, float]], top: float) -> Iterable[str]:
    shortest, longest = events[0][1] / 2, events[-1][1]
    for number, (name, nanoseconds) in enumerate(events):
        y = top + number * _LINE_HEIGHT
        length = _FULL_LENGTH * _MAX_RATIO * math.log(nanoseconds / shortest) / math.log(longest / shortest)
        is_ours = name == _OURS
        yield text(_BAR_LEFT - 14, y + 12, name, text_anchor="end", font_weight=600 if is_ours else 400)
        yield bar_svg(y, length, MET_COLOR if is_ours else REFERENCE_COLOR)
        yield text(_BAR_LEFT + length + 10, y + 12, f"{nanoseconds / 1000:.3g} µs", font_weight=600 if is_ours else 400)


def _limit_bar(row: Row, bar: Bar, y: float) -> Iterable[str]:
    share = bar.used_share(row.value)
    yield text(_BAR_LEFT - 14, y + 12, row.name, text_anchor="end")
    yield bar_svg(y, _FULL_LENGTH * _MAX_RATIO, TRACK_COLOR)
    yield bar_svg(y, _FULL_LENGTH * min(max(share, 0.012), _MAX_RATIO), MET_COLOR if row.holds else EXCEEDED_COLOR)
    x = _BAR_LEFT + _FULL_LENGTH * _MAX_RATIO + 16
    yield text(x, y + 12, row.shown, font_weight=600, fill=INK if row.holds else EXCEEDED_COLOR)
    yield text(x + 84, y + 12, f"{row.limit} {'faster' if bar.at_least else row.against}", fill=FAINT_INK)


def _caption(measured_on: dict[str, Any]) -> str:
    versions = measured_on["versions"]
    return (
        f"{measured_on['cpu']}, {measured_on['cores']} cores, {measured_on['os']}, {measured_on['python']}, "
        f"transitions {versions['transitions']}, python-statemachine {versions['python-statemachine']}, "
        f"{measured_on['date']}"
    )


def bar_svg(y: float, length: float, fill: str, x: float = _BAR_LEFT) -> str:
    """Return a horizontal bar."""
    return f'<rect x="{x}" y="{y:g}" width="{length:.1f}" height="{_BAR_HEIGHT}" rx="3" fill="{fill}"/>'


def text(x: float, y: float, words: str, **style: str | int) -> str:
    """Return a line of text, whose baseline begins at a point."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:g}"{attributes}>{escape(words)}</text>'


def svg(height: float, parts: Iterable[str], *, title: str = _TITLE, width: int = _WIDTH, font_size: int = 13) -> str:
    """Return a card with these parts."""
    size = f'viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}"'
    content = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}"
 font-family={quoteattr(_FONT)} font-size="{font_size}" fill="{INK}">
<rect x=".5" y=".5" width="{width - 1}" height="{height - 1:g}" rx="10" fill="{_CARD_COLOR}" stroke="{_EDGE_COLOR}"/>
{content}
</svg>
"""
