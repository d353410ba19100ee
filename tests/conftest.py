"""What the suite shares: Hypothesis profiles, and sessions on a clock that stands still."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _PATIENT, max_examples=50)
settings.register_profile("ci", _PATIENT, max_examples=200, print_blob=True)
settings.register_profile("nightly", _PATIENT, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


class MakeSession(Protocol):
    """Constructs a session on the test's clock, scheduler and store, unless told otherwise."""

    def __call__(self, **options: Any) -> ClientSession:  # noqa: ANN401  # any of the constructor's
        """Construct it."""
        ...


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that the test moves."""
    return ManualClock()


@pytest.fixture
def scheduler() -> ManualScheduler:
    """Return a scheduler that never ticks by itself."""
    return ManualScheduler()


@pytest.fixture
def store() -> MemoryStore:
    """Return a store in memory, shared by all sessions of the test."""
    return MemoryStore()


@pytest.fixture
def save_path(tmp_path: Path) -> Path:
    """Return the path of a save file in a folder of the test's own."""
    return tmp_path / "session.xml"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody may enter and write, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def make(clock: ManualClock, scheduler: ManualScheduler, store: MemoryStore) -> MakeSession:
    """Return the constructor of sessions for this test."""

    def construct(**options: Any) -> ClientSession:  # noqa: ANN401  # any of the constructor's
        if "save_path" not in options:
            options.setdefault("store", store)
        return ClientSession(**{"clock": clock, "scheduler": scheduler, **options})

    return construct


@pytest.fixture
def session(make: MakeSession) -> ClientSession:
    """Return a session on the test's clock."""
    return make()


@pytest.fixture(params=["dotnet_first_session.xml", "dotnet_later_session.xml", "hand_written_variant.xml"])
def dotnet_file(request: pytest.FixtureRequest) -> Path:
    """Return a save file that the .NET tracker wrote, or was seen to read."""
    name: str = request.param
    return DATA / "save-files" / name


@pytest.fixture
def switching_fast() -> Iterator[None]:
    """Switch threads as often as the interpreter can: plain stress finds no race."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, once for all workers; return their folder."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the workers' common folder
    folder = base / "distributions"
    with FileLock(base / "distributions.lock"):
        if not folder.exists():
            subprocess.run(  # noqa: S603  # our own interpreter
                [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
                check=True,
                capture_output=True,
                timeout=120,
            )
    return folder


@pytest.fixture(scope="session")
def wheel_path(distributions: Path) -> Path:
    """Return the path of the wheel."""
    (path,) = distributions.glob("client_session-*.whl")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_name_per_module() -> Iterator[None]:
    """Fail the run if a module of ours was imported by a second name, as the import root `.` would allow."""
    yield
    assert not {"fsm.client_session", "persistence.client_session_persistence"} & sys.modules.keys()
