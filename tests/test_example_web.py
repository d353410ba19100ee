"""The web worker example under gunicorn: forked workers, a killed worker and a graceful stop."""

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
    importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn (dependency group examples)"
)

EXAMPLES = Path(__file__).parents[1] / "examples"
WAIT_SECONDS = 60.0
"""Seconds to wait for a result before a test fails. Generous, because the machine may be busy."""


class Server:
    """A gunicorn server with three workers, and all entities it has returned."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until the server is listening and has started its workers."""
        self.process = process
        self.entities: Entities = []
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)"))
        self.workers = [self.next_worker() for _ in range(3)]

    def wait_for(self, pattern: str) -> str:
        """Read the output up to the first matching line, and return the matched group."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if match := re.search(pattern, line):
                return match[1]
        pytest.fail(f"gunicorn did not print a line that matches {pattern}")

    def read_remaining_output(self) -> str:
        """Read the output to the end."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def next_worker(self) -> int:
        """Wait for a worker to start and return its process id."""
        return int(self.wait_for(r"Booting worker with pid: (\d+)"))

    def get(self, _number: int) -> dict[str, Any]:
        """Make a request and return the data of the entity in the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            assert response.status == 200
            return data_of(json.loads(response.read()))
        finally:
            connection.close()

    def get_until(self, sessions: int) -> None:
        """Make requests, eight at a time, until the responses come from the given number of sessions."""
        with ThreadPoolExecutor(8) as pool:
            for _round in range(200):
                self.entities += pool.map(self.get, range(40))
                if len({entity["sessionId"] for entity in self.entities}) >= sessions:
                    return
        pytest.fail(f"{len(self.entities)} responses contained fewer than {sessions} sessions")

    def count_events(self) -> dict[int, int]:
        """Check that event indexes have no gaps or duplicates; return the number of events per session index."""
        assert len({entity["userId"] for entity in self.entities}) == 1
        sessions: dict[int, Entities] = {}
        for entity in self.entities:
            VALIDATORS["1-0-2"].validate(entity)
            sessions.setdefault(entity["sessionIndex"], []).append(entity)
        assert sorted(sessions) == list(range(1, len(sessions) + 1))
        previous_id = None
        for index in sorted(sessions):
            ((session_id, previous, _first),) = {
                (entity["sessionId"], entity["previousSessionId"], entity["firstEventId"]) for entity in sessions[index]
            }
            assert previous == previous_id
            previous_id = session_id
            numbers = sorted(entity["eventIndex"] for entity in sessions[index])
            assert numbers == list(range(1, len(numbers) + 1))
        return {index: len(entities) for index, entities in sessions.items()}


@pytest.fixture(params=["", "--preload", "--preload --threads 4"])
def server(request: pytest.FixtureRequest, save_path: Path) -> Iterator[Server]:
    """Yield a gunicorn server in which each worker imports the example, or the master imports it before forking."""
    options: str = request.param
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [
            *(sys.executable, "-m", "gunicorn", "--chdir", EXAMPLES, "--bind", "127.0.0.1:0", "--workers", "3"),
            *options.split(),
            f"gunicorn_app:create_app({os.fspath(save_path)!r})",
        ],
        env={**os.environ, "HOME": os.fspath(save_path.parent)},  # gunicorn puts its control socket here
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watchdog = threading.Timer(2 * WAIT_SECONDS, process.kill)
        watchdog.start()
        try:
            yield Server(process)
        finally:
            watchdog.cancel()
            process.kill()


def test_workers_share_the_user_but_not_the_session(server: Server, save_path: Path) -> None:
    """Each worker, including the replacement for a killed one, has its own session; a graceful stop ends them all."""
    server.get_until(sessions=3)
    assert set(server.count_events()) == {1, 2, 3}
    os.kill(server.workers[0], signal.SIGKILL)
    server.next_worker()
    server.get_until(sessions=4)
    events = server.count_events()
    assert set(events) == {1, 2, 3, 4}

    server.process.terminate()
    output = server.read_remaining_output()
    assert server.process.wait() == 0
    ended = {
        int(index): int(count) for index, count in re.findall(r"session (\d+) ended \(close\) after (\d+)", output)
    }
    assert len(ended) == 3
    assert ended.items() <= events.items()
    assert "Traceback" not in output
    saved = loads(save_path.read_bytes())
    assert (saved.session_index, saved.event_index) == (4, events[4])
