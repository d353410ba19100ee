"""Hypothesis profiles and shared fixtures, such as sessions with a manual clock."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import MemoryStore, SqliteStore, XmlStore, deadline, lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"

SLOW = frozenset(
    {
        "test_benchmarks.py",
        "test_docs.py",
        "test_example_desktop.py",
        "test_example_visitors.py",
        "test_example_web.py",
        "test_frozen.py",
        "test_green_threads.py",
        "test_torture.py",
        "test_web_servers.py",
    }
)
"""Tests that open windows, run servers or benchmarks, build the site, freeze programs, or inject faults.

`make matrix` skips them.
"""

_NO_DEADLINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _NO_DEADLINE, max_examples=50)
settings.register_profile("ci", _NO_DEADLINE, max_examples=200, print_blob=True)
settings.register_profile("nightly", _NO_DEADLINE, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in the `SLOW` files as slow."""
    for item in items:
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)


class MakeSession(Protocol):
    """Creates a session, by default with the test's clock, scheduler and store."""

    def __call__(self, **options: Any) -> ClientSession:  # noqa: ANN401  # any constructor argument
        """Create a session."""
        ...


@pytest.fixture
def clock() -> ManualClock:
    """Return a manual clock."""
    return ManualClock()


@pytest.fixture
def scheduler() -> ManualScheduler:
    """Return a manual scheduler."""
    return ManualScheduler()


class ManualTime:
    """The functions of the `time` module that waits for locks use. `sleep` returns at once; other calls take 1 µs.

    It begins at the real `time.monotonic` time, because lock files hold the times of other processes.
    """

    def __init__(self) -> None:
        """Begin now."""
        self.slept = 0.0
        """The seconds that all threads have slept, in total."""
        self._now = time.monotonic()
        self._changed = threading.Condition()
        self._callers: set[int] = set()
        self._awaited = 0

    def hold_until_called(self, threads: int) -> None:
        """Stop time until this many threads have asked for the time."""
        with self._changed:
            self._callers.clear()
            self._awaited = threads

    def monotonic(self) -> float:
        """Return the time in seconds."""
        with self._changed:
            self._callers.add(threading.get_ident())
            self._changed.notify_all()
            self._now += 1e-6
            return self._now

    def monotonic_ns(self) -> int:
        """Return the time in nanoseconds."""
        return int(self.monotonic() * 1e9)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._changed:
            assert not seconds or self._changed.wait_for(lambda: len(self._callers) >= self._awaited, timeout=60)
            self._now += seconds
            self.slept += seconds


@pytest.fixture
def manual_time(monkeypatch: pytest.MonkeyPatch) -> ManualTime:
    """Make waits for locks return at once, as if the time had passed."""
    manual = ManualTime()
    for module in (deadline, lock_file):
        monkeypatch.setattr(module, "time", manual)
    return manual


@pytest.fixture
def store() -> MemoryStore:
    """Return an in-memory store, shared by all sessions of the test."""
    return MemoryStore()


@pytest.fixture
def save_path(tmp_path: Path) -> Path:
    """Return the path of a save file in the test's temporary folder."""
    return tmp_path / "session.xml"


@pytest.fixture(params=[XmlStore, SqliteStore])
def file_store(request: pytest.FixtureRequest) -> type[XmlStore | SqliteStore]:
    """Return a class of stores in files, for the promises that both classes make."""
    store: type[XmlStore | SqliteStore] = request.param
    return store


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that every user can enter and write to, unlike pytest's `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def make(clock: ManualClock, scheduler: ManualScheduler, store: MemoryStore) -> MakeSession:
    """Return a function that creates sessions for this test."""

    def create(**options: Any) -> ClientSession:  # noqa: ANN401  # any constructor argument
        if "save_path" not in options:
            options.setdefault("store", store)
        return ClientSession(**{"clock": clock, "scheduler": scheduler, **options})

    return create


@pytest.fixture
def session(make: MakeSession) -> ClientSession:
    """Return a session that uses the test's clock, scheduler and store."""
    return make()


@pytest.fixture(params=["dotnet_first_session.xml", "dotnet_later_session.xml", "hand_written_variant.xml"])
def dotnet_file(request: pytest.FixtureRequest) -> Path:
    """Return the path of a save file that the .NET tracker wrote or can read."""
    name: str = request.param
    return DATA / "save-files" / name


@pytest.fixture
def fast_thread_switching() -> Iterator[None]:
    """Switch threads as often as the interpreter allows; at the default interval, stress tests miss races."""
    original_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(original_interval)


@pytest.fixture
def slow_callbacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield a list of the asyncio callbacks that each used at least 0.1 s of CPU time (not wall time)."""
    if sys.gettrace() is not None:
        pytest.skip("a trace function, such as coverage's, slows down every callback")
    slow: list[str] = []
    run = asyncio.Handle._run  # noqa: SLF001  # asyncio's debug mode also measures here

    def timed_run(handle: asyncio.Handle) -> None:
        start = time.thread_time()
        run(handle)
        if (seconds := time.thread_time() - start) >= 0.1:
            slow.append(f"{handle} took {seconds:.3f} s")

    monkeypatch.setattr(asyncio.Handle, "_run", timed_run)
    gc.collect()
    gc.freeze()  # keeps the garbage collector from scanning the suite's objects during a callback
    yield slow
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder that all of pytest-xdist's workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def distributions(shared_folder: Path) -> Path:
    """Build the sdist, then the wheel from it, once for all workers; return the folder that contains both."""
    folder = shared_folder / "distributions"
    with FileLock(shared_folder / "distributions.lock"):
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
    """Fail the run if any of our modules was imported under a second name, which the import root `.` makes possible."""
    yield
    assert not {"fsm.client_session", "persistence.client_session_persistence"} & sys.modules.keys()
