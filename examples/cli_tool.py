"""A command-line program: runs within the timeout are one session, also runs at the same time.

    python examples/cli_tool.py build
    python examples/cli_tool.py test deploy

Each argument is tracked as an event, and its entity is printed. A session goes on from run to run until there has been
none for ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import uuid
from typing import TYPE_CHECKING

from client_session import ClientSession
from client_session_persistence import XmlStore, default_save_path

if TYPE_CHECKING:
    from client_session import SessionContext
    from client_session_persistence import SnapshotStore


def track(store: SnapshotStore, timeout: float) -> SessionContext:
    """Track one event, and return its entity when it is saved.

    Runs at the same time take turns, by the store's lock: a session that is continued counts its events in the save
    file, so no two runs may have it open. Where the lock cannot be had, the program goes on without.
    """
    with contextlib.ExitStack() as turn:
        with contextlib.suppress(OSError):
            turn.enter_context(store.lock())
        session = turn.enter_context(ClientSession(store=store, foreground_timeout=timeout, continue_on_restart=True))
        return session.get_session_context(uuid.uuid4())


def main() -> None:
    """Track what is named on the command line."""
    parser = argparse.ArgumentParser(description="Track events in a session that goes on from run to run.")
    parser.add_argument("events", nargs="+", metavar="EVENT", help="what is done")
    parser.add_argument("--save", metavar="FILE", default=default_save_path("client-session-cli"))
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=600)
    options = parser.parse_args()
    store = XmlStore(options.save)
    for _event in options.events:
        print(track(store, options.timeout).to_json())


if __name__ == "__main__":
    main()
