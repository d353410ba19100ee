"""The check of an argument that is the path of a save file."""

from __future__ import annotations

import os
import re
from typing import NoReturn

from client_session_persistence.snapshot import shown

_URL = re.compile(r"file:|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""Matches the beginning of a URL, even after `pathlib` has removed a slash. A drive of Windows has one letter only."""


def file_path(argument: str, value: str | os.PathLike[str]) -> str:
    """Return the path of a file as a string, with ``~`` expanded. The file need not exist.

    Raise `TypeError` if the value is not a ``str`` or `os.PathLike` path, and `ValueError` if it cannot be the path of
    a file. The error names the argument and states its value and what is allowed.
    """
    if not isinstance(value, str | os.PathLike):
        msg = f"{argument} must be the path of a file (str or os.PathLike), not {shown(value)}"
        raise TypeError(msg)
    try:
        path = os.fspath(value)
    except TypeError as error:
        msg = f"{argument} must be a str path, not {shown(value)}: {error}"
        raise TypeError(msg) from error
    if not isinstance(path, str):
        msg = f"{argument} must be a str path, not {shown(path)}"
        raise TypeError(msg)
    if not path.strip() or "\0" in path:
        msg = f"{argument} must be the path of a file (not empty, no NUL character), not {shown(path)}"
        raise ValueError(msg)
    if path.endswith(("/", os.sep)):
        _refuse_folder(argument, path)
    if path == ":memory:":
        msg = f"{argument} must be the path of a file, not {shown(path)}; use MemoryStore or MemoryStates instead"
        raise ValueError(msg)
    if _URL.match(path):
        msg = f"{argument} must be the path of a file, not the URL {shown(path)}; pass a plain path"
        raise ValueError(msg)
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        msg = (
            f"{argument} must be a path whose characters file names on this system can contain, "
            f"not {shown(path)}: {error.reason}"
        )
        raise ValueError(msg) from error
    return os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser() raises RuntimeError if there is no home folder


def path_of_no_folder(argument: str, value: str | os.PathLike[str]) -> str:
    """Return the path of a file as `file_path` does; also raise `ValueError` if a folder has this path now."""
    path = file_path(argument, value)
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir() can raise PermissionError
        _refuse_folder(argument, path)
    return path


def _refuse_folder(argument: str, path: str) -> NoReturn:
    msg = f"{argument} must be the path of a file, not a folder: {shown(path)}"
    raise ValueError(msg)
