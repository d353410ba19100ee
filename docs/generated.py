"""What the pages take from the code when they are built, so that no second copy of it can grow stale.

A page says where: ``<!-- generated: table -->``. The tests read the pages through `expand` too, and run what it puts
in.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from client_session.cli import client_session
from client_session.graph import TABLE, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Return the rows of the graph, by state, each with its reason."""
    lines: list[str] = []
    for state in SessionState:
        lines += ["", f"### {state.value}", "", "| input | leads to | effect | why |", "|---|---|---|---|"]
        for row in TABLE:
            if row.source is state:
                given = f"{row.input} [{row.guard}]" if row.guard else row.input
                destination = "(same)" if row.destination is state else row.destination.value
                lines.append(f"| {given} | {destination} | {', '.join(row.effects)} | {row.why} |")
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
    """Return how a command is asked for its help, and what it prints."""
    asked = CliRunner().invoke(client_session, [name, "--help"], "client-session", terminal_width=78)
    return f"```sh\nclient-session {name} --help\n```\n\n```text\n{asked.output}```"


_KINDS: dict[str, Callable[..., str]] = {"table": table, "diagram": diagram, "source": source, "usage": usage}
