"""Tests of the tests: each deliberate bug, made in a copy of the code, must fail the suite's fast part.

``python tests/mutants.py`` tries them all, two at a time, prints what caught each, and writes ``tests/README.md``. Exit
status 1 if a bug was not caught.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
README = ROOT / "tests" / "README.md"

# What is quick and starts no process, the plainest promises first; the model last, since it would catch the most.
FAST = (
    "session_lifecycle", "callbacks", "entity", "tracker_cases", "session_saving", "graph", "machine", "codec",
    "xml_store", "ticking_thread", "exploration", "schedule_independence", "model",
)  # fmt: skip


@attrs.frozen
class Mutant:
    """A deliberate bug: in a file, one text instead of another."""

    bug: str
    file: str
    old: str
    new: str


LIFECYCLE, LEDGER, IDENTITY = (
    "fsm/client_session/lifecycle.py",
    "fsm/client_session/ledger.py",
    "fsm/client_session/identity.py",
)
MUTANTS = (
    Mutant(
        "`>` for `>=`: equal does not count as timed out",
        LIFECYCLE,
        "return self._now - self.last_activity >= self.timeout",
        "return self._now - self.last_activity > self.timeout",
    ),
    Mutant(
        "the short path takes an event at exactly the timeout",
        LIFECYCLE,
        "if self.event_count and self.checker_running and now - self.last_activity < timeout:",
        "if self.event_count and self.checker_running and now - self.last_activity <= timeout:",
    ),
    Mutant(
        "the short path takes an event while the checker is stopped",
        LIFECYCLE,
        "if self.event_count and self.checker_running and now",
        "if self.event_count and now",
    ),
    Mutant(
        "check after the toggle instead of before",
        LIFECYCLE,
        "        self._check(now)\n        self._send(given)\n",
        "        self._now = now\n        self._send(given)\n        self._check(now)\n",
    ),
    Mutant(
        "no check first",
        LIFECYCLE,
        "if self.checker_running and self.event_count and self.is_over():",
        "if not self:",
    ),
    Mutant(
        "check first although the checker was stopped by hand",
        LIFECYCLE,
        "if self.checker_running and self.event_count and self.is_over():",
        "if self.event_count and self.is_over():",
    ),
    Mutant(
        "the old timeout is forgotten when a new one is set",
        LIFECYCLE,
        "        self._check(now)\n        self.foreground_timeout = foreground or",
        "        self.foreground_timeout = foreground or",
    ),
    Mutant(
        "the background has the foreground's timeout",
        LIFECYCLE,
        "        return self.background_timeout\n",
        "        return self.foreground_timeout\n",
    ),
    Mutant(
        "a tick is activity",
        LIFECYCLE,
        "            self._now = now\n            self._send(Input.TICK)\n        return self._decided()",
        "            self._now = now\n            self._send(Input.TICK)\n        self.last_activity = now\n"
        "        return self._decided()",
    ),
    Mutant(
        "a toggle is activity",
        LIFECYCLE,
        "        return self._apply(now, Input.BACKGROUND if background else Input.FOREGROUND)",
        "        decisions = self._apply(now, Input.BACKGROUND if background else Input.FOREGROUND)\n"
        "        self.last_activity = now\n        return decisions",
    ),
    Mutant(
        "a touch revives a session that timed out unnoticed",
        LIFECYCLE,
        "        self._check(now)\n        self.last_activity = now\n",
        "        self.last_activity = now\n",
    ),
    Mutant(
        "the checker is not stopped after an expiry in the background",
        LIFECYCLE,
        '        """Effect: let no ticks come."""\n        self.checker_running = False',
        '        """Effect: let no ticks come."""\n        self.checker_running = True',
    ),
    Mutant(
        "an event does not start a checker that was stopped by hand",
        LIFECYCLE,
        "        self.last_activity = self.last_event = self._now\n        self.checker_running = True\n",
        "        self.last_activity = self.last_event = self._now\n",
    ),
    Mutant(
        "a pending session is replaced",
        LIFECYCLE,
        "        if self.event_count or self.count_empty_sessions:\n            in_foreground",
        "        if self.event_count >= 0:\n            in_foreground",
    ),
    Mutant(
        "a summary's seconds run to the moment of detection",
        LIFECYCLE,
        "self._timed_focus().until(\n            self.last_activity,",
        "self._timed_focus().until(\n            self._now,",
    ),
    Mutant(
        "the wall clock for elapsed time",
        "fsm/client_session/shell.py",
        "draft = Draft(before, identity, self._clock.monotonic())",
        "draft = Draft(before, identity, self._clock.now().timestamp())",
    ),
    Mutant(
        "foregrounding does not start the checker",
        "fsm/client_session/graph.py",
        '(Effect.START_CHECKER,),\n        "Nothing changes',
        '(),\n        "Nothing changes',
    ),
    Mutant(
        "an event after an expiry brings the focus back",
        "fsm/client_session/graph.py",
        "        _EXPIRED,\n        Input.EVENT,\n        None,\n        _BACKGROUND,",
        "        _EXPIRED,\n        Input.EVENT,\n        None,\n        _FOREGROUND,",
    ),
    Mutant("the index counts twice", LEDGER, "before.session_index + 1, MAX", "before.session_index + 2, MAX"),
    Mutant(
        "the previous id is the pending session's own",
        LEDGER,
        "if again else before.session_id,",
        "if again else session_id,",
    ),
    Mutant(
        "an older session overwrites a newer one in the file",
        LEDGER,
        "        return kept.session_index < ours.session_index\n",
        "        return True\n",
    ),
    Mutant(
        "every failure to save is warned of, not each streak",
        LEDGER,
        "        elif not was_failing:\n",
        "        else:\n",
    ),
    Mutant(
        "every event is the first of its session",
        "fsm/client_session/shell.py",
        "            if number == 1:\n                draft.identity.number(",
        "            if number:\n                draft.identity.number(",
    ),
    Mutant(
        "event ids keep their case",
        "fsm/client_session/arguments.py",
        "        return value.lower()\n",
        "        return value\n",
    ),
    Mutant(
        "anonymous events name the previous session",
        "fsm/client_session/entity.py",
        "user_id=ZERO_USER_ID, previous_session_id=None)",
        "user_id=ZERO_USER_ID)",
    ),
    Mutant(
        "a restart continues at exactly the timeout",
        IDENTITY,
        "timedelta(0) <= age < timeout",
        "timedelta(0) <= age <= timeout",
    ),
    Mutant("a restart continues activity of the future", IDENTITY, "timedelta(0) <= age < timeout", "age < timeout"),
    Mutant(
        "a restart continues a session that ended",
        IDENTITY,
        "if record is not None and ended.reason is not EndReason.CLOSE:",
        "if record is None and ended.reason is not EndReason.CLOSE:",
    ),
    Mutant(
        "duplicate keys are read",
        "persistence/client_session_persistence/codec.py",
        "if content in self._seen:",
        "if content is self._seen:",
    ),
    Mutant(
        "a document type declaration is read",
        "persistence/client_session_persistence/codec.py",
        "        parser.StartDoctypeDeclHandler = self._doctype\n",
        "",
    ),
    Mutant(
        "a corrupt file becomes the backup",
        "persistence/client_session_persistence/xml_store.py",
        'keep_beside(hold, self._path, self._path + ".corrupt", self._temporary, (before.data, before.status))',
        'keep_beside(hold, self._path, self._path + ".bak", self._temporary, (before.data, before.status))',
    ),
    Mutant(
        "a namespace of any length is read",
        "persistence/client_session_persistence/codec.py",
        "if len(data) > _SHORT_BYTES and _LONG_NAMESPACE.search(data):",
        "if data is None:",
    ),
    Mutant(
        "what is ignored may be nested without end",
        "persistence/client_session_persistence/codec.py",
        "if self._ignored_depth > _MAX_IGNORED_DEPTH:",
        "if self is None:",
    ),
    Mutant(
        "an index may have underscores",
        "persistence/client_session_persistence/codec.py",
        "[1-9][0-9]{0,9}",
        "[1-9][0-9_]{0,9}",
    ),
    Mutant(
        "a link in the backup's place is followed",
        "persistence/client_session_persistence/atomic_file.py",
        """    | getattr(os, "O_NOFOLLOW", 0)\n    | getattr(os, "O_NONBLOCK", 0)\n""",
        """    | getattr(os, "O_NONBLOCK", 0)\n""",
    ),
    Mutant(
        "the umask decides who may read the file",
        "persistence/client_session_persistence/atomic_file.py",
        "PRIVATE if like is None else stat.S_IMODE(like.st_mode))",
        "stat.S_IMODE((like or os.fstat(descriptor)).st_mode))",
    ),
    Mutant(
        "the file loses its owner's mode",
        "persistence/client_session_persistence/atomic_file.py",
        "PRIVATE if like is None else stat.S_IMODE(like.st_mode))",
        "PRIVATE)",
    ),
    Mutant(
        "a backup that cannot be kept prevents saving",
        "persistence/client_session_persistence/xml_store.py",
        "with contextlib.suppress(OSError):  # a good file",
        "with contextlib.suppress():  # a good file",
    ),
    Mutant(
        "a file that cannot be read makes a new user",
        LEDGER,
        "if isinstance(recovered, Snapshot) else None",
        "if recovered is self else None",
    ),
    Mutant(
        "the file is replaced before its bytes are synced",
        "persistence/client_session_persistence/atomic_file.py",
        "            os.fsync(descriptor)\n        finally:\n            os.close(descriptor)\n        hold",
        "        finally:\n            os.close(descriptor)\n        hold",
    ),
    Mutant(
        "a file that cannot be read counts as none",
        "persistence/client_session_persistence/xml_store.py",
        "        except FileNotFoundError:\n            return None",
        "        except OSError:\n            return None",
    ),
    Mutant(
        "a failed write leaves its temporary file",
        "persistence/client_session_persistence/atomic_file.py",
        "        with contextlib.suppress(OSError):\n            hold.do(os.unlink, temporary)\n        raise",
        "        raise",
    ),
    Mutant(
        "what a failed save left undone waits for the next event, not the next tick",
        "fsm/client_session/shell.py",
        "if self._continues or self._ledger.error is not None:",
        "if self._continues:",
    ),
    Mutant(
        "a folder whose fsync fails counts as synced",
        "persistence/client_session_persistence/atomic_file.py",
        "if error.errno not in (errno.EINVAL, errno.ENOTSUP):",
        "if not error.errno:",
    ),
    Mutant(
        "short writes are not continued",
        "persistence/client_session_persistence/atomic_file.py",
        "            while view:\n                view = view[hold.do(os.write, descriptor, view) :]",
        "            os.write(descriptor, view)",
    ),
    Mutant(
        "a link that cannot be read now is replaced by a file",
        "persistence/client_session_persistence/xml_store.py",
        "            path = follow_links(self._path)\n",
        "            path = os.path.realpath(self._path)\n",
    ),
    Mutant(
        "the lock file is locked once more than it is unlocked",
        "persistence/client_session_persistence/lock_file.py",
        "        self._times += 1\n",
        "        self._times += 2\n",
    ),
    Mutant(
        "a start leaves what a killed writer left",
        "persistence/client_session_persistence/xml_store.py",
        "        if os.path.lexists(self._temporary):",
        "        if not self._temporary:",
    ),
    Mutant(
        "the name of a new folder is not synced",
        "persistence/client_session_persistence/atomic_file.py",
        "            raise\n    sync(parent)\n",
        "            raise\n",
    ),
    Mutant(
        "a start removes the temporary file of a writer that is at work",
        "persistence/client_session_persistence/xml_store.py",
        "            with contextlib.suppress(OSError), self._locked(wait=False):\n                pass\n",
        "            os.unlink(self._temporary)\n",
    ),
    Mutant(
        "a number that is given while the lock is held follows what the start saw",
        LEDGER,
        "                self._look()\n",
        "",
    ),
    Mutant(
        "a number is given although another thread has settled something since the decision was begun",
        LEDGER,
        "            if self.turn != turn:\n                raise OvertakenError\n            self._transact(decide)\n",
        "            if self.turn == turn:\n                self._transact(decide)\n",
    ),
    Mutant(
        "an older session's save counts as the newest one's",
        LEDGER,
        "if ours.session_index < self.newest.session_index:",
        "if ours.session_index < 0:",
    ),
    Mutant(
        "calls that come between a renewal take ids of their own",
        IDENTITY,
        "        copied.turn = self._ledger.turn\n",
        "        copied.turn = self._ledger.turn\n        copied.spare_ids = None\n",
    ),
    Mutant(
        "a child that was forked amid a save goes on with it",
        "persistence/client_session_persistence/forks.py",
        "        if self._process == THIS_PROCESS.id:\n            return call",
        "        if self._process:\n            return call",
    ),
    Mutant(
        "a checker that cannot start is told of under the session's lock",
        "fsm/client_session/shell.py",
        'self._notices.add(self._logger.warning, "%s; sessions',
        'self._logger.warning("%s; sessions',
    ),
)


def run(mutant: Mutant | None) -> str | None:
    """Run the fast part on a copy of the code with this bug; return the test that failed, or ``None``."""
    with tempfile.TemporaryDirectory(prefix="client-session-mutant-") as folder:
        copy = Path(folder)
        for name in ("fsm", "persistence", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            path = copy / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                message = f"{mutant.bug}: its text stands {text.count(mutant.old)} times in {mutant.file}, not once"
                raise ValueError(message)
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        files = [f"tests/test_{name}.py" for name in FAST]
        done = subprocess.run(  # noqa: S603  # our own interpreter
            [
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "--no-header",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                *files,
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(copy / "fsm"), str(copy / "persistence")))},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    failed = re.search(r"^(?:FAILED|ERROR) tests/test_(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode and not failed:
        message = f"{mutant}: pytest failed otherwise:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return failed[1] if failed else None


def readme(caught: dict[str, str]) -> str:
    """Return the text of tests/README.md."""
    rows = "".join(f"| {bug} | `{test}` |\n" for bug, test in caught.items())
    return f"""# The tests

`make test` runs them all. Hypothesis draws 50 examples of each property with the profile `dev`, 200 with `ci` (chosen
where `CI` is set), and 5,000 with `nightly`: `HYPOTHESIS_PROFILE=nightly make suite`.

What needs Graphviz's `dot` or Chromium is skipped where they are missing, and says so.

## Tests of the tests

`make mutants` makes each of these deliberate bugs, one at a time, in a copy of the code, and shows that the suite's
fast part fails for it. This table is the output of a run: the bug, and the first test that caught it.

| bug | caught by |
|---|---|
{rows}"""


def main() -> None:
    """Try every bug, after the code without one."""
    if (failed := run(None)) is not None:
        sys.exit(f"the suite's fast part fails without any bug: {failed}")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip((mutant.bug for mutant in MUTANTS), pool.map(run, MUTANTS), strict=True))
    for bug, test in found.items():
        print(f"{'caught' if test else 'NOT CAUGHT'}  {bug}  ({test})")  # noqa: T201  # its output
    caught = {bug: test for bug, test in found.items() if test}
    print(f"{len(caught)} of {len(MUTANTS)} bugs caught")  # noqa: T201  # its output
    if len(caught) < len(MUTANTS):
        sys.exit(1)
    README.write_text(readme(caught), encoding="utf-8")


if __name__ == "__main__":
    main()
