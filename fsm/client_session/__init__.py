"""Client sessions for trackers: group tracked events into sessions.

>>> from client_session import ClientSession
>>> session = ClientSession("session.xml")
>>> entity = session.get_session_context(event_id)  # for every tracked event
>>> session.set_background(True)  # whenever the app gains or loses focus
>>> session.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import client_session_persistence
from client_session.arguments import Seconds
from client_session.callbacks import Logger
from client_session.clock import Clock, SystemClock
from client_session.entity import EntityData, SessionContext, SessionSummary
from client_session.errors import SessionClosedError
from client_session.explanation import Beginning, Ending, Explanation
from client_session.graph import Command, EndReason, Input, SessionState
from client_session.input_log import InputRecord
from client_session.session import ClientSession
from client_session.ticking.scheduler import Scheduler, Ticking
from client_session_persistence import MemoryStore

if TYPE_CHECKING:
    from client_session_persistence import SqliteStore, XmlStore, default_save_path

__version__ = "0.1.0"

__all__ = [
    "Beginning", "ClientSession", "Clock", "Command", "EndReason", "Ending", "EntityData", "Explanation", "Input",
    "InputRecord", "Logger", "MemoryStore", "Scheduler", "Seconds", "SessionClosedError", "SessionContext",
    "SessionState", "SessionSummary", "SqliteStore", "SystemClock", "Ticking", "XmlStore", "default_save_path",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import the stores in files and `default_save_path` on first use: not every program needs them."""
    if name not in {"SqliteStore", "XmlStore", "default_save_path"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(client_session_persistence, name)
