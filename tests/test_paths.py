"""Where a save file belongs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client_session_persistence import default_save_path


@pytest.mark.skipif(sys.platform != "linux", reason="the data folder of another system")
def test_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data folder of the user, or XDG_DATA_HOME; nothing is made."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_save_path("my-app") == Path.home() / ".local/share/my-app/session.xml"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_save_path("my-app", "me") == tmp_path / "data" / "my-app" / "session.xml"
    assert not (tmp_path / "data").exists()


def test_ios(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's own databases, where the .NET tracker keeps its file."""
    monkeypatch.setattr(sys, "platform", "ios")
    assert default_save_path("my-app") == Path.home() / "Library" / "Databases" / "my-app" / "session.xml"


@pytest.mark.skipif(sys.platform != "linux", reason="Android is told by its environment, on Linux alone")
def test_android() -> None:
    """The app's own files, in a process that finds itself in an Android app."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"SHELL", "PREFIX"}},
        "ANDROID_DATA": "/data",
        "ANDROID_ROOT": "/system",
        "PYTHONPATH": "/data/user/0/org.example.app/files/app",
    }
    program = "from client_session_persistence import default_save_path; print(default_save_path('my-app'))"
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "/data/user/0/org.example.app/files/my-app/session.xml\n"


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "a/b", "a\\b", "a\0b"])
def test_names_of_no_folder_are_refused(name: str) -> None:
    """The error names argument and value."""
    with pytest.raises(ValueError, match="app_name must be the name of one folder"):
        default_save_path(name)
    with pytest.raises(ValueError, match="app_author must be the name of one folder"):
        default_save_path("my-app", name)


@pytest.mark.parametrize("name", [None, 7, Path("a")])
def test_names_are_text(name: object) -> None:
    """Another type is a TypeError."""
    with pytest.raises(TypeError, match="app_name must be a str"):
        default_save_path(name)  # type: ignore[arg-type]  # the promise under test
