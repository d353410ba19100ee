"""The README: its examples run, it is short, and its figures are current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mutants import MUTANTS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_first_example_runs(tmp_path: Path) -> None:
    """The example prints an entity and a line of session properties, and it creates a save file."""
    example = EXAMPLES[0]
    assert len(example.strip().splitlines()) <= 10
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    entity, numbers = result.stdout.splitlines()
    assert '"sessionIndex":1' in entity
    assert numbers.startswith("1 1 ")
    assert result.stderr == ""
    assert (tmp_path / "session.xml").exists()


@pytest.mark.parametrize(("index", "package"), [(1, "snowplow_tracker"), (2, "opentelemetry.sdk")])
def test_tracker_example_runs(tmp_path: Path, index: int, package: str) -> None:
    """Each tracker example creates a save file, even if its collector cannot be reached."""
    pytest.importorskip(package)
    example = EXAMPLES[index].replace("collector.example.com", "localhost:9")
    result = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "session.xml").exists()


def test_visitors_example_runs(tmp_path: Path) -> None:
    """Each run of the example counts one more event of the same visitor's session."""
    for number in (1, 2):
        result = subprocess.run(  # noqa: S603  # our own interpreter and program
            [sys.executable, "-W", "error", "-c", EXAMPLES[3]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert (result.stdout, result.stderr) == (f"1 {number}\n", "")


def test_readme_fits() -> None:
    """The README has at most 200 lines, and the number of deliberate bugs in it is right."""
    assert len(README.splitlines()) <= 200
    assert f"[{len(MUTANTS)} deliberate bugs](tests/README.md)" in README


def test_mutant_table_is_complete() -> None:
    """tests/README.md, which ``make mutants`` writes, lists every deliberate bug and the test that catches it."""
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (.*) \| `\w+\.py::.*` \|$", text, re.MULTILINE)
    assert listed == [mutant.bug for mutant in MUTANTS]
    assert len(MUTANTS) >= 20
