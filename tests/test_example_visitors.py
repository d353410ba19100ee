"""The web examples with visitors, on real servers with two workers, used by browsers over HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from client_session.visitors import VisitorSessions
from client_session_persistence import RedisStates, SqliteStates
from engines import servers
from test_entity import VALIDATORS, data_of

pytest.importorskip("httpx", reason="httpx is not installed (dependency group examples)")
pytest.importorskip("trustme", reason="trustme is not installed (dependency group examples)")

import httpx  # imported after the skip
import trustme  # imported after the skip
from itsdangerous import URLSafeSerializer  # imported after the skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"
COOKIE = "__Host-visitor"
NEEDED = {"flask": ("flask", "gunicorn"), "fastapi": ("fastapi", "uvicorn")}
NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""Each request has a connection of its own, so that either worker may get it."""

PATIENT_APP = """
# On a busy machine, a second may pass between two tries.
from client_session_persistence import redis_states, sqlite_states
from client_session.visitors import exchange
exchange.CONTENTION_SECONDS = redis_states.CALL_SECONDS = sqlite_states.CALL_SECONDS = 60.0
from {name}_app import app
"""


class Site:
    """A running example: its workers, and the store that they share."""

    def __init__(self, name: str, folder: Path, redis_port: int) -> None:
        """Start the server in a folder, and wait until both workers have started."""
        self.name = name
        self.secret = secrets.token_hex()
        self.url = ""
        self.workers: list[int] = []
        self._folder = folder
        self._redis_port = redis_port
        self._output = ""
        authority = trustme.CA()
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        for number, part in enumerate(certificate.cert_chain_pems):
            part.write_to_path(folder / "cert.pem", append=number > 0)
        (folder / "patient_app.py").write_text(PATIENT_APP.format(name=name), encoding="utf-8")
        paths = [os.fspath(folder), os.fspath(EXAMPLES), *filter(None, sys.path)]
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
            [sys.executable, "-m", *self._command()],
            cwd=folder,
            env={
                **os.environ,
                "HOME": os.fspath(folder),  # gunicorn puts its control socket here
                "PYTHONPATH": os.pathsep.join(paths),
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}?socket_timeout=60&socket_connect_timeout=60",
                "SECRET_KEY": self.secret,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_output)
        self._reader.start()
        try:
            servers.wait_for(self._accepts, lambda: self._output)
        except BaseException:
            self.stop()
            raise

    def _command(self) -> list[str]:
        if self.name == "flask":
            return [
                *("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--timeout", "120"),
                *("--certfile", "cert.pem", "--keyfile", "key.pem", "patient_app:app"),
            ]
        return [
            *("uvicorn", "--port", "0", "--workers", "2", "--timeout-worker-healthcheck", "120"),
            *("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem", "patient_app:app"),
        ]

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output += line

    def _accepts(self) -> bool:
        assert self._process.poll() is None, self._output
        workers = re.findall(r"(?:Booting worker with pid: |Started server process \[)(\d+)", self._output)
        address = re.search(r"https://127\.0\.0\.1:(\d+)", self._output)
        if address is None or len(workers) < 2:
            return False
        self.url, self.workers = address[0], [int(worker) for worker in workers]
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", int(address[1]))):
            return True
        return False

    def stop(self) -> None:
        """Kill the server and its workers."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Let only one worker run, so that it gets all requests."""
        (other,) = {*self.workers} - {worker}
        os.kill(other, signal.SIGSTOP)
        try:
            servers.wait_for(lambda: psutil.Process(other).status() == psutil.STATUS_STOPPED)
            yield
        finally:
            os.kill(other, signal.SIGCONT)

    def browser(self) -> httpx.Client:
        """Return a browser without cookies."""
        return httpx.Client(base_url=self.url, verify=self.trust, limits=NO_REUSE, trust_env=False, timeout=60)

    def state_of(self, user_id: str) -> dict[str, Any] | None:
        """Return the data of a user's current session, if any, from the server's store."""
        with contextlib.ExitStack() as stack:
            states: Any
            if self.name == "flask":
                states = stack.enter_context(contextlib.closing(SqliteStates(self._folder / "visitors.db")))
            else:
                retry = Retry(NoBackoff(), 1)
                client = redis.Redis(port=self._redis_port, socket_timeout=1, socket_connect_timeout=1, retry=retry)
                states = RedisStates(stack.enter_context(client))
            context = VisitorSessions(states, namespace="shop").of(user_id).current()
            return None if context is None else dict(context.data)


@contextlib.contextmanager
def run_site(name: str, folder: Path, redis_port: int) -> Iterator[Site]:
    """Run an example."""
    site = Site(name, folder, redis_port)
    try:
        yield site
    finally:
        site.stop()


@contextlib.contextmanager
def run_redis() -> Iterator[servers.Server]:
    """Run Redis or, if it is not installed, Valkey."""
    program = servers.redis_program() or servers.valkey_program()
    if program is None:
        pytest.skip("needs Redis or Valkey")
    with servers.run_redis(program) as server:
        yield server


def skip_if_missing(name: str) -> None:
    """Skip the test if an example's packages are not installed."""
    if not all(map(importlib.util.find_spec, NEEDED[name])):
        pytest.skip(f"needs {' and '.join(NEEDED[name])} (dependency group examples)")


APPS = ["flask", pytest.param("fastapi", marks=pytest.mark.engines)]


@pytest.fixture(scope="module", params=APPS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a running example."""
    name: str = request.param
    skip_if_missing(name)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(run_redis()).port if name == "fastapi" else 0
        yield stack.enter_context(run_site(name, tmp_path_factory.mktemp(name), port))


def entity_in(response: httpx.Response) -> dict[str, Any]:
    """Return the data of the entity in a response."""
    assert response.status_code == 200, response.text
    data = data_of(response.json()["entity"])
    VALIDATORS["1-0-2"].validate(data)
    return data


def view(browser: httpx.Client) -> dict[str, Any]:
    """Open the page, and return the data of its entity."""
    return entity_in(browser.get("/"))


def numbers(entity: dict[str, Any]) -> tuple[int, int]:
    """Return the numbers of an event's session, and of the event in it."""
    return entity["sessionIndex"], entity["eventIndex"]


def test_cookie_is_issued_once_and_only_for_the_server(site: Site) -> None:
    """The first response sets a cookie that only the server can read, over HTTPS; later ones leave it as it is."""
    with site.browser() as browser:
        name, value, *attributes = re.split(r"; |(?<=visitor)=", browser.get("/").headers["set-cookie"])
        assert name == COOKIE
        expected = {"httponly", "max-age=34560000", "path=/", "samesite=lax", "secure"}
        assert {attribute.lower() for attribute in attributes if not attribute.startswith("Expires")} == expected
        assert "set-cookie" not in browser.get("/").headers
        assert browser.cookies[COOKIE] == value


def test_cookie_is_not_sent_without_https(site: Site) -> None:
    """A browser keeps the cookie to itself if the same address is requested without HTTPS."""
    with site.browser() as browser:
        browser.get("/")
        assert COOKIE in browser.build_request("GET", "/").headers["cookie"]
        assert "cookie" not in browser.build_request("GET", site.url.replace("https:", "http:")).headers


def test_tabs_share_a_session_and_visitors_do_not(site: Site) -> None:
    """Parallel requests of several visitors, in several tabs each, are numbered by visitor, without gaps."""

    async def use(tabs: int) -> list[dict[str, Any]]:
        browser = httpx.AsyncClient(base_url=site.url, verify=site.trust, limits=NO_REUSE, trust_env=False, timeout=60)
        async with browser:
            first = await browser.get("/")
            rest = await asyncio.gather(*(browser.get("/") for _ in range(tabs)))
            return [entity_in(response) for response in (first, *rest)]

    async def use_all() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(use(tabs) for tabs in (4, 8, 12)))

    visitors = asyncio.run(use_all())
    for entities in visitors:
        assert sorted(map(numbers, entities)) == [(1, number + 1) for number in range(len(entities))]
        names = ("userId", "sessionId", "firstEventId", "firstEventTimestamp")
        assert len({tuple(entity[name] for name in names) for entity in entities}) == 1
    assert len({entities[0]["userId"] for entities in visitors}) == 3
    assert len({entities[0]["sessionId"] for entities in visitors}) == 3


def test_session_continues_in_the_other_worker(site: Site) -> None:
    """A visitor whose requests alternate between the workers has one session."""
    entities = []
    with site.browser() as browser:
        for number in range(6):
            with site.only(site.workers[number % 2]):
                entities.append(view(browser))
    assert [numbers(entity) for entity in entities] == [(1, number) for number in range(1, 7)]
    assert len({entity["sessionId"] for entity in entities}) == 1


def test_login_makes_devices_one_user(site: Site) -> None:
    """After a login, events on all devices have the account's user id and session; the login links the old user id."""
    with site.browser() as phone, site.browser() as laptop, site.browser() as other:
        anonymous = [view(browser) for browser in (phone, laptop, other)]
        logins = [browser.post("/login/anna") for browser in (phone, laptop)] + [other.post("/login/bert")]
        assert [login.json()["user_id_before"] for login in logins] == [entity["userId"] for entity in anonymous]
        events = [*map(entity_in, logins[:2]), view(phone), view(laptop)]
        assert [numbers(entity) for entity in events] == [(1, 1), (1, 2), (1, 3), (1, 4)]
        assert len({(entity["userId"], entity["sessionId"]) for entity in events}) == 1
        users = {entity["userId"] for entity in [*anonymous, events[0], entity_in(logins[2])]}
        assert len(users) == 5


def test_forgotten_visitor_is_a_new_user(site: Site) -> None:
    """Forgetting deletes the visitor's state and replaces the cookie; nothing links the next events to the user."""
    with site.browser() as browser:
        before = view(browser)
        cookie = browser.cookies[COOKIE]
        assert site.state_of(before["userId"]) == before
        assert browser.post("/forget").status_code == 200
        assert browser.cookies[COOKIE] != cookie
        assert site.state_of(before["userId"]) is None
        after = view(browser)
        assert (*numbers(after), after["previousSessionId"]) == (1, 1, None)
        assert after["userId"] != before["userId"]


def test_forgotten_account_is_a_new_user_at_the_next_login(site: Site) -> None:
    """If a visitor who is logged in is forgotten, the account gets a new user id, too."""
    with site.browser() as browser:
        before = entity_in(browser.post("/login/carl"))
        browser.post("/forget")
        after = entity_in(browser.post("/login/carl"))
        assert after["userId"] != before["userId"]
        assert numbers(after) == (1, 1)


def test_request_without_a_cookie_is_a_new_visitor(site: Site) -> None:
    """Without a cookie, as from browsers that refuse cookies, each request is from a new visitor."""
    entities = []
    for _ in range(2):
        with site.browser() as browser:
            entities.append(view(browser))
    assert [numbers(entity) for entity in entities] == [(1, 1), (1, 1)]
    assert entities[0]["userId"] != entities[1]["userId"]


def _sign_with_a_guess(value: str) -> str:
    signed: str = URLSafeSerializer("guess", salt="visitor").dumps(value)
    return signed


FORGERIES: dict[str, Callable[[str, str], str]] = {
    "user id": lambda _, user_id: user_id,
    "no signature": lambda cookie, _: cookie.rpartition(".")[0],
    "empty signature": lambda cookie, _: cookie.rpartition(".")[0] + ".",
    "changed signature": lambda cookie, _: cookie[:-20] + cookie[:-21:-1],
    "changed key": lambda cookie, _: cookie[0].swapcase() + cookie[1:],
    "other secret": lambda cookie, _: _sign_with_a_guess(cookie),
    "not ASCII": lambda *_: "\N{SNOWMAN}.\N{SNOWMAN}",
    "long": lambda cookie, _: cookie * 20,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_cookie_is_replaced(site: Site, forgery: str) -> None:
    """A cookie that the server did not sign gets a new key: never another visitor's, and never an error."""
    with site.browser() as victim, site.browser() as attacker:
        entity = view(victim)
        value = FORGERIES[forgery](victim.cookies[COOKIE], entity["userId"])
        response = attacker.get("/", headers={b"cookie": f"{COOKIE}={value}".encode()})
        forged = entity_in(response)
        assert forged["userId"] != entity["userId"]
        assert numbers(forged) == (1, 1)
        assert response.cookies[COOKIE] != victim.cookies[COOKIE]
        assert view(attacker)["userId"] == forged["userId"]
        assert numbers(view(victim)) == (1, 2)


def test_cookie_for_another_purpose_is_not_a_key(site: Site) -> None:
    """A value that the program signed with the same secret, but without naming the purpose, is not a visitor's key."""
    signed: str = URLSafeSerializer(site.secret).dumps("somebody's key")
    with site.browser() as browser:
        assert "set-cookie" in browser.get("/", headers={"cookie": f"{COOKIE}={signed}"}).headers


@pytest.mark.parametrize("name", APPS)
def test_events_have_no_entity_while_the_store_fails(name: str, tmp_path: Path) -> None:
    """Without its store, the site works, and events have no entity; forgetting fails, and the cookie is kept."""
    skip_if_missing(name)
    (tmp_path / "visitors.db").write_text("This is not a database. " * 100)
    with run_site(name, tmp_path, servers.free_port()) as site, site.browser() as browser:
        for _ in range(2):
            response = browser.get("/")
            assert (response.status_code, response.json()) == (200, {"entity": None})
        cookie = browser.cookies[COOKIE]
        assert browser.post("/forget").status_code == 500
        assert browser.cookies[COOKIE] == cookie


@pytest.mark.engines
def test_sessions_resume_when_redis_is_back(tmp_path: Path) -> None:
    """While Redis is down, events have no entity; as soon as it is back, they have one again."""
    skip_if_missing("fastapi")
    with run_redis() as server, run_site("fastapi", tmp_path, server.port) as site, site.browser() as browser:
        before = view(browser)
        server.kill()
        for worker in site.workers:
            with site.only(worker):
                assert browser.get("/").json() == {"entity": None}
        server.start()
        for number, worker in enumerate(site.workers, 1):
            with site.only(worker):
                after = view(browser)
            assert after["userId"] == before["userId"]
            assert numbers(after) == (1, number)  # this server stores nothing on disk
