"""Runs the fast tests on every Python of this machine: 3.11 to 3.15, on ``PATH`` and in pyenv.

``python tests/matrix.py`` keeps a virtual environment for each version in ``build/matrix``, and the output of pytest
next to it. The exit status is 1 if a version failed. A version that is not installed does not count as one.
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
MINORS = range(11, 16)


class Result(NamedTuple):
    """The outcome on one version."""

    version: str
    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        """Return a line of the summary."""
        return f"{self.version:<8} {self.outcome:<10} {self.detail}".rstrip()


def version_of(python: Path) -> tuple[int, ...] | None:
    """Return the version that an interpreter reports; ``None`` if it does not run, as a shim of pyenv may not."""
    program = "import sys; print(*sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(map(int, done.stdout.split()))


def find_python(minor: int) -> tuple[Path, str] | None:
    """Return the newest interpreter of a minor version, and its full version."""
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


def prepare(python: Path, version: str) -> Path:
    """Return the interpreter of a virtual environment with the tests' dependencies; reuse it if it is current."""
    environment = FOLDER / version.rpartition(".")[0]
    stamp = environment / "installed"
    current = f"{version} {hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}"
    inside = environment / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        pip: list[Path | str] = [inside, "-m", "pip", "install", "--quiet"]
        commands: list[list[Path | str]] = [
            [python, "-m", "venv", "--clear", environment],
            [*pip, "--upgrade", "pip>=25.1"],  # for dependency groups
            [*pip, "--editable", ".[cli,verify]", "--group", "dev"],
        ]
        for command in commands:
            subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # commands of ours
        stamp.write_text(current, encoding="utf-8")
    return inside


def run(minor: int, arguments: list[str]) -> Result:
    """Run the fast tests on a minor version."""
    found = find_python(minor)
    if found is None:
        return Result(f"3.{minor}", "not found")
    python, version = found
    print(f"Python {version}: {python}", flush=True)  # noqa: T201  # its output
    try:
        inside = prepare(python, version)
    except subprocess.CalledProcessError as error:
        return Result(version, "failed", f"cannot set up its environment: {error}")
    log = FOLDER / f"3.{minor}.log"
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(  # noqa: S603  # the environment's interpreter
            [inside, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", "-p", "no:cacheprovider", *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = log.read_text(encoding="utf-8")
    if status:
        print(text)  # noqa: T201  # its output
    counts = re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s).*$", text, re.MULTILINE)
    return Result(version, "failed" if status else "passed", counts[-1] if counts else f"exit status {status}")


def main() -> None:
    """Run every version; pass further arguments to pytest."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = [run(minor, sys.argv[1:]) for minor in MINORS]
    print("", *results, sep="\n")  # noqa: T201  # its output
    sys.exit(any(result.outcome == "failed" for result in results))


if __name__ == "__main__":
    main()
