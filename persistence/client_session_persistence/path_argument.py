"""The check of an argument that is the path of a save file."""

from __future__ import annotations

import os

from client_session_persistence.snapshot import shown


def file_path(argument: str, value: str | os.PathLike[str]) -> str:
    """Return the path of a file as a string, with ``~`` expanded. The file need not exist.

    Raise `TypeError` if the value is not a ``str`` or `os.PathLike` path, and `ValueError` if it cannot be the path of
    a file. The error names the argument and states its value and what is allowed.
    """
    if not isinstance(value, str | os.PathLike):
        msg = f"{argument} must be the path of the save file (str or os.PathLike), not {shown(value)}"
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
        msg = f"{argument} must be the path of a file, not a folder: {shown(path)}"
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
