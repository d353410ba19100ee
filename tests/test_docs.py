"""The documentation: its blocks run, its names exist, and its site is built without a warning and loads nothing."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import client_session
import client_session.testing
import client_session_persistence
from client_session import ClientSession, SessionContext, diagram
from client_session.graph import TABLE
from client_session_persistence import loads
from collector import Collector, session_of
from docs.generated import expand
from pages import DOCS, is_as_shown, read_blocks
from test_entity import VALIDATORS, data_of
from test_example_desktop import User, missing, toolkit, user  # noqa: F401  # two are fixtures

if TYPE_CHECKING:
    from types import ModuleType

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
SECONDS = 60.0
"""How long anything is waited for before it counts as missing: ample, since the machine may be busy."""

SERVED = DOCS / "how-to" / "web-workers.md"
NOT_ALONE = {"snowplow.md", "tkinter.md", "qt.md", SERVED.name}
"""The pages that need a collector, a user or a visitor; each has a test of its own."""

NEEDS = {"snowplow.md": "snowplow_tracker", "opentelemetry.md": "opentelemetry"}

DOTNET_ARGUMENTS = ["savePath", "foregroundTimeout", "backgroundTimeout", "checkInterval", "l"]
DOTNET_MEMBERS = {
    *("Background", "FirstEventId", "UserId", "CurrentSessionId", "PreviousSessionId", "SessionIndex"),
    *("SessionCheckTimer", "GetSessionContext", "StartChecker", "StopChecker", "SetForegroundTimeoutSeconds"),
    *("SetBackgroundTimeoutSeconds", "SetCheckIntervalSeconds", "SetBackground", "GetForegroundTimeout"),
    *("GetBackgroundTimeout", "GetCheckInterval", "Dispose", "Close"),
}
"""All that is public of the .NET tracker's ClientSession (Snowplow.Tracker/Models/ClientSession.cs)."""


def name_of(page: Path) -> str:
    """Return a page's path, as the list of tests shows it."""
    return page.relative_to(DOCS).as_posix()


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a folder with the project's examples in it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def at(desk: Path) -> dict[str, str]:
    """Return the environment of programs at a desk: our commands, and a home of its own."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((os.fspath(ROOT / "tests"), os.fspath(ROOT))),
        "COLUMNS": "80",
        "HOME": os.fspath(desk),
        "XDG_DATA_HOME": os.fspath(desk / "data"),
    }


def runner(page: Path) -> list[str]:
    """Return the command that runs a page's blocks."""
    return [sys.executable, "-W", "error", os.fspath(ROOT / "tests" / "pages.py"), os.fspath(page)]


def run_page(page: Path, desk: Path) -> None:
    """Run a page's blocks."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and page
        runner(page), cwd=desk, env=at(desk), capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr


def skip_without(package: str | None) -> None:
    """Skip the test where a package is not installed."""
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NOT_ALONE], ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, desk: Path) -> None:
    """Copied out and run in order, a page's blocks do and print what it says."""
    skip_without(NEEDS.get(page.name))
    run_page(page, desk)


def test_the_snowplow_page_sends_its_events(desk: Path) -> None:
    """The page's events reach a collector, in one session."""
    skip_without(NEEDS["snowplow.md"])
    text = (DOCS / "how-to" / "snowplow.md").read_text(encoding="utf-8")
    page = desk / "snowplow.md"
    with Collector() as collector:
        page.write_text(text.replace("port=9090", f"port={collector.port}"), encoding="utf-8")
        run_page(page, desk)
    assert [session_of(event)["eventIndex"] for event in collector.events] == [1, 2]


@pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
@pytest.mark.usefixtures("toolkit")
@pytest.mark.parametrize(("toolkit", "name"), [("tk", "tkinter.md"), ("qt", "qt.md")], indirect=["toolkit"])
def test_a_windows_page_opens_its_window_and_tracks(name: str, desk: Path, request: pytest.FixtureRequest) -> None:
    """The page's window opens, its button tracks an event, and closing it ends the page's program."""
    visitor: User = request.getfixturevalue("user")
    display = {"DISPLAY": visitor.environment["DISPLAY"]}
    with subprocess.Popen(runner(DOCS / "how-to" / name), cwd=desk, env=at(desk) | display) as program:  # noqa: S603
        try:
            visitor.switch_to("My app")
            visitor.do("mousemove", "--window", visitor.window("My app"), "20", "15", "click", "1")
            visitor.switch_to("My app: 1")
            visitor.press("alt+F4")
            assert program.wait(SECONDS) == 0
        finally:
            program.kill()
    assert loads((desk / "data" / "my-app" / "session.xml").read_bytes()).event_index == 1


def test_the_web_workers_page_serves(desk: Path) -> None:
    """The page's program, under the page's command, answers with entities and stops without a word of failure."""
    skip_without("gunicorn")
    program, command, *others = read_blocks(SERVED)
    assert (program.title, command.language, others) == ("my_app.py", "sh", [])
    (desk / "my_app.py").write_text(program.text, encoding="utf-8")
    environment = {**at(desk), "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:0"}
    with subprocess.Popen(  # noqa: S603  # our own page
        ["bash", "-c", f"exec {command.text}"],  # noqa: S607  # wherever it is
        cwd=desk,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            port = next(int(found[1]) for line in server.stderr if (found := re.search(r"http://.*:(\d+)", line)))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            connection.request("GET", "/")
            VALIDATORS["1-0-2"].validate(data_of(json.loads(connection.getresponse().read())))
            connection.close()
            server.terminate()
            assert "Traceback" not in server.stderr.read()
            assert server.wait() == 0
        finally:
            server.kill()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_data_can_be_read(page: Path) -> None:
    """JSON is JSON, an entity is valid, a save file can be loaded, and there is no language that no test knows."""
    for block in read_blocks(page):
        assert block.language in {"python", "sh", "text", "json", "xml"}, block
        if block.language == "json":
            texts = block.text.splitlines() if (block.title or "").endswith(".jsonl") else [block.text]
            for value in map(json.loads, texts):
                if "schema" in value:
                    VALIDATORS["1-0-2"].validate(data_of(value))
        if block.language == "xml":
            assert loads(block.text.encode()).session_index == 3


def test_what_is_installed_can_be_had() -> None:
    """Each extra that a page installs exists."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    extras = {extra for text in texts for extra in re.findall(r"^pip install .*\[(\w+)\]", text, re.MULTILINE)}
    assert extras == set(importlib.metadata.metadata("client-session").get_all("Provides-Extra", []))


def test_the_graphs_page_has_every_row() -> None:
    """Each row of the graph stands there, with its reason, below the drawing."""
    page = expand((DOCS / "explanation" / "graph.md").read_text(encoding="utf-8"))
    assert f'id="{diagram.source_mark()}"' in page
    for row in TABLE:
        section = page.split(f"### {row.source.value}\n")[1].split("\n#")[0]
        assert f"| {row.why} |" in section


def rows_below(heading: str) -> list[tuple[str, str]]:
    """Return the first two columns of the tables below a heading of the page for those who come from .NET."""
    text = (DOCS / "migrating.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section, re.MULTILINE)


def test_every_name_of_dotnets_has_one_here() -> None:
    """Every argument and member of .NET's ClientSession is answered by one of ours that exists."""
    arguments = rows_below("The constructor")
    assert [theirs for theirs, _ in arguments] == DOTNET_ARGUMENTS
    assert [ours for _, ours in arguments] == list(ClientSession.__init__.__annotations__)[: len(arguments)]
    members = rows_below("The members")
    assert {theirs for theirs, _ in members} == DOTNET_MEMBERS | {"GetSchema", "GetData", "GetJson"}
    for theirs, ours in members:
        assert hasattr(ClientSession if theirs in DOTNET_MEMBERS else SessionContext, ours), ours


@pytest.mark.parametrize(
    "module", [client_session, client_session_persistence, client_session.testing], ids=lambda module: module.__name__
)
def test_the_reference_is_complete(module: ModuleType) -> None:
    """Every public name has its place in the reference."""
    texts = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    listed = {name for text in texts for name in re.findall(r"^::: \S+\.(\w+)$", text, re.MULTILINE)}
    assert set(module.__all__) <= listed


def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path: Path) -> None:
    """The strict build succeeds; no page loads a style, script or picture from elsewhere."""
    skip_without("material")
    done = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    built = list(tmp_path.rglob("*.html"))
    assert len(built) == len(PAGES) + 1  # and the one for what is not found
    for page in built:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(?:https?:)?//[^>]*>", text)
        assert not re.findall(r"<link[^>]* href=\"?(?:https?:)?//[^>]*>", text)
        assert not re.findall(r"<blockquote>\s*<blockquote>|====", text), "a docstring is no Markdown"


def test_what_is_shown_is_compared() -> None:
    """The dots of an output stand for anything, and for nothing else."""
    assert is_as_shown("a 1 b\n", "a … b\n")
    assert is_as_shown("a   1  \nb\n", "a 1\nb\n")
    assert not is_as_shown("a 1 c\n", "a … b\n")
    assert not is_as_shown("a\nb\n", "a\n")
