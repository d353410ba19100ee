"""What the pages take from the code when they are built, so that no second copy of it can grow stale.

A page says where: ``<!-- generated: table -->``. The tests read the pages through `expand` too, and run what it puts in.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click

from fsm.cli import client_session
from fsm.graph import TABLE

ROOT = Path(__file__).parents[1]

_PLACE = re.compile(r"^<!-- generated: (\w+) ?(.*?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill a page's places; MkDocs calls it."""
    return expand(markdown)


def expand(markdown: str) -> str:
    """Return a page with its places filled.

    Raises:
        KeyError: a place asks for what there is not.

    """
    return _PLACE.sub(lambda place: _KINDS[place[1]](*place[2].split()), markdown)


def table() -> str:
    """Return the rows of the graph, each with its reason."""
    lines = ["| source | input | guard | destination | effect | why |", "|---|---|---|---|---|---|"]
    for row in TABLE:
        destination = "(same)" if row.destination is row.source else row.destination.value
        cells = (row.source.value, row.input, row.guard or "", destination, ", ".join(row.effects), row.why)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def diagram() -> str:
    """Return the drawing of the graph, to stand in the page itself."""
    drawing = (ROOT / "diagrams" / "lifecycle.svg").read_text(encoding="utf-8")
    return f'<div class="drawing" markdown="0">\n{drawing[drawing.index("<svg") :]}</div>'


def source(path: str, *names: str) -> str:
    """Return classes or functions of a file, as the file has them; without names, all of it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not names:
        return f'```python title="{Path(path).name}"\n{text}```'
    found = {
        node.name: ast.get_source_segment(text, node)
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return "```python\n" + "\n\n\n".join(str(found[name]) for name in names) + "\n```"


def usage(name: str) -> str:
    """Return what ``client-session NAME --help`` prints."""
    command = client_session.commands[name]
    context = click.Context(command, info_name=f"client-session {name}", terminal_width=80, max_content_width=80)
    return f"```text\n{command.get_help(context)}\n```"


_KINDS = {"table": table, "diagram": diagram, "source": source, "usage": usage}
