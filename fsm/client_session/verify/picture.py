"""The SVG picture of the graph, generated from the table. It fits a phone, and has colors for light and dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, TypeAlias

import attrs

from client_session.graph import INITIAL, SessionState
from client_session.verify.diagram import COLORS, arrows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client_session.graph import Row

_Ends: TypeAlias = tuple[SessionState, SessionState]
_STATES = tuple(SessionState)
_DARK_COLORS = {
    SessionState.FOREGROUND_ACTIVE: ("#12261e", "#3fb37a"),
    SessionState.BACKGROUND_ACTIVE: ("#111f36", "#5b97ea"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#2d1b10", "#e0854a"),
}

# Lengths in pixels.
_WIDTH = 480
_LEFT, _RIGHT = 12, 444
_TOP = 38
_HEADING = 36
"""The height of a state without its rows."""
_BYPASS = 464
"""The x coordinate of arrows that pass a state."""
_DOWN, _UP = 40, 226
"""The x coordinates of the arrows to the next state, and to the previous one."""
_LINE = 17
_SPACE = 14
"""The distance between a state and the labels of its arrows."""
_MAX_LINE = 24
"""The maximum number of characters in a line of effects next to an arrow."""

_STYLE = """
#lifecycle text { font: 13px system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; fill: #24292f }
#lifecycle .state { font-size: 15px; font-weight: 600 }
#lifecycle .input { font-weight: 600 }
#lifecycle .effects, #lifecycle .count { fill: #57606a }
#lifecycle .arrow { fill: none; stroke: #57606a; stroke-width: 1.5 }
#lifecycle .head { fill: #57606a }
#lifecycle .paper { fill: #ffffff }
#lifecycle .untaken tspan { fill: #cf222e }
"""
_DARK_STYLE = """
#lifecycle text { fill: #e6edf3 }
#lifecycle .effects, #lifecycle .count { fill: #9ea7b3 }
#lifecycle .arrow { stroke: #9ea7b3 }
#lifecycle .head { fill: #9ea7b3 }
#lifecycle .paper { fill: #0d1117 }
#lifecycle .untaken tspan { fill: #ff7b72 }
"""


def svg() -> str:
    """Return the picture: a box for each state with the rows that keep it, and arrows for the other rows."""
    return _draw(None)


def coverage(counts: Mapping[Row, int]) -> str:
    """Return the picture with each row's count next to its label; rows that were never taken are red."""
    return _draw(counts)


@attrs.frozen
class _Box:
    """The vertical extent of a state."""

    top: int
    bottom: int

    @property
    def middle(self) -> int:
        """The y coordinate at which arrows that pass other states begin and end."""
        return (self.top + self.bottom) // 2


def _draw(counts: Mapping[Row, int] | None) -> str:
    grouped = arrows()
    boxes = _boxes(grouped)
    height = max(box.bottom for box in boxes.values()) + _LEFT
    sentences = (f"From {source} to {to}: {row.label}." for (source, to), rows in grouped.items() for row in rows)
    light, dark = _STYLE + _state_styles(COLORS), _DARK_STYLE + _state_styles(_DARK_COLORS)
    middle, top = (_LEFT + _RIGHT) // 2, boxes[INITIAL].top
    parts = [
        "<title>The lifecycle of a session</title>",
        f"<desc>{escape(' '.join(sentences))}</desc>",
        f"<style>{light}@media (prefers-color-scheme: dark) {{{dark}}}\n</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<circle class="head" cx="{middle}" cy="{top - 28}" r="5"/>{_arrow((middle, top - 23), (middle, top))}',
    ]
    parts += [_state(state, box, grouped.get((state, state), []), counts) for state, box in boxes.items()]
    parts += [_edge(ends, grouped, boxes, counts) for ends in _edges(grouped)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="lifecycle" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _boxes(grouped: Mapping[_Ends, Sequence[Row]]) -> dict[SessionState, _Box]:
    """Place the states below each other, with space for the labels of the arrows between them."""
    boxes: dict[SessionState, _Box] = {}
    top = _TOP
    for number, state in enumerate(_STATES):
        rows = grouped.get((state, state), [])
        boxes[state] = _Box(top, top + _HEADING + (_LINE * len(rows) + 8 if rows else 0))
        lines = (
            _lines_above(ends, grouped) + _height(grouped[ends]) for ends in _edges(grouped) if _gap(*ends) == number
        )
        top = boxes[state].bottom + 2 * _SPACE + _LINE * max(lines, default=0)
    return boxes


def _edges(grouped: Mapping[_Ends, Sequence[Row]]) -> list[_Ends]:
    """Return the ends of the arrows between different states."""
    return [ends for ends in grouped if ends[0] is not ends[1]]


def _passes(source: SessionState, destination: SessionState) -> bool:
    """Return whether an arrow passes another state."""
    return abs(_STATES.index(source) - _STATES.index(destination)) > 1


def _lines_above(ends: _Ends, grouped: Mapping[_Ends, Sequence[Row]]) -> int:
    """Return the lines of labels above an arrow's own: those of the other arrows, if it passes a state."""
    others = [other for other in _edges(grouped) if _gap(*other) == _gap(*ends) and not _passes(*other)]
    return max((_height(grouped[other]) for other in others), default=0) if _passes(*ends) else 0


def _height(rows: Sequence[Row]) -> int:
    """Return the number of lines of an arrow's labels."""
    return sum(len(_lines(row)) for row in rows)


def _gap(source: SessionState, destination: SessionState) -> int:
    """Return the number of the gap between two states, counted from the top, in which an arrow has its label."""
    number = _STATES.index(source)
    return number if _STATES.index(destination) > number else number - 1


def _state(state: SessionState, box: _Box, rows: Sequence[Row], counts: Mapping[Row, int] | None) -> str:
    labels = (
        _label(row, (_LEFT + 14, box.top + _HEADING + 12 + number * _LINE), counts, one_line=True)
        for number, row in enumerate(rows)
    )
    return (
        f'<g class="{state.name.lower()}"><title>{state.name.lower()}->{state.name.lower()}</title>'
        f'<rect x="{_LEFT}" y="{box.top}" width="{_RIGHT - _LEFT}" height="{box.bottom - box.top}" rx="8"/>'
        f'<text class="state" x="{_LEFT + 14}" y="{box.top + 23}">{state.value}</text>{"".join(labels)}</g>'
    )


def _edge(
    ends: _Ends,
    grouped: Mapping[_Ends, Sequence[Row]],
    boxes: Mapping[SessionState, _Box],
    counts: Mapping[Row, int] | None,
) -> str:
    source, destination = (boxes[state] for state in ends)
    below = boxes[_STATES[_gap(*ends)]].bottom
    if _passes(*ends):
        points = [(_RIGHT, source.middle), (_BYPASS, source.middle), (_BYPASS, destination.middle)]
        arrow, label_x = _arrow(*points, (_RIGHT, destination.middle)), _BYPASS - 12
    elif source.top < destination.top:
        arrow, label_x = _arrow((_DOWN, source.bottom), (_DOWN, destination.top)), _DOWN + 12
    else:
        arrow, label_x = _arrow((_UP, source.top), (_UP, destination.bottom)), _UP + 12
    labels: list[str] = []
    y = below + _SPACE + 13 + _LINE * _lines_above(ends, grouped)
    for row in grouped[ends]:
        labels.append(_label(row, (label_x, y), counts))
        y += _LINE * len(_lines(row))
    title = "->".join(state.name.lower() for state in ends)
    return f'<g class="edge"><title>{title}</title>{arrow}{"".join(labels)}</g>'


def _lines(row: Row) -> list[str]:
    """Return the label of an arrow in short lines: the input, and the effects."""
    given, _, effects = row.label.partition(" / ")
    lines = [given]
    for effect in effects.split(", ") if effects else []:
        if len(lines) == 1:
            lines.append(f"/ {effect}")
        elif len(lines[-1]) + len(effect) < _MAX_LINE:
            lines[-1] += f", {effect}"
        else:
            lines[-1] += ","
            lines.append(effect)
    return lines


def _label(row: Row, at: tuple[int, int], counts: Mapping[Row, int] | None, *, one_line: bool = False) -> str:
    x, y = at
    anchor = ' text-anchor="end"' if x > _RIGHT else ""
    given, *effects = _lines(row)
    if one_line:
        effects = [f" {' '.join(effects)}"] if effects else []
    parts = [f'<tspan class="input">{escape(given)}</tspan>']
    if counts is not None:
        place = f' x="{_RIGHT - 14}" text-anchor="end"' if one_line else ""
        parts.append(f'<tspan class="count"{place}> ×{counts.get(row, 0):,}</tspan>')  # noqa: RUF001  # a multiplication sign
    for line in effects:
        place = "" if one_line else f' x="{x}" dy="{_LINE}"'
        parts.append(f'<tspan class="effects"{place}>{escape(line)}</tspan>')
    if one_line and counts is not None and effects:
        parts[1], parts[2] = parts[2], parts[1]
    kind = " untaken" if counts is not None and not counts.get(row) else ""
    return f'<text class="row{kind}" x="{x}" y="{y}"{anchor}>{"".join(parts)}</text>'


def _arrow(*points: tuple[int, int]) -> str:
    """Return a line through points, with a head at the last one."""
    (before_x, before_y), (x, y) = points[-2:]
    along_x, along_y = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    back_x, back_y = x - 8 * along_x, y - 8 * along_y
    wings = f"{back_x - 4 * along_y} {back_y - 4 * along_x}L{back_x + 4 * along_y} {back_y + 4 * along_x}"
    line = "L".join(f"{x} {y}" for x, y in (*points[:-1], (back_x, back_y)))
    return f'<path class="arrow" d="M{line}"/><path class="head" d="M{x} {y}L{wings}Z"/>'


def _state_styles(colors: Mapping[SessionState, tuple[str, str]]) -> str:
    return "".join(
        f"#lifecycle .{state.name.lower()} rect {{ fill: {fill}; stroke: {stroke}; stroke-width: 1.5 }}\n"
        for state, (fill, stroke) in colors.items()
    )
