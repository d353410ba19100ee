"""Sessions of a server's visitors: many users, many processes, many machines.

>>> from client_session.visitors import VisitorSessions
>>> from client_session_persistence import MemoryStates
>>> sessions = VisitorSessions(MemoryStates(), namespace="shop")
>>> entity = sessions.of("visitor key").get_session_context(event_id)
"""

from __future__ import annotations

from client_session.visitors.asyncio import AsyncVisitorSession, AsyncVisitorSessions
from client_session.visitors.sessions import VisitorSession, VisitorSessions
from client_session.visitors.value import NewerStateError

__all__ = ["AsyncVisitorSession", "AsyncVisitorSessions", "NewerStateError", "VisitorSession", "VisitorSessions"]
