"""Reading a save file without a session: the least that could be done."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from client_session import ClientSession

if TYPE_CHECKING:
    import os

FOLDER = Path("build/benchmarks")
"""Of the save files: on a real file system, unlike many a machine's /tmp."""


def a_save_file(name: str, folder: Path = FOLDER) -> Path:
    """Return the path of a save file that holds a second session, and no other files beside it but its own."""
    path = folder / name / "session.xml"
    if not path.exists():
        for _ in range(2):
            with ClientSession(path) as session:
                session.get_session_context(uuid.uuid4())
    return path


def parsed(path: str | os.PathLike[str]) -> int:
    """Read the file and let expat go through it."""
    with open(path, "rb") as file:  # noqa: PTH123  # the floor takes no detour by Path
        return expat.ParserCreate().Parse(file.read(), True)  # noqa: FBT003  # expat takes it by position alone


def collected(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the file and collect its values by key, as text."""
    values: dict[str, str] = {}
    key = content = ""

    def start(_name: str, _attributes: dict[str, str]) -> None:
        nonlocal content
        content = ""

    def text(piece: str) -> None:
        nonlocal content
        content += piece

    def end(name: str) -> None:
        nonlocal key
        if name == "Key":
            key = content
        elif name == "Value":
            values[key] = content

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    with open(path, "rb") as file:  # noqa: PTH123  # the floor takes no detour by Path
        parser.Parse(file.read(), True)  # noqa: FBT003  # expat takes it by position alone
    return values
