"""The asyncio example: many concurrent connections, then an interrupt."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from client_session_persistence import XmlStore
from test_entity import VALIDATORS, data_of

SERVER = Path(__file__).parents[1] / "examples" / "asyncio_app.py"
CONNECTIONS = 50


async def entities_of_connection(port: int) -> list[dict[str, Any]]:
    """Send three lines over a new connection and return the data of the three entities."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"open\nclick\nclose\n")
    received = [data_of(json.loads(await reader.readline())) for _ in range(3)]
    writer.close()
    await writer.wait_closed()
    return received


async def all_entities(port: int) -> list[list[dict[str, Any]]]:
    """Open all connections concurrently."""
    async with asyncio.timeout(60):
        return await asyncio.gather(*(entities_of_connection(port) for _ in range(CONNECTIONS)))


def test_connections_have_separate_sessions_of_one_user(save_path: Path) -> None:
    """Each connection has its own session and indexes, the loop is not blocked, and the last session is saved."""
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, SERVER, "--save", save_path, "--debug"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        sessions = asyncio.run(all_entities(int(server.stdout.readline().split()[-1])))
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert (server.returncode, errors) == (0, "")
    for session in sessions:
        assert [data["eventIndex"] for data in session] == [1, 2, 3]
        assert len({data["sessionId"] for data in session}) == 1
        for data in session:
            VALIDATORS["1-0-2"].validate(data)
    assert sorted(session[0]["sessionIndex"] for session in sessions) == list(range(1, CONNECTIONS + 1))
    snapshot = XmlStore(save_path).load()
    assert snapshot is not None
    assert {data["userId"] for session in sessions for data in session} == {snapshot.user_id}
    assert snapshot.session_index == CONNECTIONS
