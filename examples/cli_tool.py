"""A command-line program. Two runs less than the timeout apart share one session, even if they overlap.

    python examples/cli_tool.py build
    python examples/cli_tool.py test deploy

The program tracks each argument as an event and prints its entity. A run resumes the last session unless ten minutes
have passed since the last event.
"""

from __future__ import annotations

import argparse
import uuid
from typing import TYPE_CHECKING

from client_session import ClientSession, default_save_path

if TYPE_CHECKING:
    from pathlib import Path

    from client_session import SessionContext


def track(save_path: str | Path, timeout: float) -> SessionContext:
    """Track one event, save it, and return its entity. Simultaneous runs take turns."""
    with ClientSession(save_path, timeout, continue_on_restart=True) as session:
        return session.get_session_context(uuid.uuid4())


def main() -> None:
    """Track the events named on the command line."""
    parser = argparse.ArgumentParser(description="Track events in a session that continues across runs.")
    parser.add_argument("events", nargs="+", metavar="EVENT", help="name of an event to track")
    parser.add_argument("--save", metavar="FILE", default=default_save_path("client-session-cli"))
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=600)
    options = parser.parse_args()
    for _event in options.events:
        print(track(options.save, options.timeout).to_json())


if __name__ == "__main__":
    main()
