"""An asyncio server with one session per connection. Each line is an event; ticks and saves never block the loop.

    python examples/asyncio_app.py --save session.xml --port 8000
    echo open | nc 127.0.0.1 8000

The server answers each line with its entity. All connections number their sessions in the same save file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import uuid

from client_session import ClientSession, XmlStore, default_save_path
from client_session.ticking.asyncio import AsyncioScheduler


async def serve(store: XmlStore, port: int) -> None:
    """Serve until canceled."""
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
    """Serve until interrupted. At exit, the interpreter waits for pending saves."""
    parser = argparse.ArgumentParser(description="Track each line of a connection as an event.")
    parser.add_argument("--save", metavar="FILE", default=default_save_path("client-session-asyncio"))
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--debug", action="store_true", help="log the loop's slow callbacks")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(XmlStore(options.save, background=True), options.port), debug=options.debug)


if __name__ == "__main__":
    main()
