"""Minimal ways to read a save file without a session."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from client_session import ClientSession

if TYPE_CHECKING:
    import os

FOLDER = Path("build/benchmarks")
"""The folder for save files. It is on a disk, unlike /tmp on many machines."""


def create_save_file(name: str, folder: Path = FOLDER) -> Path:
    """Create a save file in its own folder by tracking two sessions, and return its path.

    A file from an earlier run is replaced, since an earlier version may have written it in another form.
    """
    path = folder / name / "session.xml"
    shutil.rmtree(path.parent, ignore_errors=True)
    for _ in range(2):
        with ClientSession(path, continue_on_restart=True) as session:
            session.start_new_session()
            session.get_session_context(uuid.uuid4())
    return path


def parse(path: str | os.PathLike[str]) -> int:
    """Read the file and parse it with expat."""
    with open(path, "rb") as file:  # noqa: PTH123  # constructing a Path takes extra time
        return expat.ParserCreate().Parse(file.read(), True)  # noqa: FBT003  # expat accepts only positional arguments


def collect_values(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the file and return its values by key, as strings."""
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
    with open(path, "rb") as file:  # noqa: PTH123  # constructing a Path takes extra time
        parser.Parse(file.read(), True)  # noqa: FBT003  # expat accepts only positional arguments
    return values
