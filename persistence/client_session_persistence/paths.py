"""Where a save file belongs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from platformdirs import user_data_path

FILE_NAME = "session.xml"


def default_save_path(app_name: str, app_author: str | None = None) -> Path:
    r"""Return the save file's path in the user's data folder of this app; nothing is created.

    - Linux: ``~/.local/share/<app_name>/session.xml`` (``XDG_DATA_HOME``)
    - macOS: ``~/Library/Application Support/<app_name>/session.xml``
    - Windows: ``%LOCALAPPDATA%\<app_author>\<app_name>\session.xml``
    - Android: ``/data/data/<package>/files/<app_name>/session.xml``
    - iOS: ``Library/Databases/<app_name>/session.xml`` of the app, where the .NET tracker keeps its own

    Args:
        app_name: the program's name, one folder's name.
        app_author: its maker, used on Windows alone; ``None``: the same as ``app_name``.

    Raises:
        TypeError: a name that is no text.
        ValueError: a name that is no folder's name.

    """
    _check_folder_name("app_name", app_name)
    if app_author is not None:
        _check_folder_name("app_author", app_author)
    if sys.platform == "ios":
        return Path.home() / "Library" / "Databases" / app_name / FILE_NAME
    return user_data_path(app_name, app_author) / FILE_NAME


def _check_folder_name(argument: str, name: str) -> None:
    if not isinstance(name, str):
        msg = f"{argument} must be text, not {name!r}"
        raise TypeError(msg)
    if not name.strip() or name in {".", ".."} or any(character in name for character in "/\\\0"):
        msg = f"{argument} must be the name of one folder (not empty, no separators), not {name!r}"
        raise ValueError(msg)
