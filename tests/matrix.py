"""Runs the fast tests on every Python from 3.11 to 3.15 that is on ``PATH`` or in pyenv.

``python tests/matrix.py`` keeps the virtual environment and the pytest output of each version in ``build/matrix``. The
exit status is 1 if the tests fail on any version. Versions that are not installed are skipped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "matrix"
MINOR_VERSIONS = range(11, 16)


class Result(NamedTuple):
    """The test result for one Python version."""

    version: str
    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        """Return this result's line in the summary."""
        return f"{self.version:<8} {self.outcome:<10} {self.detail}".rstrip()


def version_of(python: Path) -> tuple[int, ...] | None:
    """Return an interpreter's version, or ``None`` if it does not run (some pyenv shims do not)."""
    program = "import sys; print(*sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(map(int, done.stdout.split()))


def find_python(minor: int) -> tuple[Path, str] | None:
    """Return the newest installed interpreter for a minor version, and its full version number."""
    name = f"python3.{minor}"
    folders = [Path(folder) for folder in os.get_exec_path()]
    candidates = [folder / name for folder in folders if shutil.which(name, path=folder)]
    candidates += (Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/{name}")
    versions = {python: version_of(python) for python in candidates}
    found = [(version, python) for python, version in versions.items() if version and version[:2] == (3, minor)]
    if not found:
        return None
    version, python = max(found, key=lambda pair: pair[0])
    return python, ".".join(map(str, version))


def prepare_environment(python: Path, version: str) -> Path:
    """Set up a virtual environment for the tests unless an up-to-date one exists; return its interpreter."""
    environment = FOLDER / version.rpartition(".")[0]
    stamp = environment / "installed"
    current = f"{version} {hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}"
    interpreter = environment / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        pip: list[Path | str] = [interpreter, "-m", "pip", "install", "--quiet"]
        commands: list[list[Path | str]] = [
            [python, "-m", "venv", "--clear", environment],
            [*pip, "--upgrade", "pip>=25.1"],  # the first pip that supports --group
            [*pip, "--editable", ".[cli,verify]", "--group", "dev"],
        ]
        for command in commands:
            subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # our own commands
        stamp.write_text(current, encoding="utf-8")
    return interpreter


def run(minor: int, arguments: list[str]) -> Result:
    """Run the fast tests on a minor version of Python."""
    found = find_python(minor)
    if found is None:
        return Result(f"3.{minor}", "not found")
    python, version = found
    print(f"Python {version}: {python}", flush=True)  # noqa: T201  # the program's output
    try:
        interpreter = prepare_environment(python, version)
    except subprocess.CalledProcessError as error:
        return Result(version, "failed", f"could not set up the environment: {error}")
    log = FOLDER / f"3.{minor}.log"
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(  # noqa: S603  # the environment's interpreter
            [
                interpreter,
                "-m",
                "pytest",
                "-q",
                "-n",
                "auto",
                "-m",
                "not slow",
                "-p",
                "no:cacheprovider",
                *arguments,
            ],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = log.read_text(encoding="utf-8")
    if status:
        print(text)  # noqa: T201  # the program's output
    counts = re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s).*$", text, re.MULTILINE)
    return Result(version, "failed" if status else "passed", counts[-1] if counts else f"exit status {status}")


def main() -> None:
    """Run the tests on every version; pass any arguments to pytest."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = [run(minor, sys.argv[1:]) for minor in MINOR_VERSIONS]
    print("", *results, sep="\n")  # noqa: T201  # the program's output
    sys.exit(any(result.outcome == "failed" for result in results))


if __name__ == "__main__":
    main()
