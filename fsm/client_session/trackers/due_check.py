"""The check that precedes reading a session's ids without recording an event."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from client_session.errors import SessionClosedError

if TYPE_CHECKING:
    from client_session import ClientSession


def check_if_due(session: ClientSession) -> None:
    """Tick the session if it is over but no tick has noticed yet, so that its ids are current. Never extends it."""
    if session.expires_in == 0:
        with contextlib.suppress(SessionClosedError):  # another thread closed it; the ids of a closed session are final
            session.tick()
