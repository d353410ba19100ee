"""The installed wheel works alongside a program's own `fsm` and `persistence` modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipapp
import zipfile
from pathlib import Path

import attrs
import pytest

import client_session

ROOT = Path(__file__).parents[1]
MODULES_UNDER_A_SECOND_NAME = {"fsm.client_session", "persistence.client_session_persistence"}

PROGRAM = """
import json, sys, uuid
import fsm, persistence
from client_session import ClientSession, MemoryStore, XmlStore, __version__, default_save_path
import client_session, client_session_persistence

for store in (XmlStore("session.xml"), MemoryStore()):
    with ClientSession(store=store) as session:
        index = session.get_session_context(uuid.uuid4()).session_index
print(json.dumps({
    "files": [client_session.__file__, client_session_persistence.__file__],
    "version": __version__,
    "own": [fsm.OWNER, persistence.OWNER],
    "default": str(default_save_path("my-app")),
    "index": index,
    "modules": list(sys.modules),
}))
"""


@attrs.frozen
class Installation:
    """A virtual environment with the wheel installed."""

    python: Path
    packages: Path

    def run(self, *arguments: str, folder: Path) -> str:
        """Run the environment's Python in a folder and return the output."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(  # noqa: S603  # the virtual environment's interpreter
            [self.python, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, wheel_path: Path) -> Installation:
    """Install the wheel into a new virtual environment that has the dependencies but not the editable install."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)  # noqa: S603
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel_path],
        check=True,
        timeout=120,
    )
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # Python ignores .pth files (such as those of editable installs) in a folder that another .pth file added.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)), encoding="utf-8")
    return Installation(python, packages)


def test_installed_packages_work_next_to_modules_named_fsm_and_persistence(
    installation: Installation, tmp_path: Path
) -> None:
    """A program's own `fsm` and `persistence` modules can be imported, and neither shadows any part of the library."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    for name in ("fsm", "persistence"):
        (tmp_path / f"{name}.py").write_text("OWNER = 'program'\n", encoding="utf-8")
    found = json.loads(installation.run("-W", "error", "program.py", folder=tmp_path))
    assert found["own"] == ["program", "program"]
    assert all(Path(file).is_relative_to(installation.packages) for file in found["files"])
    assert not MODULES_UNDER_A_SECOND_NAME & set(found["modules"])
    assert found["version"] == client_session.__version__
    assert found["index"] == 1
    assert Path(found["default"]).name == "session.xml"
    assert (tmp_path / "session.xml").exists()


def test_installed_version_matches_the_metadata(installation: Installation, tmp_path: Path) -> None:
    """`client_session.__version__` and `importlib.metadata` agree."""
    program = "import importlib.metadata; print(importlib.metadata.version('client-session'))"
    assert installation.run("-c", program, folder=tmp_path).strip() == client_session.__version__


def test_installed_command_runs(installation: Installation, tmp_path: Path) -> None:
    """The wheel's `client-session` command starts and finds its own package."""
    assert "replay" in installation.run("-m", "client_session", "--help", folder=tmp_path)
    (script,) = installation.python.parent.glob("client-session*")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    assert "replay" in done.stdout


def test_modules_are_imported_under_only_one_name_in_a_clone() -> None:
    """In a clone's root folder, `fsm` is importable as a namespace package, but none of our code imports it."""
    program = "import sys, client_session.testing, benchmarks, docs.generated; print(*sys.modules)"
    modules = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert {"client_session", "client_session_persistence", "docs.generated"} <= set(modules)
    assert not MODULES_UNDER_A_SECOND_NAME & set(modules)


def test_program_works_as_a_zip_file(installation: Installation, wheel_path: Path, tmp_path: Path) -> None:
    """A zipapp that contains both packages saves sessions and draws the graph."""
    content = tmp_path / "content"
    with zipfile.ZipFile(wheel_path) as wheel:
        wheel.extractall(content)
    (content / "__main__.py").write_text(
        textwrap.dedent("""
        import sys, uuid
        import client_session
        from client_session import ClientSession
        from client_session.__main__ import main
        with ClientSession("session.xml") as session:
            print(client_session.__file__, session.get_session_context(uuid.uuid4()).session_index, session.save_error)
        sys.argv[1:] = ["diagram", "-o", "lifecycle.svg"]
        main()
        """),
        encoding="utf-8",
    )
    zipapp.create_archive(content, tmp_path / "program.pyz")
    shutil.rmtree(content)
    output = installation.run("-W", "error", "program.pyz", folder=tmp_path)
    assert "program.pyz" in output
    assert "1 None" in output
    assert (tmp_path / "lifecycle.svg").read_text(encoding="utf-8").endswith("</svg>\n")
