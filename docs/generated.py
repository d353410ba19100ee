"""Generates parts of the MkDocs pages from the code, so that the pages are always up to date.

A line such as ``[graph.py](../graph.py) <!-- generated: table -->`` is replaced by the content. Readers of the Markdown
file see what comes before the comment: a link, an image, or a command that prints the content. The tests also expand
the pages and run the generated code blocks.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from click.testing import CliRunner

from client_session.cli import client_session
from client_session.graph import TABLE, SessionState
from client_session.sessionize import sessionize_sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PLACEHOLDER = re.compile(r"^(\S.*) <!-- generated: (\w+) ?(.*?) -->$", re.MULTILINE)
"""What readers of the file see instead of the content, the name of a generator, and its arguments."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Expand a page. MkDocs calls this hook."""
    return expand(markdown)


def on_pre_page(page: Page, **_: object) -> Page:
    """Let "Edit this page" open the page's file, unless the site is built for a repository's host."""
    if page.edit_url is None:
        folder = os.path.dirname(page.file.abs_dest_path)  # noqa: PTH120  # a str
        page.edit_url = Path(os.path.relpath(str(page.file.abs_src_path), folder)).as_posix()
    return page


def expand(markdown: str) -> str:
    """Return a page with its placeholders replaced.

    Raises:
        KeyError: a placeholder names an unknown generator or definition.

    """
    return PLACEHOLDER.sub(lambda found: _GENERATORS[found[2]](*found[3].split()), markdown)


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


def diagram(name: str) -> str:
    """Return a diagram as an image, which follows the page's color scheme, with its title and description as text."""
    data = (ROOT / "diagrams" / f"{name}.svg").read_bytes()
    svg = ET.fromstring(data)  # noqa: S314  # our own file
    words = " ".join(svg.findtext(f"{{http://www.w3.org/2000/svg}}{tag}") or "" for tag in ("title", "desc"))
    return _image(data, name, words)


def chart(name: str) -> str:
    """Return a chart of benchmarks as an image, with its title as text."""
    data = (ROOT / "benchmarks" / f"{name}.svg").read_bytes()
    return _image(data, "chart", str(ET.fromstring(data).get("aria-label")))  # noqa: S314  # our own file


def _image(data: bytes, kind: str, words: str) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
    return f'<img class="diagram {kind}" alt="{escape(words)}" src="{source}">'


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


_QUERY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "carried": {"carried": "states"},
    "extend_on_focus_change": {"extend_on_focus_change": True},
    "max_duration": {"max_duration": 3600},
}


def cte(name: str, *arguments: str) -> str:
    """Return a table of the query that sessionizes a log, for PostgreSQL."""
    given: dict[str, Any] = {}
    for argument in arguments:
        given |= _QUERY_ARGUMENTS[argument]
    query = sessionize_sql("postgres", **given)
    found = re.search(rf"^(?:WITH (?:RECURSIVE )?)?({name} AS .*?^\))", query, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(name)
    return f"```sql\n{found[1]}\n```"


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
    "chart": chart,
    "source": source,
    "usage": usage,
    "cte": cte,
    "costs": costs,
}
