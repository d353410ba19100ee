"""Generates parts of the MkDocs pages from the code, so that the pages are always up to date.

A placeholder such as ``<!-- generated: table -->`` marks where the content goes. The tests also expand the pages and
run the generated code blocks.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from client_session.cli import client_session
from client_session.graph import TABLE, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]

_PLACEHOLDER = re.compile(r"^<!-- generated: (\w+) ?(.*?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Expand a page. MkDocs calls this hook."""
    return expand(markdown)


def expand(markdown: str) -> str:
    """Return a page with its placeholders replaced.

    Raises:
        KeyError: a placeholder names an unknown generator or definition.

    """
    return _PLACEHOLDER.sub(lambda found: _GENERATORS[found[1]](*found[2].split()), markdown)


def table() -> str:
    """Return the rows of the graph with their reasons, grouped by source state."""
    lines: list[str] = []
    for state in SessionState:
        lines += ["", f"### {state.value}", "", "| input | destination | effects | why |", "|---|---|---|---|"]
        for row in TABLE:
            if row.source is state:
                label = f"{row.input} [{row.guard}]" if row.guard else row.input
                destination = "(same)" if row.destination is state else row.destination.value
                lines.append(f"| {label} | {destination} | {', '.join(row.effects)} | {row.why} |")
    return "\n".join(lines)


def diagram() -> str:
    """Return the diagram as inline SVG."""
    svg = (ROOT / "diagrams" / "lifecycle.svg").read_text(encoding="utf-8")
    return f'<div class="diagram" markdown="0">\n{svg[svg.index("<svg") :]}</div>'


def source(path: str, *names: str) -> str:
    """Return the source of a file's named classes and functions, or of the whole file if no names are given."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not names:
        return f'```python title="{Path(path).name}"\n{text}```'
    definitions = {
        node.name: ast.get_source_segment(text, node)
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return "```python\n" + "\n\n\n".join(str(definitions[name]) for name in names) + "\n```"


def usage(name: str) -> str:
    """Return two code blocks: the command that prints the help, and its output."""
    result = CliRunner().invoke(client_session, [name, "--help"], "client-session", terminal_width=78)
    return f"```sh\nclient-session {name} --help\n```\n\n```text\n{result.output}```"


def costs(suite: str) -> str:
    """Return the stored results of a suite of benchmarks as a table."""
    results = json.loads((ROOT / "benchmarks" / f"{suite}.json").read_text(encoding="utf-8"))
    lines = ["| | measured | limit |", "|---|---|---|"]
    for row in results["rows"]:
        unit = f"× {row['against']}" if row["reference"] is not None else row["unit"]  # noqa: RUF001  # times, not x
        limit = ""
        if row["bar"]:
            limit = f"{'≥' if row['bar']['at_least'] else '≤'} {row['bar']['limit']:g}"
        lines.append(f"| {row['name']} | {row['value']:.4g} {unit} | {limit} |")
    return "\n".join(lines)


_GENERATORS: dict[str, Callable[..., str]] = {
    "table": table,
    "diagram": diagram,
    "source": source,
    "usage": usage,
    "costs": costs,
}
