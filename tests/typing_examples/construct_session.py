"""The constructor's arguments, as type checkers see them."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from pathlib import Path
from typing import assert_type

from client_session import ClientSession, MemoryStore, Seconds, SystemClock, XmlStore, default_save_path

assert_type(ClientSession("session.xml"), ClientSession)
ClientSession(Path("session.xml"), 600, 300.0, timedelta(seconds=15), logging.getLogger("my-app"))
ClientSession(default_save_path("my-app"), foreground_timeout=math.inf)
ClientSession(store=XmlStore("session.xml", background=True))
ClientSession(
    store=MemoryStore(),
    clock=SystemClock(),
    scheduler=None,
    count_empty_sessions=False,
    continue_on_restart=True,
)

with ClientSession("session.xml") as session:
    assert_type(session, ClientSession)
    assert_type(session.foreground_timeout, float)
    session.foreground_timeout = timedelta(minutes=10)
    session.check_interval = 15


def set_timeouts(session: ClientSession, timeout: Seconds) -> None:
    """Set both timeouts from a parameter annotated with the library's type."""
    session.foreground_timeout = timeout
    session.background_timeout = timeout


ClientSession(b"session.xml")  # type: ignore[arg-type]
ClientSession("session.xml", "600")  # type: ignore[arg-type]
ClientSession("session.xml", check_interval=None)  # type: ignore[arg-type]
ClientSession("session.xml", logger=print)  # type: ignore[arg-type]
ClientSession("session.xml", continue_on_restart="yes")  # type: ignore[arg-type]
ClientSession("session.xml", 600, 300, 15, None, MemoryStore())  # type: ignore[call-arg]
ClientSession("session.xml", timeout=600)  # type: ignore[call-arg]
session.foreground_timeout = "600"  # type: ignore[assignment]
session.session_id = "00000000-0000-4000-8000-000000000001"  # type: ignore[misc]
session.set_background("yes")  # type: ignore[arg-type]
