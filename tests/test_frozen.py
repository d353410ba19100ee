"""Programs frozen with PyInstaller or Nuitka, without any option, hook or metadata for the library."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from filelock import FileLock

import client_session
from client_session import ClientSession
from client_session.verify import picture
from client_session_persistence import loads
from event_ids import event_id

TESTS = Path(__file__).parent
TRACE = TESTS.parent / "examples" / "desktop_day.jsonl"


@attrs.frozen
class Freezer:
    """A tool that turns frozen_program.py into a folder with an executable."""

    module: str
    arguments: tuple[str, ...]
    executable: str
    needs: str
    programs: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether the tool and the programs that it runs are installed."""
        return importlib.util.find_spec(self.module) is not None and all(map(shutil.which, self.programs))


FREEZERS = (
    Freezer(
        "PyInstaller",
        (
            "--exclude-module=hypothesis",
            "--exclude-module=duckdb",
            "--exclude-module=polars",
        ),  # for few commands
        "dist/frozen_program/frozen_program",
        "needs PyInstaller (dependency group examples)",
    ),
    Freezer(
        "nuitka",
        (
            "--standalone",
            "--nofollow-import-to=hypothesis,pygments",  # pygments would take most of the time
            "--no-deployment-flag=excluded-module-usage",  # packages that are excluded look as if they were missing
        ),
        "frozen_program.dist/frozen_program.bin",
        "needs Nuitka, gcc and patchelf (make freeze)",
        ("gcc", "patchelf"),
    ),
)


@pytest.fixture(scope="session", params=FREEZERS, ids=lambda freezer: freezer.module)
def program(request: pytest.FixtureRequest, shared_folder: Path) -> Path:
    """Freeze the program, once for all workers; return the path of the executable."""
    freezer: Freezer = request.param
    if not freezer.is_installed:
        pytest.skip(freezer.needs)
    folder = shared_folder / freezer.module
    executable = folder / freezer.executable
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            built = subprocess.run(  # noqa: S603  # our own interpreter
                [sys.executable, "-m", freezer.module, *freezer.arguments, TESTS / "frozen_program.py"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=3600,
            )
            assert executable.exists(), built.stdout
    return executable


def run(program: Path, *arguments: str | Path, home: Path, status: int = 0) -> str:
    """Run the frozen program in an environment that has nothing of this one, and return its output."""
    result = subprocess.run(  # noqa: S603  # our own program
        [program, *arguments],
        env={"HOME": str(home), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == status, result.stdout
    return result.stdout


def test_sessions_work_in_a_frozen_program(program: Path, tmp_path: Path) -> None:
    """Stores, background saves, decisions, forks, spawned processes and the save at exit all work."""
    found = json.loads(run(program, tmp_path, home=tmp_path))
    assert Path(found.pop("default")).is_relative_to(tmp_path)
    assert found.pop("in memory")["data"]["sessionIndex"] == 1
    assert "must be a plain function" in found.pop("refusal")
    assert found == {
        "version": client_session.__version__,
        "state": "background-active",
        "decisions": [["session 1 begins"], ["the app went to the background (timeout 300 s)"]],
        "indexes": [1, 2, 3, 4],
    }
    assert loads((tmp_path / "open.xml").read_bytes()).event_index == 3


def test_command_works_in_a_frozen_program(program: Path, save_path: Path) -> None:
    """The command prints its version, shows a save file, replays a trace, draws the graph, and says what it lacks."""
    with ClientSession(save_path) as session:
        user_id = session.get_session_context(event_id(1)).user_id

    def command(*arguments: str | Path, status: int = 0) -> str:
        return run(program, "client-session", *arguments, home=save_path.parent, status=status)

    assert command("--version") == f"client-session, version {client_session.__version__}\n"
    assert json.loads(command("show", "--json", save_path))["userId"] == user_id
    assert command("replay", TRACE).endswith("ended: closed\n")
    assert command("diagram", "--format", "svg") == picture.svg()
    assert command("verify", status=1) == "Error: verify needs hypothesis: pip install 'client-session[verify]'\n"
