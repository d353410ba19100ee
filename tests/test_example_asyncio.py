"""The asyncio example: many connections at a time, and what it leaves when it is interrupted."""

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


async def entities(port: int) -> list[dict[str, Any]]:
    """Send three lines over a connection of its own; return the answers' data."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"open\nclick\nclose\n")
    found = [data_of(json.loads(await reader.readline())) for _ in range(3)]
    writer.close()
    await writer.wait_closed()
    return found


async def many(port: int) -> list[list[dict[str, Any]]]:
    """Make all connections at once."""
    async with asyncio.timeout(60):
        return await asyncio.gather(*(entities(port) for _ in range(CONNECTIONS)))


def test_connections_are_sessions_of_one_user(save_path: Path) -> None:
    """Each connection's events share a session, none doubles an index, nothing holds up the loop, and all is saved."""
    with subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, SERVER, "--save", save_path, "--debug"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        found = asyncio.run(many(int(server.stdout.readline().split()[-1])))
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert (server.returncode, errors) == (0, "")
    for session in found:
        assert [data["eventIndex"] for data in session] == [1, 2, 3]
        assert len({data["sessionId"] for data in session}) == 1
        for data in session:
            VALIDATORS["1-0-2"].validate(data)
    assert sorted(session[0]["sessionIndex"] for session in found) == list(range(1, CONNECTIONS + 1))
    kept = XmlStore(save_path).load()
    assert kept is not None
    assert {data["userId"] for session in found for data in session} == {kept.user_id}
    assert kept.session_index == CONNECTIONS
