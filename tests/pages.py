"""Read and run the code blocks of the documentation pages, in order, as a reader would.

A page's blocks run one after another in a folder that contains the project's examples. A block with a title is saved as
a file of that name. Other Python blocks share a namespace, and shell blocks run in bash. If a ``text`` block follows,
the output must match it; … in the block matches anything. Lines that install packages are skipped.

The examples in docstrings that a page includes run, too, each after the Python blocks above it on the page.

    python tests/pages.py PAGE
"""

from __future__ import annotations

import contextlib
import doctest
import io
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs

from docs.generated import expand

DOCS = Path(__file__).parents[1] / "docs"

_FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r"^::: (\S+)$", re.MULTILINE)


@attrs.frozen
class Block:
    """A fenced code block with its language, title and first line number."""

    language: str
    title: str | None
    text: str
    line: int


def read_blocks(page: Path) -> list[Block]:
    """Expand a page's generated parts and return its blocks."""
    text = expand(page.read_text(encoding="utf-8"))
    return [
        Block(fence[2], fence[3], textwrap.dedent(fence[4]), text.count("\n", 0, fence.start()) + 2)
        for fence in _FENCE.finditer(text)
    ]


def remove_installs(shell: str) -> str:
    """Return a shell block without the lines that install packages."""
    return "".join(line for line in shell.splitlines(keepends=True) if not line.startswith("pip install"))


def matches_output(output: str, shown: str) -> bool:
    """Return whether the output matches the page. Column widths vary, so the number of spaces does not matter."""
    pattern = ".*".join(map(re.escape, _collapse_spaces(shown).split("…")))
    return re.fullmatch(pattern, _collapse_spaces(output), re.DOTALL) is not None


def _collapse_spaces(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r" +$", "", text, flags=re.MULTILINE))


def run(page: Path) -> None:
    """Run a page's blocks in the current folder and interpreter.

    Raises:
        AssertionError: a block fails, or its output differs from what the page shows.

    """
    variables: dict[str, Any] = {"__name__": "__main__"}
    output = ""
    for block in read_blocks(page):
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = compile("\n" * (block.line - 1) + block.text, page, "exec")
                exec(code, variables)  # noqa: S102  # our own page
            output = printed.getvalue()
        elif block.language == "sh":
            result = subprocess.run(  # noqa: S603  # our own page
                ["bash", "-e", "-c", remove_installs(block.text)],  # noqa: S607  # found on the path
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, f"{page}:{block.line}: {result.stdout}{result.stderr}"
            output = result.stdout
        elif block.language == "text":
            assert matches_output(output, block.text), f"{page}:{block.line}: printed\n{output}"


def run_examples(page: Path) -> None:
    """Run the examples in the docstrings that a page includes, in the current folder and interpreter.

    Raises:
        AssertionError: an example fails, or its output differs from what it shows.

    """
    text = expand(page.read_text(encoding="utf-8"))
    runner = doctest.DocTestRunner()
    for included in _INCLUDED.finditer(text):
        line = text.count("\n", 0, included.start()) + 1
        setup = "".join(
            block.text
            for block in read_blocks(page)
            if block.line < line and block.language == "python" and block.title is None
        )
        for test in doctest.DocTestFinder().find(pkgutil.resolve_name(included[1]), included[1]):
            if test.examples:
                with contextlib.redirect_stdout(io.StringIO()):
                    test.globs = {}
                    exec(setup, test.globs)  # noqa: S102  # our own page
                runner.run(test)
    assert not runner.failures


if __name__ == "__main__":
    run(Path(sys.argv[1]))
    run_examples(Path(sys.argv[1]))
