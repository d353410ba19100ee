"""A web worker: the workers of one server share the installation's user, and each has sessions of its own.

    pip install gunicorn
    gunicorn --chdir examples --workers 4 'gunicorn_app:create_app()'
    curl http://127.0.0.1:8000/

Each request is tracked as an event, and answered with its entity. With ``--preload`` it is the same: the master
creates the session, and each worker begins its own when it is forked.
"""

from __future__ import annotations

import atexit
import uuid
from typing import TYPE_CHECKING

from client_session import ClientSession
from client_session_persistence import default_save_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from client_session import SessionSummary


def create_app(save_path: str | os.PathLike[str] | None = None) -> WSGIApplication:
    """Return the WSGI application, for `gunicorn` to call in each worker (or once, with ``--preload``)."""
    session = ClientSession(save_path or default_save_path("client-session-web"), on_session_end=show_end)
    atexit.register(session.close)  # a worker that is stopped gracefully leaves by sys.exit()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:  # noqa: ARG001  # WSGI
        entity = session.get_session_context(uuid.uuid4())
        start_response("200 OK", [("Content-Type", "application/json")])
        return [entity.to_json().encode()]

    return app


def show_end(summary: SessionSummary) -> None:
    """Print that a session ended."""
    print(f"session {summary.session_index} ended ({summary.reason}) after {summary.event_count} events", flush=True)
