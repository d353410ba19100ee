"""client-session verify: its tables, its report and its failures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from browser import dump_dom, needs_chromium
from client_session import ClientSession
from client_session.graph import TABLE
from client_session.testing import InvariantError, ManualClock, ManualScheduler, SessionOptions, check_invariants
from client_session.testing.manual import START
from client_session.testing.strategies import make_step
from client_session.testing.trace import read_trace
from client_session.verify import command
from client_session.verify.run import INVARIANTS, Failure, Verification
from client_session.verify.tally import Sample
from client_session_persistence import MemoryStore
from event_ids import event_id
from terminal import COMMAND, run_on_terminal

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, broken: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, optionally after a line of Python that breaks the library."""
    command = [COMMAND]
    if broken:
        command = [sys.executable, "-c", f"{broken}\nfrom client_session.__main__ import main; main()"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=300)  # noqa: S603  # our own command


@pytest.fixture(scope="module")
def verification(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a verification and return its result and the folder of its report."""
    folder = tmp_path_factory.mktemp("report") / "new"
    return run("verify", "--examples", "20", "--seed", "7", "--length", "1", "--report", str(folder)), folder


def test_correct_library_passes(verification: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """The exit status is 0, every row and invariant is checked, and states, edges and elapsed seconds are printed."""
    result, _ = verification
    assert (result.returncode, result.stderr) == (0, "")
    rows = re.findall(r"^ *[1-9][\d,]*  (?:foreground|background|expired)-", result.stdout, re.MULTILINE)
    assert len(rows) == len(TABLE)
    for name in INVARIANTS:
        assert re.search(rf"^ *[1-9][\d,]*  {re.escape(name)}  ", result.stdout, re.MULTILINE), name
    explored = (
        r"explored all 1472 states and 16192 edges\n"
        r"compared visitors with a ClientSession on 12 timelines of at most 1 inputs\n"
        r"sessionized 20 logs of at most 1 inputs on sqlite[a-z, ]*\n"
    )
    assert re.search(rf"{explored}20 examples, seed 7, \d+\.\d s\n", result.stdout)


class Page(HTMLParser):
    """An HTML parser that collects a page's text and its references to other resources."""

    def __init__(self) -> None:
        """Create a parser with empty collections."""
        super().__init__()
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record references to other resources."""
        loading = {"src", "href", "xlink:href"}
        self.references += [f"{tag} {value}" for name, value in attrs if name in loading and value]

    def handle_data(self, data: str) -> None:
        """Record text."""
        self.text.append(data)


def test_report_is_a_self_contained_page(verification: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """The report loads no other resources; it shows each row, with its reason and a timeline, and each invariant."""
    text = (verification[1] / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.references == []
    words = " ".join(" ".join(page.text).split())
    for row in TABLE:
        assert row.label in words
        assert row.why.split("`")[0].strip() in words
    assert all(part.strip() in words for sentence in INVARIANTS.values() for part in sentence.split("`"))
    assert text.count('<ol class="timeline">') == len(TABLE)


def test_example_of_each_row_shows_that_row(verification: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """In each row's example, the last input is the row's, and the states before and after it are the row's."""
    report = (verification[1] / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r"<section>(.*?)</section>", report, re.DOTALL)
    for row, section in zip(TABLE, sections, strict=True):
        heading, _, timeline = section.partition("</h3>")
        assert f">{row.source.value}</span> {row.label} " in heading
        *_, (_, before), (given, after) = re.findall(r'<div class="input">(.*?)</div><div>(.*?)</div>', timeline)
        assert (before, after) == (row.source.value, row.destination.value)
        assert given == ("start-checker" if row.input == "resume" else row.input)
        assert timeline.count(' here"') == 1
        assert 'here"' in timeline.rpartition("<li")[2]


def test_coverage_graph_shows_counts(verification: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """coverage.svg has a count on each arrow, and the report shows the same graph."""
    svg = (verification[1] / "coverage.svg").read_text(encoding="utf-8")
    counts = re.findall(r"×([\d,]+)", svg)  # noqa: RUF001  # a multiplication sign
    assert len(counts) == len(TABLE)
    assert "0" not in counts
    report = (verification[1] / "report.html").read_text(encoding="utf-8")
    assert all(f"×{count}" in report for count in counts)  # noqa: RUF001  # a multiplication sign


@needs_chromium
@pytest.mark.parametrize("width", [500, 1280])
def test_report_fits_the_browser_window(
    verification: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, width: int
) -> None:
    """In headless Chromium, the page is no wider than the window."""
    page = tmp_path / "page.html"
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + window.innerWidth</script>"
    report = (verification[1] / "report.html").read_text(encoding="utf-8")
    page.write_text(report.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    document = dump_dom(page.as_uri(), tmp_path, f"--window-size={width},900")
    measured = re.search(r"<title>(\d+) of (\d+)</title>", document)
    assert measured
    assert int(measured[1]) <= int(measured[2]) <= width


BUGS = {
    "machine": "from client_session.lifecycle import Lifecycle as core;"
    " core.is_over = lambda s: s._now - s.last_activity > s.timeout",
    "short path": "import client_session.lifecycle as m; m.Lifecycle.try_count_event = lambda s, now, extend: 0",
    "numbers": "import client_session.ledger as m; m.MAX_INDEX = 1",
    "visitors": "import client_session.visitors.settings as m; rules = m.Rules;"
    " m.Rules = lambda foreground, background, *others: rules(foreground, foreground, *others)",
    "logs": "import client_session.sessionize.sql_tables as m; m._BREAK_LIST = \"'start', 'forget'\"",
}


@pytest.mark.parametrize("name", BUGS)
def test_broken_session_is_found(name: str, tmp_path: Path) -> None:
    """Verification exits with status 1 and reports the failure, with a minimal trace that can be replayed."""
    result = run(
        "verify", "--examples", "40", "--seed", "3", "--length", "0", "--report", str(tmp_path), broken=BUGS[name]
    )
    assert result.returncode == 1
    assert " failed: " in result.stdout
    assert "<h2>Failures</h2>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    for trace in tmp_path.glob("failure-*.jsonl"):
        (arguments,) = re.findall(rf"client-session (replay .* {re.escape(str(trace))})", result.stdout)
        replayed = run(*arguments.split())
        assert replayed.returncode == 0
        assert len(trace.read_text().splitlines()) <= 6
    assert name in {"short path", "logs"} or list(tmp_path.glob("failure-*.jsonl"))


def test_shortest_log_that_differs_is_printed() -> None:
    """If an engine differs from the fold, the engine, the settings and the shortest log are printed."""
    result = run("verify", "--examples", "40", "--seed", "3", "--length", "0", broken=BUGS["logs"])
    assert re.search(
        r"^offline failed: InvariantError: log engines: sqlite, with LogSettings\(", result.stdout, re.MULTILINE
    )
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [record["input"] for record in records] == ["event", "new-session"]


def test_failing_trace_is_printed_without_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --report, a failure's trace is printed after the command that replays it."""
    steps = (make_step(START, "event", 1), make_step(START, "background", 2))
    found = Verification(
        examples=1, seed=1, length=1, failures=[Failure("model", "broken", Sample(SessionOptions(), steps))]
    )
    command.show(found, None)
    expected = (
        "\nmodel failed: broken\nShortest failing trace. Replay it with client-session replay --no-ticks "
        "--foreground-timeout 600 --background-timeout 300 failure.jsonl:\n"
    )
    _, _, trace = capsys.readouterr().out.partition(expected)
    assert read_trace([line.encode() for line in trace.splitlines()], "failure.jsonl") == list(steps)


def test_terminal_output_shows_progress_and_fits_the_width() -> None:
    """On a terminal, each part has a progress bar, and no line is wider than the terminal."""
    _, output = run_on_terminal("verify", "--examples", "1", "--seed", "1", "--length", "0")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "exploration" in text
    lines = text[text.index("times taken") :].replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 100


def test_same_seed_results_in_the_same_counts() -> None:
    """Two runs with the same seed print the same counts."""
    outputs = [
        run("verify", "--examples", "10", "--seed", "5", "--length", "0").stdout.rsplit(",", 1)[0] for _ in range(2)
    ]
    assert outputs[0] == outputs[1]


def test_usage_errors_are_explained(tmp_path: Path) -> None:
    """Invalid numbers cause exit status 2; an unwritable report or missing Hypothesis causes a message and status 1."""
    assert run("verify", "--examples", "0").returncode == 2
    (tmp_path / "file").write_text("")
    result = run("verify", "--examples", "1", "--report", str(tmp_path / "file" / "report"))
    assert (result.returncode, result.stderr.count("cannot be written")) == (1, 1)
    result = run("verify", broken="import sys; sys.modules['hypothesis'] = None")
    assert (result.returncode, result.stderr) == (
        1,
        "Error: verify needs hypothesis: pip install 'client-session[verify]'\n",
    )


def test_check_invariants_finds_broken_chains() -> None:
    """check_invariants accepts a session's entities and names any invariant that is violated."""
    session = ClientSession(store=MemoryStore(), clock=ManualClock(), scheduler=ManualScheduler())
    contexts = []
    for number in range(6):
        contexts.append(session.get_session_context(event_id(number)))
        if number % 2:
            session.start_new_session()
    check_invariants(contexts)
    check_invariants(contexts[2:], first_index=2)
    with pytest.raises(InvariantError, match=r"^unbroken chain"):
        check_invariants(contexts[2:])
    with pytest.raises(InvariantError, match=r"^unbroken chain"):
        check_invariants(contexts[:2] + contexts[4:])
    with pytest.raises(InvariantError, match=r"^events counted"):
        check_invariants(contexts[:1] + contexts[2:] + contexts[:1])
    other_user = ClientSession(store=MemoryStore(), clock=ManualClock(), scheduler=ManualScheduler())
    with pytest.raises(InvariantError, match=r"^one user"):
        check_invariants([*contexts, other_user.get_session_context(event_id(9))])
