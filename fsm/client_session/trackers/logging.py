"""Session ids in the standard library's log records.

>>> import logging
>>> from client_session import ClientSession
>>> from client_session.trackers.logging import SessionFilter
>>> handler = logging.StreamHandler()
>>> handler.setFormatter(logging.Formatter("%(session_id)s %(message)s"))
>>> handler.addFilter(SessionFilter(ClientSession("session.xml")))
"""

from __future__ import annotations

import logging
import threading

from client_session import ClientSession
from client_session.arguments import suggestion
from client_session.trackers.due_check import check_if_due
from client_session.trackers.failures import Failures
from client_session_persistence.snapshot import shown


class SessionFilter(logging.Filter):
    """A logging filter that accepts every record and adds the attribute ``session_id``, the current session's id.

    It never extends the session. If the session is over but no check has run yet, the filter runs the check, so the id
    is never that of a session that is over; callbacks such as ``on_session_end`` then run in the logging call. Before a
    session's first event, the id is that of the pending session; after `ClientSession.close`, that of the last session.
    A record that already has a ``session_id``, for example from another filter, is left unchanged.

    Add it to a handler, or to a logger; a logger's filters do not see the records of its child loggers. Thread-safe.
    Errors from the check never reach the program, and only the first of several consecutive failures is logged; the
    record then has the id that `ClientSession.session_id` returns.
    """

    def __init__(self, session: ClientSession) -> None:
        """Initialize with a session, which the caller owns. Several filters may share it.

        Raises:
            TypeError: ``session`` is not a `ClientSession`.

        """
        if not isinstance(session, ClientSession):
            msg = f"session must be a ClientSession, not {shown(session)}"
            raise TypeError(msg + suggestion(session, "ClientSession"))
        super().__init__()
        self._session = session
        self._failures = Failures(logging.getLogger(__name__), "The session could not be checked for a log record")
        self._thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``session_id`` unless the record has one, and return ``True``. The logging module calls this."""
        if not hasattr(record, "session_id"):
            # The check itself may log, in the session, its callbacks or the embedder's clock.
            if not getattr(self._thread, "is_checking", False):
                try:
                    self._thread.is_checking = True
                    with self._failures:
                        check_if_due(self._session)
                finally:
                    self._thread.is_checking = False
            record.session_id = self._session.session_id
        return True
