"""The contents and metadata of the wheel and the sdist."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import client_session

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wheel(wheel_path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield the wheel, opened for reading."""
    with zipfile.ZipFile(wheel_path) as opened:
        yield opened


@pytest.fixture
def sdist_names(distributions: Path) -> set[str]:
    """Return the paths of the files in the sdist, relative to its top folder."""
    (path,) = distributions.glob("client_session-*.tar.gz")
    with tarfile.open(path) as opened:
        return {name.split("/", 1)[1] for name in opened.getnames()}


def test_wheel_has_only_the_two_packages(wheel: zipfile.ZipFile) -> None:
    """The wheel does not install tests or packages with generic names."""
    top_level = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in top_level if not top.endswith(".dist-info")} == {
        "client_session",
        "client_session_persistence",
    }
    assert len(top_level) == 3


def test_wheel_has_every_module_and_no_data_files(wheel: zipfile.ZipFile) -> None:
    """Freezers such as PyInstaller find modules, but would omit data files unless they were configured to add them."""
    modules = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("fsm", "persistence")
        for path in (ROOT / root).glob("**/*.py")
    }
    markers = {"client_session/py.typed", "client_session_persistence/py.typed"}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == modules | markers


def test_metadata_is_ready_for_publishing(wheel: zipfile.ZipFile) -> None:
    """The metadata contains the name, license, README, requirements, extras and command."""
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Name"] == "client-session"
    assert metadata["Version"] == client_session.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# client-session" in str(metadata.get_payload())
    requirements = metadata.get_all("Requires-Dist") or []
    required = {requirement.split(">")[0] for requirement in requirements if "extra" not in requirement}
    assert required == {"attrs", "filelock", "platformdirs", "transitions"}
    assert {r.split(">")[0] for r in requirements if "extra == 'cli'" in r} == {"click", "rich"}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "client-session = client_session.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_readme_on_a_package_index_has_no_broken_links(wheel: zipfile.ZipFile) -> None:
    """In the metadata, links to other files of the project are text, and their pictures are left out."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    readme = str(message_from_bytes(wheel.read(name)).get_payload())
    assert "CONTRIBUTING" in readme
    assert re.findall(r"\]\((?!https://)|<img|```mermaid", readme) == []


def test_sdist_has_every_file_that_the_readme_links_to(sdist_names: set[str]) -> None:
    """The sdist is complete: no relative link in its README is broken."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in link}
    assert links >= {"SECURITY.md", "CONTRIBUTING.md", "docs/index.md", "benchmarks/chart.svg"}
    assert links <= sdist_names


def test_sdist_can_be_tested_like_a_clone(sdist_names: set[str]) -> None:
    """The sdist contains the tests, their data, and the configuration of every tool."""
    assert {"Makefile", "mkdocs.yml", "pyproject.toml", "tests/conftest.py", ".github/workflows/ci.yml"} <= sdist_names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "data").rglob("*.*")} <= sdist_names


@pytest.mark.parametrize(
    ("root", "package"), [("fsm", "client_session"), ("persistence", "client_session_persistence")]
)
def test_source_roots_contain_only_their_package(root: str, package: str) -> None:
    """A stray module in a source root would be importable in a clone but missing from the wheel."""
    assert {path.name for path in (ROOT / root).iterdir()} - {"__pycache__"} == {package}
