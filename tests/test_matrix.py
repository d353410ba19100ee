"""`make matrix` finds the right interpreters."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

import matrix
from conftest import SLOW

pytestmark = pytest.mark.skipif(os.name != "posix", reason="`make matrix` needs POSIX")

MINOR = sys.version_info.minor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the only one on PATH, in an otherwise empty home folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_finds_interpreters_on_path_and_in_pyenv(folder: Path) -> None:
    """find_python() returns the path of an interpreter and the version that it reports."""
    assert matrix.find_python(MINOR) is None
    in_pyenv = folder.parent / ".pyenv" / "versions" / f"3.{MINOR}.1" / "bin" / f"python3.{MINOR}"
    for python in (in_pyenv, folder / f"python3.{MINOR}"):
        python.parent.mkdir(parents=True, exist_ok=True)
        python.symlink_to(sys.executable)
        assert matrix.find_python(MINOR) == (python, platform.python_version())
        python.unlink()


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nexit 127\n", "#!/bin/sh\necho 3 10 2\n"], ids=["does not run", "other version"]
)
def test_ignores_shims(folder: Path, script: str) -> None:
    """A pyenv shim may exist for a version but fail to run, or run a different version."""
    shim = folder / f"python3.{MINOR}"
    shim.write_text(script, encoding="utf-8")
    shim.chmod(0o755)
    assert matrix.find_python(MINOR) is None


def test_slow_files_exist() -> None:
    """Every entry in `SLOW` names an existing test file."""
    assert {path.name for path in Path(__file__).parent.glob("test_*.py")} >= SLOW
