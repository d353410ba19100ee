"""The wheel: its contents and metadata."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the sources with the real backend."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("fsm", "persistence", "tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel_path,) = target.glob("client_session-*.whl")
    return zipfile.ZipFile(wheel_path)


def test_wheel_has_only_the_two_packages(wheel: zipfile.ZipFile) -> None:
    """The wheel installs no tests and nothing with a generic name."""
    top_level = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in top_level if not top.endswith(".dist-info")} == {
        "client_session",
        "client_session_persistence",
    }
    assert len(top_level) == 3
    data = {"py.typed", "lifecycle.svg", "verify/report.css"}
    assert {f"client_session/{name}" for name in data} <= set(wheel.namelist())
    assert "client_session_persistence/py.typed" in wheel.namelist()
    assert not [name for name in wheel.namelist() if "__pycache__" in name]
    assert {
        path.relative_to(ROOT / root).as_posix()
        for root in ("fsm", "persistence")
        for path in (ROOT / root).glob("**/*.py")
    } <= set(wheel.namelist())


def test_metadata_is_ready_for_publishing(wheel: zipfile.ZipFile) -> None:
    """The metadata has name, license, README, requirements, extras and the command."""
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Name"] == "client-session"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# client-session" in str(metadata.get_payload())
    requirements = metadata.get_all("Requires-Dist") or []
    required = {requirement.split(">")[0] for requirement in requirements if "extra" not in requirement}
    assert required == {"attrs", "filelock", "platformdirs", "transitions"}
    assert {r.split(">")[0] for r in requirements if "extra == 'cli'" in r} == {"click", "rich"}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "client-session = client_session.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
