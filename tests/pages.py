"""The pages of the documentation: their blocks, and a run of all of them, in order, as a reader would.

A page is one session at a desk, in an empty folder with the project's examples. A block with a title is a file of that
name; any other of Python goes on where the last one ended, one of the shell is run by bash, and a ``text`` after either
is what it prints, where … stands for anything. What installs packages is left out.

    python tests/pages.py PAGE
"""

from __future__ import annotations

import contextlib
import io
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


@attrs.frozen
class Block:
    """A fenced block: its language, its title, and where it stands."""

    language: str
    title: str | None
    text: str
    line: int


def read_blocks(page: Path) -> list[Block]:
    """Return a page's blocks, with what is taken from the code when the site is built."""
    text = expand(page.read_text(encoding="utf-8"))
    return [
        Block(fence[2], fence[3], textwrap.dedent(fence[4]), text.count("\n", 0, fence.start()) + 2)
        for fence in _FENCE.finditer(text)
    ]


def without_installs(shell: str) -> str:
    """Return a shell block without its lines that install packages."""
    return "".join(line for line in shell.splitlines(keepends=True) if not line.startswith("pip install"))


def is_as_shown(output: str, shown: str) -> bool:
    """Tell whether an output is what the page shows. How many spaces there are is not compared: columns vary."""
    pattern = ".*".join(map(re.escape, _narrow(shown).split("…")))
    return re.fullmatch(pattern, _narrow(output), re.DOTALL) is not None


def _narrow(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r" +$", "", text, flags=re.MULTILINE))


def run(page: Path) -> None:
    """Run a page's blocks in this folder and interpreter; raise what goes wrong.

    Raises:
        AssertionError: a block prints something else than the page shows.

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
            done = subprocess.run(  # noqa: S603  # our own page
                ["bash", "-e", "-c", without_installs(block.text)],  # noqa: S607  # wherever it is
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{page}:{block.line}: {done.stdout}{done.stderr}"
            output = done.stdout
        elif block.language == "text":
            assert is_as_shown(output, block.text), f"{page}:{block.line}: printed was\n{output}"


if __name__ == "__main__":
    run(Path(sys.argv[1]))
