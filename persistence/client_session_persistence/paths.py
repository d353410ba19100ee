"""The default path of the save file on each platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from platformdirs import user_data_path

from client_session_persistence.snapshot import shown

FILE_NAME = "session.xml"


def default_save_path(app_name: str, app_author: str | None = None) -> Path:
    r"""Return the path of the save file in the app's user data folder. Nothing is created.

    - Linux: ``~/.local/share/<app_name>/session.xml`` (``XDG_DATA_HOME``)
    - macOS: ``~/Library/Application Support/<app_name>/session.xml``
    - Windows: ``%LOCALAPPDATA%\<app_author>\<app_name>\session.xml``
    - Android: ``/data/data/<package>/files/<app_name>/session.xml``
    - iOS: ``Library/Databases/<app_name>/session.xml`` in the app's sandbox, next to the .NET tracker's file
    - a user without a home folder, as in some containers: ``/var/tmp/<app_name>-<uid>/session.xml``

    Args:
        app_name: the name of the program, which must be a valid folder name.
        app_author: the publisher, used only on Windows; by default, the same as ``app_name``.

    Raises:
        TypeError: a name is not a ``str``.
        ValueError: a name is not a valid folder name.

    """
    _check_folder_name("app_name", app_name)
    if app_author is not None:
        _check_folder_name("app_author", app_author)
    try:
        if sys.platform == "ios":
            folder = Path.home() / "Library" / "Databases" / app_name
        else:
            folder = user_data_path(app_name, app_author)
    except RuntimeError:  # neither HOME nor the user database has a home folder; older platformdirs return "~/…"
        folder = Path("~")
    if folder.parts[:1] == ("~",) and hasattr(os, "getuid"):
        folder = Path("/var/tmp", f"{app_name}-{os.getuid()}")  # noqa: S108  # the store creates it with mode 0700
    return folder.absolute() / FILE_NAME


def _check_folder_name(argument: str, name: str) -> None:
    if not isinstance(name, str):
        msg = f"{argument} must be a str, not {shown(name)}"
        raise TypeError(msg)
    if not name.strip() or name in {".", ".."} or any(character in name for character in "/\\\0"):
        msg = f"{argument} must be the name of one folder (not empty, no separators), not {shown(name)}"
        raise ValueError(msg)
