"""A FastAPI app that gives each visitor a session, in any number of processes and machines that share a Redis server.

    pip install 'client-session[redis]' fastapi itsdangerous uvicorn
    export SECRET_KEY=$(openssl rand -hex 32) REDIS_URL=redis://localhost
    uvicorn --app-dir examples --workers 2 fastapi_app:app

Serve it over HTTPS, because the cookie is sent over nothing else (except to ``localhost``, by browsers and curl). The
cookie is the visitor's key. It is signed, so that nobody can use a key that they were not given.
"""

from __future__ import annotations

import logging
import os
import secrets
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from itsdangerous import BadSignature, URLSafeSerializer
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from client_session.visitors import AsyncVisitorSessions
from client_session_persistence import RedisStates, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

COOKIE = "__Host-visitor"  # with this prefix, browsers do not accept it from other hosts of the same domain
KEEP = timedelta(days=400)  # browsers keep cookies no longer
ACCOUNTS = "accounts"

redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]  # its options are not annotated
    os.environ["REDIS_URL"],
    decode_responses=True,
    socket_timeout=0.5,
    socket_connect_timeout=0.5,
    retry=Retry(NoBackoff(), 1),  # if the server is down, requests do not wait for it
)
signer = URLSafeSerializer(os.environ["SECRET_KEY"], salt="visitor")
sessions = AsyncVisitorSessions(RedisStates(redis), keep=KEEP, namespace="shop")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Close the connections when the server stops."""
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


def new_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_urlsafe(16)


def visitor_key(request: Request) -> str:
    """Return the key in the request's cookie, or a new one if the cookie is missing or was not signed by us."""
    try:
        key: str = signer.loads(request.cookies.get(COOKIE, ""))
    except BadSignature:
        return new_key()
    return key


VisitorKey = Annotated[str, Depends(visitor_key)]


@app.get("/")
async def page(request: Request, key: VisitorKey) -> JSONResponse:
    """Track a page view, and respond with its entity."""
    return respond(request, key, entity=await track(key))


@app.post("/login/{account}")
async def login(request: Request, before: VisitorKey, account: str) -> JSONResponse:
    """Log in: the visitor becomes the account's, on all of its devices. A real program checks a password first."""
    await redis.hsetnx(ACCOUNTS, account, f"{account}:{new_key()}")
    key = str(await redis.hget(ACCOUNTS, account))
    # Analysts use the two user ids to join what the visitor did before and after the login.
    return respond(request, key, entity=await track(key), user_id_before=sessions.of(before).user_id)


@app.post("/forget")
async def forget(request: Request, key: VisitorKey) -> JSONResponse:
    """Forget the visitor and issue a new key. If the state cannot be deleted, this fails and the cookie remains.

    A real program also logs out the account's other devices, whose cookies still have the old key.
    """
    await sessions.of(key).forget_user()
    await redis.hdel(ACCOUNTS, key.rpartition(":")[0])  # the next login gets a new key, too
    return respond(request, new_key())


async def track(key: str) -> Mapping[str, object] | None:
    """Track an event and return its entity, or ``None`` if the store fails: the event is then sent without it."""
    try:
        return (await sessions.of(key).get_session_context(uuid.uuid4())).to_dict()
    except (OSError, StoreError):
        logging.getLogger(__name__).exception("An event has no session")
        return None


def respond(request: Request, key: str, **body: object) -> JSONResponse:
    """Respond with JSON, and set the cookie if the key has changed.

    An unchanged cookie is not sent again: if this response is slow, another one may have replaced the key by then.
    """
    response = JSONResponse(body)
    value = signer.dumps(key)
    if value != request.cookies.get(COOKIE):
        seconds = int(KEEP.total_seconds())
        response.set_cookie(COOKIE, value, max_age=seconds, secure=True, httponly=True, samesite="lax")
    return response
