"""The default path of the save file on each platform."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client_session_persistence import default_save_path, paths


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_linux_path_is_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The path is in XDG_DATA_HOME or the user's data folder, and the folder is not created."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_save_path("my-app") == Path.home() / ".local/share/my-app/session.xml"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_save_path("my-app", "me") == tmp_path / "data" / "my-app" / "session.xml"
    assert not (tmp_path / "data").exists()


def test_ios_path_is_in_the_databases_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is in the app's databases folder, where the .NET tracker keeps its file."""
    monkeypatch.setattr(sys, "platform", "ios")
    assert default_save_path("my-app") == Path.home() / "Library" / "Databases" / "my-app" / "session.xml"


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs detects Android only on Linux")
def test_android_path_is_in_the_apps_private_folder() -> None:
    """In an Android app, the path is in the app's private `files` folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"SHELL", "PREFIX"}},
        "ANDROID_DATA": "/data",
        "ANDROID_ROOT": "/system",
        "PYTHONPATH": "/data/user/0/org.example.app/files/app",
    }
    program = "from client_session_persistence import default_save_path; print(default_save_path('my-app'))"
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == "/data/user/0/org.example.app/files/my-app/session.xml\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to switch users")
@pytest.mark.parametrize("variables", [{}, {"HOME": "~"}], ids=str)
def test_path_is_absolute_without_a_home_folder(variables: dict[str, str]) -> None:
    """A user who is in no user database and has no HOME, as in some containers, still gets an absolute path."""
    program = (
        "import os; from client_session_persistence import default_save_path; import platformdirs.unix;"
        "os.setgid(0); os.setuid(1_000_650_000); os.chdir('/usr'); print(default_save_path('my-app'))"
    )
    path = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", program], env=path | variables, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == "/var/tmp/my-app-1000650000/session.xml\n"  # noqa: S108  # as documented


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX users")
def test_path_is_absolute_with_old_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home folder, platformdirs 4.2 returns a path that begins with ~, and newer ones raise RuntimeError."""
    monkeypatch.setattr(paths, "user_data_path", lambda name, _: Path("~/.local/share", name))
    assert default_save_path("my-app") == Path("/var/tmp", f"my-app-{os.getuid()}", "session.xml")  # noqa: S108  # as documented


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "a/b", "a\\b", "a\0b"])
def test_invalid_folder_name_is_rejected(name: str) -> None:
    """The error says which argument is invalid."""
    with pytest.raises(ValueError, match="app_name must be the name of one folder"):
        default_save_path(name)
    with pytest.raises(ValueError, match="app_author must be the name of one folder"):
        default_save_path("my-app", name)


@pytest.mark.parametrize("name", [None, 7, Path("a")])
def test_folder_name_must_be_a_string(name: object) -> None:
    """A folder name of any other type raises TypeError."""
    with pytest.raises(TypeError, match="app_name must be a str"):
        default_save_path(name)  # type: ignore[arg-type]  # wrong on purpose
