"""A server on asyncio: each connection is a user, each line an event; neither ticks nor saves hold up the loop.

    python examples/asyncio_app.py --save session.xml --port 8000
    echo open | nc 127.0.0.1 8000

Every line is answered with its entity. Connections are sessions of their own, which number on in one save file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import uuid

from client_session import ClientSession
from client_session.ticking.asyncio import AsyncioScheduler
from client_session_persistence import XmlStore, default_save_path


async def serve(store: XmlStore, port: int) -> None:
    """Serve until cancelled."""
    scheduler = AsyncioScheduler()  # ticks on this loop

    async def track_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with ClientSession(store=store, scheduler=scheduler) as session, contextlib.suppress(ConnectionError):
            async for _line in reader:
                writer.write(session.get_session_context(uuid.uuid4()).to_json().encode() + b"\n")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(track_lines, "127.0.0.1", port) as server:
        print("Listening on port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


def main() -> None:
    """Serve until interrupted; the exit waits until all is saved."""
    parser = argparse.ArgumentParser(description="Track each line of each connection in a session.")
    parser.add_argument("--save", metavar="FILE", default=default_save_path("client-session-asyncio"))
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--debug", action="store_true", help="log what holds up the loop")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(XmlStore(options.save, background=True), options.port), debug=options.debug)


if __name__ == "__main__":
    main()
