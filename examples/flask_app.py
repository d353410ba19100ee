"""A Flask app that gives each visitor a session, in all worker processes of one machine.

    pip install client-session flask gunicorn
    export SECRET_KEY=$(openssl rand -hex 32)
    gunicorn --pythonpath examples --workers 2 flask_app:app

Serve it over HTTPS, because the cookie is sent over nothing else (except to ``localhost``, by browsers and curl). The
cookie is the visitor's key. It is signed, so that nobody can use a key that they were not given.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import uuid
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from itsdangerous import BadSignature, URLSafeSerializer

from client_session.visitors import VisitorSessions
from client_session_persistence import SqliteStates, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

COOKIE = "__Host-visitor"  # with this prefix, browsers do not accept it from other hosts of the same domain
KEEP = timedelta(days=400)  # browsers keep cookies no longer

app = Flask(__name__)
signer = URLSafeSerializer(os.environ["SECRET_KEY"], salt="visitor")
sessions = VisitorSessions(SqliteStates("visitors.db"), keep=KEEP, namespace="shop")


@app.get("/")
def page() -> Response:
    """Track a page view, and respond with its entity."""
    key = visitor_key()
    return respond(key, entity=track(key))


@app.post("/login/<account>")
def login(account: str) -> Response:
    """Log in: the visitor becomes the account's, on all of its devices. A real program checks a password first."""
    before = visitor_key()
    with closing(sqlite3.connect("accounts.db", isolation_level=None)) as accounts:
        accounts.execute("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, visitor_key TEXT NOT NULL)")
        accounts.execute("INSERT OR IGNORE INTO accounts VALUES (?, ?)", (account, new_key()))
        (key,) = accounts.execute("SELECT visitor_key FROM accounts WHERE name = ?", (account,)).fetchone()
    # Analysts use the two user ids to join what the visitor did before and after the login.
    return respond(key, entity=track(key), user_id_before=sessions.of(before).user_id)


@app.post("/forget")
def forget() -> Response:
    """Forget the visitor and issue a new key. If the state cannot be deleted, this fails and the cookie remains.

    A real program also logs out the account's other devices, whose cookies still have the old key.
    """
    key = visitor_key()
    sessions.of(key).forget_user()
    with closing(sqlite3.connect("accounts.db", isolation_level=None)) as accounts:
        accounts.execute("DELETE FROM accounts WHERE visitor_key = ?", (key,))
    return respond(new_key())


def track(key: str) -> Mapping[str, object] | None:
    """Track an event and return its entity, or ``None`` if the store fails: the event is then sent without it."""
    try:
        return sessions.of(key).get_session_context(uuid.uuid4()).to_dict()
    except (OSError, StoreError):
        app.logger.exception("An event has no session")
        return None


def visitor_key() -> str:
    """Return the key in the request's cookie, or a new one if the cookie is missing or was not signed by us."""
    try:
        key: str = signer.loads(request.cookies.get(COOKIE, ""))
    except BadSignature:
        return new_key()
    return key


def new_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_urlsafe(16)


def respond(key: str, **body: object) -> Response:
    """Respond with JSON, and set the cookie if the key has changed.

    An unchanged cookie is not sent again: if this response is slow, another one may have replaced the key by then.
    """
    response = jsonify(body)
    value = signer.dumps(key)
    if value != request.cookies.get(COOKIE):
        response.set_cookie(COOKIE, value, max_age=KEEP, secure=True, httponly=True, samesite="Lax")
    return response
