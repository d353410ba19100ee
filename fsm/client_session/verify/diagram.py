"""Diagrams of the graph, generated from the table, as Mermaid and DOT source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session.graph import INITIAL, TABLE, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client_session.graph import Row

COLORS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
"""The fill and stroke of each state."""
_INK = "#24292f"


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
    for state, (fill, stroke) in COLORS.items():
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


def dot() -> str:
    """Return the graph in Graphviz's DOT language."""
    lines = [
        "digraph lifecycle {",
        '    graph [rankdir=TB, nodesep=1.5, ranksep=1.2, pad=0.2, bgcolor=white, fontname="Helvetica"]',
        '    node [shape=box, style="rounded,filled", penwidth=1.6, margin="0.25,0.14"]',
        f'    node [fontname="Helvetica-Bold", fontsize=14, fontcolor="{_INK}"]',
        f'    edge [fontname="Helvetica", fontsize=12, color="#57606a", fontcolor="{_INK}", arrowsize=0.8]',
        '    start [shape=circle, style=filled, fillcolor="#57606a", color="#57606a", label="", width=0.16]',
        f"    start -> {_node_id(INITIAL)}",
    ]
    for state, (fill, stroke) in COLORS.items():
        lines.append(f'    {_node_id(state)} [label="{state.value}", fillcolor="{fill}", color="{stroke}"]')
    for (source, destination), rows in arrows().items():
        # \\l ends a left-aligned line; the spaces separate the label from the arrow.
        label = "".join(f"  {row.label}  \\l" for row in rows)
        lines.append(f'    {_node_id(source)} -> {_node_id(destination)} [label="{label}"]')
    return "\n".join([*lines, "}"]) + "\n"


def _node_id(state: SessionState) -> str:
    return state.name.lower()
