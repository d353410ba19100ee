"""Diagrams of the graph, derived from the table: Mermaid and DOT as text, and an SVG picture.

The package ships the picture. Graphviz is needed only to redraw it after the table changes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from client_session.graph import INITIAL, TABLE, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client_session.graph import Row

_PICTURE = files("client_session.verify") / "lifecycle.svg"
_SVG = "http://www.w3.org/2000/svg"

_COLORS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
_INK = "#24292f"
_ALARM = "#cf222e"


class StalePictureError(RuntimeError):
    """The table has changed since the shipped picture was drawn, and Graphviz is not installed."""

    def __str__(self) -> str:
        """Say how to redraw it."""
        return (
            "lifecycle.svg is stale: the table has changed; install Graphviz ('apt-get install graphviz') to redraw it"
        )


def arrows(rows: Iterable[Row] = TABLE) -> dict[tuple[SessionState, SessionState], list[Row]]:
    """Group rows by arrow: rows with the same source and destination share one, whose label has a line for each."""
    grouped: dict[tuple[SessionState, SessionState], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.source, row.destination), []).append(row)
    return grouped


def mermaid() -> str:
    """Return the graph as a Mermaid state diagram, which GitHub renders inline.

    Rows that do not change the state are written inside it, like internal transitions in UML, since Mermaid would draw
    loops on top of each other.
    """
    lines = ["stateDiagram-v2"]
    for state, (fill, stroke) in _COLORS.items():
        lines.append(f'    state "{state.value}" as {_name(state)}')
        lines.append(f"    classDef {_name(state)}_colors fill:{fill},stroke:{stroke},color:{_INK}")
        lines.append(f"    class {_name(state)} {_name(state)}_colors")
    lines.append(f"    [*] --> {_name(INITIAL)}")
    for (source, destination), rows in arrows().items():
        if source is destination:
            lines += [f"    {_name(source)}: {row.label}" for row in rows]
        else:
            label = "<br/>".join(row.label for row in rows)
            lines.append(f"    {_name(source)} --> {_name(destination)}: {label}")
    return "\n".join(lines) + "\n"


def dot(suffix: str = "") -> str:
    """Return the graph in Graphviz's DOT language, with ``suffix`` after each row's label."""
    lines = [
        "digraph lifecycle {",
        '    graph [rankdir=TB, nodesep=0.6, ranksep=0.9, pad=0.2, bgcolor=white, fontname="Helvetica"]',
        '    node [shape=box, style="rounded,filled", penwidth=1.6, margin="0.25,0.14"]',
        f'    node [fontname="Helvetica-Bold", fontsize=14, fontcolor="{_INK}"]',
        f'    edge [fontname="Helvetica", fontsize=12, color="#57606a", fontcolor="{_INK}", arrowsize=0.8]',
        '    start [shape=circle, style=filled, fillcolor="#57606a", color="#57606a", label="", width=0.16]',
        f"    start -> {_name(INITIAL)}",
    ]
    for state, (fill, stroke) in _COLORS.items():
        lines.append(f'    {_name(state)} [label="{state.value}", fillcolor="{fill}", color="{stroke}"]')
    for (source, destination), rows in arrows().items():
        # \\l ends a line and aligns it to the left; the spaces keep the label clear of the arrow.
        label = "".join(f"  {row.label}  {suffix}\\l" for row in rows)
        lines.append(f'    {_name(source)} -> {_name(destination)} [label="{label}"]')
    return "\n".join([*lines, "}"]) + "\n"


def svg() -> str:
    """Return the shipped picture, or redraw it if the table has changed (`StalePictureError` without Graphviz)."""
    shipped, mark = _PICTURE.read_text(encoding="utf-8"), source_mark()
    if f'id="{mark}"' in shipped:
        return shipped
    program = shutil.which("dot")
    if program is None:
        raise StalePictureError
    drawn = subprocess.run(  # noqa: S603  # the program is Graphviz, and its input is our own table
        [program, "-Tsvg", f"-Gid={mark}"], input=dot(_ROOM), capture_output=True, check=True, encoding="utf-8"
    )
    return drawn.stdout.replace(_ROOM, "")


def coverage(counts: Mapping[Row, int]) -> str:
    """Return the SVG picture with each row's count after its label; rows that were never taken are red."""
    ET.register_namespace("", _SVG)
    picture = ET.fromstring(svg())  # noqa: S314  # our own file
    rows_of = {f"{_name(source)}->{_name(destination)}": rows for (source, destination), rows in arrows().items()}
    for edge in picture.iter(f"{{{_SVG}}}g"):
        rows = rows_of.get(edge.findtext(f"{{{_SVG}}}title") or "")
        if rows is None:
            continue
        for row, label in zip(rows, edge.iter(f"{{{_SVG}}}text"), strict=True):
            label.text = f"{label.text}{_times(counts.get(row, 0))}"
            if not counts.get(row):
                label.set("fill", _ALARM)
                for line in edge.iter(f"{{{_SVG}}}path"):
                    line.set("stroke", _ALARM)
                for head in edge.iter(f"{{{_SVG}}}polygon"):
                    head.attrib.update(stroke=_ALARM, fill=_ALARM)
    return ET.tostring(picture, encoding="unicode")


def source_mark() -> str:
    """Return the id of a picture drawn from the current table; a stale picture has a different id."""
    return f"lifecycle_{hashlib.sha256(dot(_ROOM).encode()).hexdigest()[:16]}"


def _times(count: int) -> str:
    return f"×{count:,}"  # noqa: RUF001  # a multiplication sign


_ROOM = _times(9_999_999)
"""The picture is laid out with a large count after each label, so that `coverage` has room for the real counts."""


def _name(state: SessionState) -> str:
    return state.name.lower()
