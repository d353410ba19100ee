"""The documentation: code runs, names exist, and the site builds without warnings or external resources."""

from __future__ import annotations

import base64
import http.client
import importlib.metadata
import importlib.util
import inspect
import itertools
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
import client_session.sessionize
import client_session.testing
import client_session.visitors
import client_session_persistence
from browser import dump_dom, needs_chromium
from client_session import ClientSession, SessionContext
from client_session.graph import TABLE
from client_session.sessionize import Fold, sessionize_sql
from client_session.verify import picture
from client_session.visitors import VisitorSession, VisitorSessions
from client_session_persistence import loads
from collector import Collector, session_of
from docs.generated import PLACEHOLDER, expand
from engines.spark import environment, skip_without_spark
from pages import DOCS, matches_output, read_blocks
from test_entity import VALIDATORS, data_of
from test_example_desktop import User, missing_programs, toolkit, user  # noqa: F401  # two are fixtures

if TYPE_CHECKING:
    from types import ModuleType

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
WAIT_SECONDS = 600.0
"""Seconds to wait for a result before a test fails. Generous, because the machine may be busy."""

WAIT_FOR_SCRIPTS = "--virtual-time-budget=20000"
"""The browser's option to let a page's scripts finish."""

WEB_WORKERS = DOCS / "how-to" / "web-workers.md"
PAGES_WITH_OWN_TESTS = {
    *("snowplow.md", "tkinter.md", "qt.md", WEB_WORKERS.name, "sessionize-dbt.md", "sessionize-spark.md"),
}
"""Pages that need a collector, a desktop user, an HTTP client, dbt or Spark. Each has its own test."""

REQUIRED_PACKAGES = {
    "command-line.md": "polars",
    "command.md": "polars",
    "opentelemetry.md": "opentelemetry",
    "sessionize.md": "polars_hash",
    "sessionize-log.md": "duckdb",
    "sessionize-product-analytics.md": "polars_hash",
    "sessionize-snowplow.md": "duckdb",
    "snowplow.md": "snowplow_tracker",
    "trackers.md": "snowplow_tracker",
}
DBT = ROOT / "build" / "dbt" / "bin"
"""Where `make test-engines` installs dbt, whose requirements conflict with those of other tools."""

DOTNET_ARGUMENTS = ["savePath", "foregroundTimeout", "backgroundTimeout", "checkInterval", "l"]
DOTNET_MEMBERS = {
    *("Background", "FirstEventId", "UserId", "CurrentSessionId", "PreviousSessionId", "SessionIndex"),
    *("SessionCheckTimer", "GetSessionContext", "StartChecker", "StopChecker", "SetForegroundTimeoutSeconds"),
    *("SetBackgroundTimeoutSeconds", "SetCheckIntervalSeconds", "SetBackground", "GetForegroundTimeout"),
    *("GetBackgroundTimeout", "GetCheckInterval", "Dispose", "Close"),
}
"""All public members of the .NET tracker's ClientSession (Snowplow.Tracker/Models/ClientSession.cs)."""
OTHER_TRACKERS = {
    ("From Android", "Options"): {
        *("foregroundTimeout", "backgroundTimeout", "onSessionUpdate", "continueSessionOnRestart"),
        "userAnonymisation",
    },
    ("From Android", "SessionController"): {
        *("sessionId", "sessionIndex", "userId", "isInBackground", "foregroundIndex", "backgroundIndex", "pause"),
        *("resume", "startNewSession"),
    },
    ("From JavaScript", "Options"): {
        *("sessionCookieTimeout", "onSessionUpdateCallback", "anonymousTracking", "contexts", "stateStorageStrategy"),
        "cookieName",
    },
    ("From JavaScript", "Functions"): {
        *("newSession", "getDomainUserId", "getDomainSessionId", "getDomainSessionIndex", "clearUserData"),
        *("enableAnonymousTracking", "disableAnonymousTracking", "updatePageActivity"),
    },
}
"""What the sections of the migration page must map: the other trackers' options and members that concern sessions."""


def page_name(page: Path) -> str:
    """Return a page's path relative to the docs, for use as a test id."""
    return page.relative_to(DOCS).as_posix()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a temporary folder that contains the project's examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def environment_in(folder: Path) -> dict[str, str]:
    """Return the environment for programs that run in a folder: our commands on PATH, and the folder as HOME."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((os.fspath(ROOT / "tests"), os.fspath(ROOT))),
        "COLUMNS": "80",
        "HOME": os.fspath(folder),
        "XDG_DATA_HOME": os.fspath(folder / "data"),
    }


def command_for(page: Path) -> list[str]:
    """Return the command that runs a page's code blocks."""
    return [sys.executable, "-W", "error", os.fspath(ROOT / "tests" / "pages.py"), os.fspath(page)]


def run_page(page: Path, folder: Path) -> None:
    """Run a page's code blocks and examples."""
    result = subprocess.run(  # noqa: S603  # our own interpreter and page
        command_for(page),
        cwd=folder,
        env=environment_in(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def skip_without(package: str | None) -> None:
    """Skip the test if a package is not installed."""
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in PAGES_WITH_OWN_TESTS], ids=page_name)
def test_code_blocks_run_and_print_what_the_page_shows(page: Path, folder: Path) -> None:
    """A page's code blocks run in order and print the output that the page shows."""
    skip_without(REQUIRED_PACKAGES.get(page.name))
    run_page(page, folder)


@pytest.mark.engines
def test_dbt_page_builds_its_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's project is built day by day, and has the rows that the page shows."""
    monkeypatch.setenv("PATH", f"{DBT}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    if shutil.which("dbt") is None:
        pytest.skip("needs dbt, which `make test-engines` installs")
    run_page(DOCS / "how-to" / "sessionize-dbt.md", folder)


@pytest.mark.engines
@pytest.mark.parametrize("part", ["how-to", "reference"])
def test_spark_page_prints_what_it_shows(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's batch and the examples in the reference print what the pages show."""
    skip_without_spark()
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    run_page(DOCS / part / "sessionize-spark.md", folder)


def test_snowplow_page_sends_its_events(folder: Path) -> None:
    """The page's events reach a collector; the program's share one session, and a visitor has another."""
    skip_without(REQUIRED_PACKAGES["snowplow.md"])
    text = (DOCS / "how-to" / "snowplow.md").read_text(encoding="utf-8")
    page = folder / "snowplow.md"
    with Collector() as collector:
        page.write_text(text.replace("port=9090", f"port={collector.port}"), encoding="utf-8")
        run_page(page, folder)
    assert [session_of(event)["eventIndex"] for event in collector.events] == [1, 2, 1]
    assert len({session_of(event)["sessionId"] for event in collector.events}) == 2


@pytest.mark.skipif(bool(missing_programs), reason=f"needs {', '.join(missing_programs)}")
@pytest.mark.usefixtures("toolkit")
@pytest.mark.parametrize(("toolkit", "name"), [("tk", "tkinter.md"), ("qt", "qt.md")], indirect=["toolkit"])
def test_desktop_page_opens_its_window_and_tracks(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """The page's window opens, a button click tracks an event, and closing the window ends the program."""
    desktop_user: User = request.getfixturevalue("user")
    display = {"DISPLAY": desktop_user.environment["DISPLAY"]}
    command, environment = command_for(DOCS / "how-to" / name), environment_in(folder) | display
    with subprocess.Popen(command, cwd=folder, env=environment) as program:  # noqa: S603  # our own page
        try:
            desktop_user.switch_to("My app")
            desktop_user.xdotool("mousemove", "--window", desktop_user.find_window("My app"), "20", "15", "click", "1")
            desktop_user.switch_to("My app: 1")
            desktop_user.press("alt+F4")
            assert program.wait(WAIT_SECONDS) == 0
        finally:
            program.kill()
    assert loads((folder / "data" / "my-app" / "session.xml").read_bytes()).event_index == 1


def test_web_workers_page_serves_requests(folder: Path) -> None:
    """The page's program, when started with the page's command, returns entities and stops without errors."""
    skip_without("gunicorn")
    program, command, *others = read_blocks(WEB_WORKERS)
    assert (program.title, command.language, others) == ("my_app.py", "sh", [])
    (folder / "my_app.py").write_text(program.text, encoding="utf-8")
    environment = {**environment_in(folder), "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:0"}
    with subprocess.Popen(  # noqa: S603  # our own page
        ["bash", "-c", f"exec {command.text}"],  # noqa: S607  # found on the path
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            port = next(int(found[1]) for line in server.stderr if (found := re.search(r"http://.*:(\d+)", line)))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
            connection.request("GET", "/")
            VALIDATORS["1-0-2"].validate(data_of(json.loads(connection.getresponse().read())))
            connection.close()
            server.terminate()
            assert "Traceback" not in server.stderr.read()
            assert server.wait() == 0
        finally:
            server.kill()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_data_in_code_blocks_is_valid(page: Path) -> None:
    """JSON blocks parse, entities validate, save files load, and every block is in a language that the tests know."""
    for block in read_blocks(page):
        assert block.language in {"python", "sh", "text", "json", "xml", "yaml", "csv", "sql"}, block
        if block.language == "json":
            texts = block.text.splitlines() if (block.title or "").endswith(".jsonl") else [block.text]
            for value in map(json.loads, texts):
                if "schema" in value:
                    VALIDATORS["1-0-2"].validate(data_of(value))
        if block.language == "xml":
            assert loads(block.text.encode()).session_index == 3


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_generated_parts_have_stand_ins(page: Path) -> None:
    """Where the site has a generated part, the file has a link to a file, an image, or a command that prints it."""
    text = page.read_text(encoding="utf-8")
    placeholders = list(PLACEHOLDER.finditer(text))
    assert len(placeholders) == text.count("<!--")
    for stand_in, generator, arguments in (found.groups() for found in placeholders):
        target = re.search(r"\]\((\S+)\)$", stand_in)
        if target is None:
            assert (generator, stand_in) == ("usage", f"`client-session {arguments} --help`")
        else:
            assert (page.parent / target[1]).is_file(), stand_in


def test_installed_extras_exist() -> None:
    """The install commands on the pages use exactly the extras that the package provides."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    extras = {extra for text in texts for extra in re.findall(r"^pip install .*\[(\w+)\]", text, re.MULTILINE)}
    assert extras == set(importlib.metadata.metadata("client-session").get_all("Provides-Extra", []))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_install_commands_also_name_the_clone(page: Path) -> None:
    """Each command that installs from an index has the same command for a clone beside it."""
    text = page.read_text(encoding="utf-8")
    for command, comment in re.findall(r"^(pip install '?client-session.*?)((?:  #.*)?)$", text, re.MULTILINE):
        assert comment == f"  # in a clone: {command.replace('client-session', '.')}"


def test_graph_page_has_every_row() -> None:
    """The page shows the diagram and, below it, each row of the graph with its reason."""
    page = expand((DOCS / "explanation" / "graph.md").read_text(encoding="utf-8"))
    assert base64.b64encode(picture.svg().encode()).decode() in page
    for row in TABLE:
        section = page.split(f"### {row.source.value}\n")[1].split("\n#")[0]
        assert f"| {row.why} |" in section


def test_sessionizing_page_has_every_table_of_the_query() -> None:
    """The page shows each table of the longest query."""
    page = expand((DOCS / "explanation" / "sessionizing.md").read_text(encoding="utf-8"))
    query = sessionize_sql("postgres", max_duration=3600, extend_on_focus_change=True)
    tables = re.findall(r"^(?:WITH RECURSIVE )?(\w+) AS .*\(", query, re.MULTILINE)
    assert len(tables) > 10
    assert [name for name in tables if f"```sql\n{name} AS " not in page] == []


def name_pairs(tracker: str, heading: str) -> list[tuple[str, str]]:
    """Return the first two columns of the tables under a heading in a tracker's section of the migration page."""
    text = (DOCS / "migrating.md").read_text(encoding="utf-8")
    for level, title in (("##", tracker), ("###", heading)):
        text = text.split(f"\n{level} {title}\n")[1].split(f"\n{level} ")[0]
    return re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)


def test_every_dotnet_name_has_an_equivalent() -> None:
    """The migration page maps every argument and member of .NET's ClientSession to one that exists in our API."""
    arguments = name_pairs("From .NET", "The constructor")
    assert [dotnet_name for dotnet_name, _ in arguments] == DOTNET_ARGUMENTS
    assert [our_name for _, our_name in arguments] == list(ClientSession.__init__.__annotations__)[: len(arguments)]
    members = name_pairs("From .NET", "The members")
    assert {dotnet_name for dotnet_name, _ in members} == DOTNET_MEMBERS | {"GetSchema", "GetData", "GetJson"}
    for dotnet_name, our_name in members:
        assert hasattr(ClientSession if dotnet_name in DOTNET_MEMBERS else SessionContext, our_name), our_name


@pytest.mark.parametrize(("tracker", "heading"), OTHER_TRACKERS, ids=" ".join)
def test_every_name_of_another_tracker_has_an_equivalent(tracker: str, heading: str) -> None:
    """The migration page maps every option and member that concerns sessions to one that exists in our API."""
    pairs = name_pairs(tracker, heading)
    assert {their_name for their_name, _ in pairs} == OTHER_TRACKERS[tracker, heading]
    assert {our_name for _, our_name in pairs} <= {*dir(ClientSession), *ClientSession.__init__.__annotations__}


@pytest.mark.parametrize(
    "module",
    [
        *(client_session, client_session.sessionize, client_session.testing, client_session.visitors),
        client_session_persistence,
    ],
    ids=lambda module: module.__name__,
)
def test_reference_is_complete(module: ModuleType) -> None:
    """Every public name is listed in the reference."""
    texts = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    listed = {name for text in texts for name in re.findall(r"^::: \S+\.(\w+)$", text, re.MULTILINE)}
    assert set(module.__all__) <= listed


@pytest.mark.parametrize(
    "owner",
    [ClientSession, VisitorSessions, VisitorSession, Fold, client_session.sessionize],
    ids=lambda owner: owner.__name__,
)
def test_reference_has_an_example_of_every_method(owner: type | ModuleType) -> None:
    """Every public method or function has an example, which the test of its page runs."""
    names = [name for name in vars(owner) if name[0] != "_"] if isinstance(owner, type) else owner.__all__
    functions = {name: found for name in names if inspect.isfunction(found := getattr(owner, name))}
    assert functions
    assert [name for name, function in functions.items() if ">>> " not in str(function.__doc__)] == []


def test_reference_lists_the_methods_of_a_session_first() -> None:
    """The page has every public member of `ClientSession`, and its methods come first."""
    text = (DOCS / "reference" / "session.md").read_text(encoding="utf-8")
    members = re.findall(r"^(?:::: client_session\.ClientSession\.|        - )(\w+)$", text, re.MULTILINE)
    assert sorted(members) == sorted(name for name in vars(ClientSession) if name[0] != "_")
    are_methods = [inspect.isfunction(vars(ClientSession)[name]) for name in members]
    assert are_methods == sorted(are_methods, reverse=True)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built without warnings."""
    skip_without("material")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "EDIT_URI": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    return folder


def test_site_loads_no_external_resources(site: Path) -> None:
    """Pages do not load stylesheets, scripts or images from other hosts."""
    built = list(site.rglob("*.html"))
    assert len(built) == len(PAGES) + 1  # plus the 404 page
    for page in built:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(?:https?:)?//[^>]*>", text)
        assert not re.findall(r"<link[^>]* href=\"?(?:https?:)?//[^>]*>", text)
        assert not re.findall(r"<blockquote>\s*<blockquote>|====", text), "a docstring is not valid Markdown"


def test_pages_can_be_edited_and_are_read_in_one_order(site: Path) -> None:
    """From the first page, "Next" leads through every page once; "Edit this page" opens the page's file."""
    page, order = site / "index.html", list[str]()
    while True:
        text = page.read_text(encoding="utf-8")
        edit = re.search(r'<a href="([^"]+)" title="Edit this page"', text)
        assert edit is not None
        source = (page.parent / edit[1]).resolve()
        assert source.relative_to(DOCS).with_suffix(".html") == page.relative_to(site)
        order.append(page_name(source))
        following = re.search(r'<a href="([^"]+)" class="md-footer__link md-footer__link--next"', text)
        if following is None:
            break
        page = (page.parent / following[1]).resolve()
    assert sorted(order) == sorted(map(page_name, PAGES))
    parts = [name.split("/")[0] for name in order if "/" in name]
    assert [part for part, _ in itertools.groupby(parts)] == ["how-to", "explanation", "reference"]


@needs_chromium
@pytest.mark.parametrize("query", ["migrating", "stop_checker"])
def test_search_works_without_a_server(query: str, site: Path, tmp_path: Path) -> None:
    """A search finds guides and methods when the site is opened as files."""
    document = dump_dom(f"{(site / 'index.html').as_uri()}?q={query}", tmp_path, WAIT_FOR_SCRIPTS)
    assert re.search(rf'<a href="[^"]*{query}[^"]*" class="md-search-result__link"', document)


@needs_chromium
def test_pages_fit_a_phone(site: Path, tmp_path: Path) -> None:
    """No page scrolls horizontally at a width of 400 pixels."""
    built = sorted(site.rglob("*.html"))
    frames = "".join(f'<iframe src="{page.as_uri()}" width="400" height="800"></iframe>' for page in built)
    script = """onload = () => document.body.textContent = [...document.querySelectorAll("iframe")].map(
        frame => frame.contentDocument.documentElement.scrollWidth).join(" ")"""
    (tmp_path / "phone.html").write_text(f"<style>iframe {{ border: 0 }}</style>{frames}<script>{script}</script>")
    options = (WAIT_FOR_SCRIPTS, "--allow-file-access-from-files", "--hide-scrollbars")
    document = dump_dom((tmp_path / "phone.html").as_uri(), tmp_path, *options)
    widths = re.findall(r"\b\d+\b", document.partition("<body>")[2])
    assert [page for page, width in zip(built, widths, strict=True) if width != "400"] == []


def test_shown_output_is_compared() -> None:
    """An ellipsis in the shown output matches any text; everything else must match."""
    assert matches_output("a 1 b\n", "a … b\n")
    assert matches_output("a   1  \nb\n", "a 1\nb\n")
    assert not matches_output("a 1 c\n", "a … b\n")
    assert not matches_output("a\nb\n", "a\n")
