"""The README: its example runs, its table is the graph's, its defaults are the constructor's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from client_session import ClientSession
from client_session.graph import TABLE
from mutants import MUTANTS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_runs(tmp_path: Path) -> None:
    """The embedding example, copied out and run, prints an entity and the session's numbers, and leaves a save file."""
    example = EXAMPLES[0]
    assert len(example.strip().splitlines()) <= 10
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    entity, numbers = done.stdout.splitlines()
    assert '"sessionIndex":1' in entity
    assert numbers.startswith("1 1 ")
    assert done.stderr == ""
    assert (tmp_path / "session.xml").exists()


@pytest.mark.parametrize(("place", "package"), [(1, "snowplow_tracker"), (2, "opentelemetry.sdk"), (3, "asyncio")])
def test_the_trackers_examples_run(tmp_path: Path, place: int, package: str) -> None:
    """Copied out and run, the embeddings leave a save file; a collector that is not there costs nothing."""
    pytest.importorskip(package)
    example = EXAMPLES[place].replace("collector.example.com", "localhost:9")
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "session.xml").exists()


def test_the_kits_example_runs(tmp_path: Path) -> None:
    """The toy tracker's test, copied out and run by pytest, passes; with a tracker that repeats itself it fails."""
    assert len(EXAMPLES) == 5
    kit = EXAMPLES[4]
    repeating = kit.replace("self.sent.append(", "self.sent.extend(2 * [").replace("uuid4()))", "uuid4())])")
    for name, example, status in (("good", kit, 0), ("bad", repeating, 1)):
        (tmp_path / f"test_{name}.py").write_text(example, encoding="utf-8")
        done = subprocess.run(  # noqa: S603  # our own interpreter
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, done.stdout
    assert "events counted" in done.stdout


def test_the_table_is_the_graphs() -> None:
    """Each row of the graph stands in the README, with its reason, and no other."""
    rows = re.findall(r"^\| (\S+-\S+) \| (\w+) \| (.*?) ?\| (.*?) \| (.*?) ?\| (.*) \|$", README, re.MULTILINE)
    assert rows == [
        (
            row.source.value,
            row.input.value,
            row.guard.value if row.guard else "",
            "(same)" if row.destination is row.source else row.destination.value,
            ", ".join(row.effects),
            row.why,
        )
        for row in TABLE
    ]


def test_the_constructors_table_is_complete() -> None:
    """Every argument stands in the table, in the constructor's order."""
    section = README.split("## The constructor")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert named == list(inspect.signature(ClientSession).parameters)


def test_the_list_of_mutants_is_complete() -> None:
    """tests/README.md, which a run of ``make mutants`` writes, lists each deliberate bug and what caught it."""
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (.*) \| `\w+\.py::.*` \|$", text, re.MULTILINE)
    assert listed == [mutant.bug for mutant in MUTANTS]
    assert len(MUTANTS) >= 20
