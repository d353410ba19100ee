"""The web worker example, under gunicorn: forked workers, one of them killed, and a graceful stop."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_session_persistence import loads
from test_entity import VALIDATORS, data_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entities = list[dict[str, Any]]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn, of the dependency group examples"
)

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 60.0
"""How long anything is waited for before it counts as missing: ample, since the machine may be busy."""


class Server:
    """A gunicorn of three workers, and every entity that it answered."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until it listens and has its workers."""
        self.process = process
        self.entities: Entities = []
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)"))
        self.workers = [self.next_worker() for _ in range(3)]

    def wait_for(self, pattern: str) -> str:
        """Read its output up to what matches; return the group."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return found[1]
        pytest.fail(f"gunicorn said nothing of {pattern}")

    def rest(self) -> str:
        """Read its output to the end."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def next_worker(self) -> int:
        """Wait for a worker, and return its process's id."""
        return int(self.wait_for(r"Booting worker with pid: (\d+)"))

    def get(self, _number: int) -> dict[str, Any]:
        """Make a request, and return the data of the entity that it is answered with."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            assert response.status == 200
            return data_of(json.loads(response.read()))
        finally:
            connection.close()

    def get_until(self, sessions: int) -> None:
        """Make requests, eight at a time, until so many sessions have answered."""
        with ThreadPoolExecutor(8) as pool:
            for _round in range(200):
                self.entities += pool.map(self.get, range(40))
                if len({entity["sessionId"] for entity in self.entities}) >= sessions:
                    return
        pytest.fail(f"fewer than {sessions} sessions answered {len(self.entities)} requests")

    def events(self) -> dict[int, int]:
        """Return the number of events of each session, by its index, after checking that nothing is lost or doubled."""
        assert len({entity["userId"] for entity in self.entities}) == 1
        sessions: dict[int, Entities] = {}
        for entity in self.entities:
            VALIDATORS["1-0-2"].validate(entity)
            sessions.setdefault(entity["sessionIndex"], []).append(entity)
        assert sorted(sessions) == list(range(1, len(sessions) + 1))
        before = None
        for index in sorted(sessions):
            ((session_id, previous, _first),) = {
                (entity["sessionId"], entity["previousSessionId"], entity["firstEventId"]) for entity in sessions[index]
            }
            assert previous == before
            before = session_id
            numbers = sorted(entity["eventIndex"] for entity in sessions[index])
            assert numbers == list(range(1, len(numbers) + 1))
        return {index: len(entities) for index, entities in sessions.items()}


@pytest.fixture(params=["", "--preload", "--preload --threads 4"])
def server(request: pytest.FixtureRequest, save_path: Path) -> Iterator[Server]:
    """Return gunicorn, serving the example: imported by each worker, or by the master before it forks them."""
    options: str = request.param
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [
            *(sys.executable, "-m", "gunicorn", "--chdir", EXAMPLES, "--bind", "127.0.0.1:0", "--workers", "3"),
            *options.split(),
            f"gunicorn_app:create_app({os.fspath(save_path)!r})",
        ],
        env={**os.environ, "HOME": os.fspath(save_path.parent)},  # where it puts its control socket
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watchdog = threading.Timer(2 * SECONDS, process.kill)
        watchdog.start()
        try:
            yield Server(process)
        finally:
            watchdog.cancel()
            process.kill()


def test_workers_share_the_user_and_have_sessions_of_their_own(server: Server, save_path: Path) -> None:
    """One user; a session for each worker, the killed one's successor too; indexes without gaps; a stop closes."""
    server.get_until(sessions=3)
    assert set(server.events()) == {1, 2, 3}
    os.kill(server.workers[0], signal.SIGKILL)
    server.next_worker()
    server.get_until(sessions=4)
    events = server.events()
    assert set(events) == {1, 2, 3, 4}

    server.process.terminate()
    output = server.rest()
    assert server.process.wait() == 0
    ended = {
        int(index): int(count) for index, count in re.findall(r"session (\d+) ended \(close\) after (\d+)", output)
    }
    assert len(ended) == 3
    assert ended.items() <= events.items()
    assert "Traceback" not in output
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (4, events[4])
