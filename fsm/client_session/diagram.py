"""Pictures of the graph, drawn from the table: Mermaid and DOT as text, SVG and PNG by Graphviz."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from client_session.graph import INITIAL, TABLE, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client_session.graph import Row

HOW_TO_GET_DOT = (
    "Graphviz's program 'dot' is not installed; get it with 'apt-get install graphviz' (or your system's way)"
)

_COLOURS = {
    SessionState.FOREGROUND_ACTIVE: ("#d9f0e3", "#1d7a4b"),
    SessionState.BACKGROUND_ACTIVE: ("#dce9f9", "#2459a8"),
    SessionState.EXPIRED_CHECKER_STOPPED: ("#f6e3d7", "#a4501c"),
}
_INK = "#24292f"
_ALARM = "#cf222e"


class DotMissingError(RuntimeError):
    """Graphviz is not installed; the message says how to get it."""

    def __init__(self) -> None:
        """Say how to get it."""
        super().__init__(HOW_TO_GET_DOT)


def arrows(rows: Iterable[Row] = TABLE) -> dict[tuple[SessionState, SessionState], list[Row]]:
    """Return the rows by arrow: rows that share source and destination are one arrow of several lines."""
    sharing: dict[tuple[SessionState, SessionState], list[Row]] = {}
    for row in rows:
        sharing.setdefault((row.source, row.destination), []).append(row)
    return sharing


def mermaid() -> str:
    """Return the graph as a Mermaid state diagram, which GitHub shows inline.

    Rows that keep their state stand inside it, as UML writes internal transitions: Mermaid lays loops over each other.
    """
    lines = ["stateDiagram-v2"]
    for state, (fill, stroke) in _COLOURS.items():
        lines.append(f'    state "{state.value}" as {_name(state)}')
        lines.append(f"    classDef {_name(state)}_colours fill:{fill},stroke:{stroke},color:{_INK}")
        lines.append(f"    class {_name(state)} {_name(state)}_colours")
    lines.append(f"    [*] --> {_name(INITIAL)}")
    for (source, destination), rows in arrows().items():
        labels = [row.label for row in rows]
        if source is destination:
            lines += [f"    {_name(source)}: {label}" for label in labels]
        else:
            lines.append(f"    {_name(source)} --> {_name(destination)}: {'<br/>'.join(labels)}")
    return "\n".join(lines) + "\n"


def dot(counts: Mapping[Row, int] | None = None) -> str:
    """Return the graph in Graphviz's language; with ``counts``, each row with how often it was gone through."""
    lines = [
        "digraph lifecycle {",
        '    graph [rankdir=TB, nodesep=0.6, ranksep=0.9, pad=0.2, bgcolor=white, fontname="Helvetica"]',
        '    node [shape=box, style="rounded,filled", penwidth=1.6, margin="0.25,0.14"]',
        f'    node [fontname="Helvetica-Bold", fontsize=14, fontcolor="{_INK}"]',
        f'    edge [fontname="Helvetica", fontsize=12, color="#57606a", fontcolor="{_INK}", arrowsize=0.8]',
        '    start [shape=circle, style=filled, fillcolor="#57606a", color="#57606a", label="", width=0.16]',
        f"    start -> {_name(INITIAL)}",
    ]
    for state, (fill, stroke) in _COLOURS.items():
        lines.append(f'    {_name(state)} [label="{state.value}", fillcolor="{fill}", color="{stroke}"]')
    for (source, destination), rows in arrows().items():
        # \\l: each line is set flush left, and stands clear of the arrow.
        label = "".join(f"  {row.label}{_times(row, counts)}  \\l" for row in rows)
        unused = "" if counts is None or all(counts.get(row) for row in rows) else f', color="{_ALARM}", penwidth=2'
        lines.append(f'    {_name(source)} -> {_name(destination)} [label="{label}"{unused}]')
    return "\n".join([*lines, "}"]) + "\n"


def render(kind: str, counts: Mapping[Row, int] | None = None) -> bytes:
    """Return the graph as ``svg`` or ``png``, drawn by Graphviz; ``counts`` as `dot`. The SVG bears the `source_mark`.

    Raises:
        DotMissingError: Graphviz is not installed.

    """
    program = shutil.which("dot")
    if program is None:
        raise DotMissingError
    options = ["-Gdpi=144"] if kind == "png" else [f"-Gid={source_mark()}"]
    drawn = subprocess.run(  # noqa: S603  # the program is Graphviz's, its input our own table
        [program, f"-T{kind}", *options], input=dot(counts).encode(), capture_output=True, check=True
    )
    return drawn.stdout


def source_mark() -> str:
    """Return the mark that a drawn SVG bears, by which a stale one is known without drawing it again."""
    return f"lifecycle_{hashlib.sha256(dot().encode()).hexdigest()[:16]}"


def _times(row: Row, counts: Mapping[Row, int] | None) -> str:
    return "" if counts is None else f"  ×{counts.get(row, 0):,}"  # noqa: RUF001  # a multiplication sign


def _name(state: SessionState) -> str:
    return state.name.lower()
