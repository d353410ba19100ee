"""Diagrams of the graph, generated from the table: Mermaid and DOT source, and an SVG picture.

The package contains the picture. Graphviz is needed only to redraw it after the table changes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from client_session.graph import INITIAL, TABLE, SessionState
from client_session.verify.picture import PICTURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client_session.graph import Row

_SVG = "http://www.w3.org/2000/svg"

_COLORS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
_INK = "#24292f"
_UNTAKEN_COLOR = "#cf222e"


class StalePictureError(RuntimeError):
    """The table has changed since the shipped picture was drawn, and Graphviz is not installed."""

    def __str__(self) -> str:
        """Return a message that says how to redraw the picture."""
        return (
            "lifecycle.svg is stale: the table has changed; install Graphviz ('apt-get install graphviz') to redraw it"
        )


def arrows(rows: Iterable[Row] = TABLE) -> dict[tuple[SessionState, SessionState], list[Row]]:
    """Group rows by source and destination. Each group is drawn as one arrow, with one line per row in its label."""
    grouped: dict[tuple[SessionState, SessionState], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.source, row.destination), []).append(row)
    return grouped


def mermaid() -> str:
    """Return the graph as a Mermaid state diagram, which GitHub renders inline.

    Rows that do not change the state are listed in the state's box, like internal transitions in UML, because Mermaid
    would draw the loops on top of each other.
    """
    lines = ["stateDiagram-v2"]
    for state, (fill, stroke) in _COLORS.items():
        lines.append(f'    state "{state.value}" as {_node_id(state)}')
        lines.append(f"    classDef {_node_id(state)}_colors fill:{fill},stroke:{stroke},color:{_INK}")
        lines.append(f"    class {_node_id(state)} {_node_id(state)}_colors")
    lines.append(f"    [*] --> {_node_id(INITIAL)}")
    for (source, destination), rows in arrows().items():
        if source is destination:
            lines += [f"    {_node_id(source)}: {row.label}" for row in rows]
        else:
            label = "<br/>".join(row.label for row in rows)
            lines.append(f"    {_node_id(source)} --> {_node_id(destination)}: {label}")
    return "\n".join(lines) + "\n"


def dot(suffix: str = "") -> str:
    """Return the graph in Graphviz's DOT language, with ``suffix`` after each row's label."""
    lines = [
        "digraph lifecycle {",
        '    graph [rankdir=TB, nodesep=1.5, ranksep=1.2, pad=0.2, bgcolor=white, fontname="Helvetica"]',
        '    node [shape=box, style="rounded,filled", penwidth=1.6, margin="0.25,0.14"]',
        f'    node [fontname="Helvetica-Bold", fontsize=14, fontcolor="{_INK}"]',
        f'    edge [fontname="Helvetica", fontsize=12, color="#57606a", fontcolor="{_INK}", arrowsize=0.8]',
        '    start [shape=circle, style=filled, fillcolor="#57606a", color="#57606a", label="", width=0.16]',
        f"    start -> {_node_id(INITIAL)}",
    ]
    for state, (fill, stroke) in _COLORS.items():
        lines.append(f'    {_node_id(state)} [label="{state.value}", fillcolor="{fill}", color="{stroke}"]')
    for (source, destination), rows in arrows().items():
        # \\l ends a left-aligned line; the spaces separate the label from the arrow.
        label = "".join(f"  {row.label}  {suffix}\\l" for row in rows)
        lines.append(f'    {_node_id(source)} -> {_node_id(destination)} [label="{label}"]')
    return "\n".join([*lines, "}"]) + "\n"


def svg() -> str:
    """Return the shipped picture, or redraw it if the table has changed (`StalePictureError` without Graphviz)."""
    svg_id = picture_id()
    if f'id="{svg_id}"' in PICTURE:
        return PICTURE
    program = shutil.which("dot")
    if program is None:
        raise StalePictureError
    drawn = subprocess.run(  # noqa: S603  # the program is Graphviz, and its input is our own table
        [program, "-Tsvg", f"-Gid={svg_id}"], input=dot(_MAX_COUNT), capture_output=True, check=True, encoding="utf-8"
    )
    return drawn.stdout.replace(_MAX_COUNT, "")


def coverage(counts: Mapping[Row, int]) -> str:
    """Return the SVG picture with each row's count after its label; rows that were never taken are red."""
    ET.register_namespace("", _SVG)
    picture = ET.fromstring(svg())  # noqa: S314  # our own file
    rows_of = {f"{_node_id(source)}->{_node_id(destination)}": rows for (source, destination), rows in arrows().items()}
    for edge in picture.iter(f"{{{_SVG}}}g"):
        rows = rows_of.get(edge.findtext(f"{{{_SVG}}}title") or "")
        if rows is None:
            continue
        for row, label in zip(rows, edge.iter(f"{{{_SVG}}}text"), strict=True):
            label.text = f"{label.text}{_count_label(counts.get(row, 0))}"
            if not counts.get(row):
                label.set("fill", _UNTAKEN_COLOR)
                for line in edge.iter(f"{{{_SVG}}}path"):
                    line.set("stroke", _UNTAKEN_COLOR)
                for head in edge.iter(f"{{{_SVG}}}polygon"):
                    head.attrib.update(stroke=_UNTAKEN_COLOR, fill=_UNTAKEN_COLOR)
    return ET.tostring(picture, encoding="unicode")


def picture_id() -> str:
    """Return the id of a picture drawn from the current table; a stale picture has a different id."""
    return f"lifecycle_{hashlib.sha256(dot(_MAX_COUNT).encode()).hexdigest()[:16]}"


def _count_label(count: int) -> str:
    return f"×{count:,}"  # noqa: RUF001  # a multiplication sign


_MAX_COUNT = _count_label(9_999_999)
"""`svg` lays out the picture with this count after each label to reserve space for the real counts in `coverage`."""


def _node_id(state: SessionState) -> str:
    return state.name.lower()
