"""A web worker. A server's workers share the installation's user, but each has its own sessions.

    pip install gunicorn
    gunicorn --chdir examples --workers 4 'gunicorn_app:create_app()'
    curl http://127.0.0.1:8000/

The app tracks each request as an event and responds with its entity. ``--preload`` is also supported: the master
creates a session, and each worker begins its own when it is forked.
"""

from __future__ import annotations

import atexit
import uuid
from typing import TYPE_CHECKING

from client_session import ClientSession, default_save_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from client_session import SessionSummary


def create_app(save_path: str | os.PathLike[str] | None = None) -> WSGIApplication:
    """Create the WSGI application; `gunicorn` calls this in each worker (or once, with ``--preload``)."""
    session = ClientSession(save_path or default_save_path("client-session-web"), on_session_end=print_end)
    atexit.register(session.close)  # on graceful shutdown, a worker calls sys.exit()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:  # noqa: ARG001  # WSGI
        entity = session.get_session_context(uuid.uuid4())
        start_response("200 OK", [("Content-Type", "application/json")])
        return [entity.to_json().encode()]

    return app


def print_end(summary: SessionSummary) -> None:
    """Report the end of a session."""
    print(f"session {summary.session_index} ended ({summary.reason}) after {summary.event_count} events", flush=True)
