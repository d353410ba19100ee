"""Mutation testing: the fast tests must catch each deliberate bug in a copy of the code.

``python tests/mutants.py`` tests two mutants at a time, prints the test that caught each, and writes
``tests/README.md``. The exit status is 1 if any bug was not caught.
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
SOURCES = ("fsm", "persistence")

# Fast tests, few of which start processes. The most basic come first; the model test, which catches the most, is last.
FAST_TESTS = (
    "session_lifecycle", "session_limits", "callbacks", "entity", "tracker_cases", "session_saving", "gone_sessions",
    "forget_user", "input_log", "graph", "machine", "codec", "xml_store", "forgetting", "interruptions",
    "ticking_thread", "exploration", "schedule_independence", "reentrancy", "writer_thread", "forks", "places", "model",
)  # fmt: skip
FIRST_TESTS = {
    "lifecycle": ("session_limits", "exploration"), "input_log": ("input_log", "model"),
    "current": ("gone_sessions", "forget_user", "reentrancy"),
    "session": ("reentrancy", "interruptions", "session_saving"),
    "ledger": ("session_saving", "interruptions", "reentrancy"),
    "callbacks": ("interruptions", "callbacks"), "machine": ("interruptions", "machine"),
    "entity": ("entity",), "codec": ("codec",), "xml_store": ("xml_store", "forgetting", "session_saving"),
    "atomic_file": ("xml_store", "forgetting", "places"),
    "lock_file": ("lock_file", "ownership", "session_saving", "xml_store"),
    "forks": ("forks", "xml_store"), "writer_thread": ("writer_thread", "forgetting", "forks"),
    "file_store": ("places", "sqlite_store"), "sqlite_store": ("sqlite_store",), "sqlite_connection": ("sqlite_store",),
    "sqlite_states": ("states", "sqlite_states"), "client_session_persistence/states": ("states", "visitors"),
    "decision": ("visitors",), "exchange": ("visitors",), "settings": ("visitors",),
    "sessions": ("visitors", "visitor_failures"), "value": ("visitors", "visitor_failures"),
}  # fmt: skip
"""The tests most likely to catch a module's bugs; they run before the others."""


@attrs.frozen
class Mutant:
    """A deliberate bug: a replacement in a module's source code."""

    bug: str
    module: str
    old: str
    new: str

    @property
    def file(self) -> Path:
        """The module's file, relative to the root."""
        (path,) = (path for root in SOURCES for path in (ROOT / root).rglob(f"{self.module}.py"))
        return path.relative_to(ROOT)


# fmt: off
MUTANTS = (
    # The lifecycle
    Mutant("`>` instead of `>=`: a session is not over at exactly the timeout", "lifecycle",
        "return now - self.last_activity >= self.timeout",
        "return now - self.last_activity > self.timeout"),
    Mutant("an event at exactly the timeout takes the short path", "lifecycle",
        "if now - self.last_activity < self.short_path_timeout and",
        "if now - self.last_activity <= self.short_path_timeout and"),
    Mutant("an event takes the short path even while checking is stopped", "lifecycle",
        "has_short_path = self.has_short_path and self.event_count and self.checker_running",
        "has_short_path = self.has_short_path and self.event_count"),
    Mutant("inputs are applied before the check instead of after it", "lifecycle",
        "                self._check()\n                self._send(given)\n",
        "                self._send(given)\n                self._check()\n"),
    Mutant("inputs are applied without checking first", "lifecycle",
        "if self.checker_running and self.event_count and self.is_over():",
        "if not self:"),
    Mutant("the check before an input runs even while checking is stopped", "lifecycle",
        "if self.checker_running and self.event_count and self.is_over():",
        "if self.event_count and self.is_over():"),
    Mutant("setting a timeout skips the check against the old one", "lifecycle",
        "        self._check()\n        self.foreground_timeout = foreground_timeout or",
        "        self.foreground_timeout = foreground_timeout or"),
    Mutant("the background uses the foreground timeout", "lifecycle",
        "return self.foreground_timeout if self.state is _FOREGROUND else self.background_timeout",
        "return self.foreground_timeout"),
    Mutant("a tick is treated as activity", "lifecycle",
        "                    self._send(Input.TICK)\n            case",
        "                    self._send(Input.TICK)\n                self.last_activity = now\n            case"),
    Mutant("a focus change is treated as activity", "lifecycle",
        "                self._check()\n                self._send(given)\n",
        "                self._check()\n                self._send(given)\n                self.last_activity = now\n"),
    Mutant("a touch revives a session that has timed out", "lifecycle",
        "            case Command():\n                self._check()\n",
        "            case Command():\n                if given is not Command.TOUCH:\n"
        "                    self._check()\n"),
    Mutant("checking continues after expiry in the background", "lifecycle",
        '"""Effect: stop checking."""\n        self.checker_running = False',
        '"""Effect: stop checking."""\n        self.checker_running = True'),
    Mutant("an event does not restart a stopped checker", "lifecycle",
        "        self.last_activity = self.last_event = self._now\n        self.checker_running = True\n",
        "        self.last_activity = self.last_event = self._now\n"),
    Mutant("a pending session is replaced", "lifecycle",
        "        if self.event_count or self.count_empty_sessions:\n            self._end",
        "        if self.event_count >= 0:\n            self._end"),
    Mutant("a summary's durations include the time until the end is detected", "lifecycle",
        "            self.last_activity, foreground=self.state is _FOREGROUND\n",
        "            self._now, foreground=self.state is _FOREGROUND\n"),
    Mutant("a passive event is activity on the short path", "lifecycle",
        "            if extend:\n",
        "            if self:\n"),
    Mutant("a passive event is activity in the machine", "lifecycle",
        '"""Effect: count the event only."""\n        self.event_count += 1\n',
        '"""Effect: count the event only."""\n        self.event_count += 1\n        self.last_activity = self._now\n'),
    Mutant("a passive event begins a session", "lifecycle",
        'session is not pending."""\n        return self.event_count > 0',
        'session is not pending."""\n        return self.event_count >= 0'),
    Mutant("a passive event starts the checker", "lifecycle",
        '"""Effect: count the event only."""\n',
        '"""Effect: count the event only."""\n        self.checker_running = True\n'),
    Mutant("a touch moves the time from which the maximum duration counts", "lifecycle",
        "                if given is Command.TOUCH:\n                    self.last_activity = now\n",
        "                if given is Command.TOUCH:\n                    self.last_activity = self.started = now\n"),
    Mutant("the maximum duration counts from the last activity", "lifecycle",
        "and now - self.started >= self.max_duration",
        "and now - self.last_activity >= self.max_duration"),
    Mutant("a session is not over at exactly the maximum duration", "lifecycle",
        "and now - self.started >= self.max_duration",
        "and now - self.started > self.max_duration"),
    Mutant("an event takes the short path after the maximum duration", "lifecycle",
        " and now - self.started < self.max_duration:",
        ":"),
    Mutant("if both limits are reached at the same time, the reason is the maximum duration", "lifecycle",
        "self.last_activity + self.timeout <= self._max_duration_at",
        "self.last_activity + self.timeout < self._max_duration_at"),
    Mutant("the reason of an end is the timeout, even if the maximum duration was reached first", "lifecycle",
        "self._is_idle(self._now) and self.last_activity + self.timeout <= self._max_duration_at",
        "self._is_idle(self._now)"),
    Mutant("setting the maximum duration skips the check against the old one", "lifecycle",
        "        self._now = now\n        self._check()\n        self.foreground_timeout",
        "        self._now = now\n        if not max_duration:\n            self._check()\n"
        "        self.foreground_timeout"),
    Mutant("a focus change is activity although it is not configured", "lifecycle",
        "        if self.extend_on_focus_change:\n",
        "        if self:\n"),
    Mutant("a focus change is not activity although it is configured", "lifecycle",
        "        if self.extend_on_focus_change:\n",
        "        if not self:\n"),
    # The graph
    Mutant("foregrounding does not start the checker", "graph",
        '(_START,),\n        "The app is in focus already',
        '(),\n        "The app is in focus already'),
    Mutant("an event after expiry brings the app to the foreground", "graph",
        "Row(_EXPIRED, _EVENT, None, _BACKGROUND,",
        "Row(_EXPIRED, _EVENT, None, _FOREGROUND,"),
    Mutant("leaving the expired state is activity", "graph",
        "Row(_EXPIRED, _TO_FOREGROUND, None, _FOREGROUND, (_START,),",
        "Row(_EXPIRED, _TO_FOREGROUND, None, _FOREGROUND, (_START, _TOUCH),"),
    Mutant("a repeated focus change is activity", "graph",
        "Row(_BACKGROUND, _TO_BACKGROUND, None, _BACKGROUND, (),",
        "Row(_BACKGROUND, _TO_BACKGROUND, None, _BACKGROUND, (_TOUCH,),"),
    # Replacing the current session
    Mutant("a superseded draft is published", "session",
        "if self._current is before and before.lifecycle.event_count == draft.event_count_before:",
        "if before:"),
    Mutant("an event that is counted during a decision is lost", "session",
        "if self._current is before and before.lifecycle.event_count == draft.event_count_before:",
        "if self._current is before:"),
    Mutant("a superseded lifecycle is not retired", "session",
        "                    before.lifecycle.short_path_timeout = 0.0  # retired",
        "                    pass  # retired"),
    Mutant("the id of a session that has begun is used for the next one", "session",
        'next_id = "" if draft.begun else draft.next_id',
        "next_id = draft.next_id"),
    Mutant("the short path does not run the callbacks of a re-entrant call", "session",
        "if before is not self._current:",
        "if before is None:"),
    Mutant("drafts of one session generate different ids", "current",
        "        after.facts = _pending_facts(self.next_id,",
        "        after.facts = _pending_facts(new_id(),"),
    Mutant("a replaced pending id keeps its index", "current",
        "self.unused_id, self.next_id = self.next_id, new_id()",
        "self.next_id = new_id()"),
    # Exceptions from outside
    Mutant("an exception from outside leaves the session locked", "session",
        "                lock.release()\n            raise\n",
        "                pass\n            raise\n"),
    Mutant("an exception that interrupts callbacks loses them", "session",
        "                self._deliver()  # an exception from outside",
        "                pass  # an exception from outside"),
    Mutant("an exception from outside is taken for a store's error", "ledger",
        "        if is_from_signal_handler(error):\n            raise error\n",
        ""),
    Mutant("an exception from outside is taken for a callback's failure", "callbacks",
        "        if not isinstance(error, Exception) or is_from_signal_handler(error):\n            return error",
        "        if not isinstance(error, Exception):\n            return error"),
    Mutant("an exception from outside is taken for a logger's failure", "callbacks",
        "if not isinstance(broken, Exception) or is_from_signal_handler(broken):",
        "if not isinstance(broken, Exception):"),
    Mutant("an exception from outside is swallowed at the end of a transition", "machine",
        "    event_cls = _Event",
        "    pass"),
    Mutant("an index whose save was interrupted is used twice", "ledger",
        "record = follow(stored)  # an exception",
        "pass  # an exception"),
    # The session and its draft
    Mutant("elapsed time is measured with the wall clock", "session",
        "now = Anchor(self._clock.monotonic(), self._clock.now())",
        "now = Anchor(self._clock.now().timestamp(), self._clock.now())"),
    Mutant("a failed save is retried at the next event instead of the next tick", "session",
        "if self._ledger.is_resumable or self._ledger.error is not None:",
        "if self._ledger.is_resumable:"),
    Mutant("a checker's failure to start is logged while the session is locked", "session",
        'self._callbacks.log(self._logger.warning, "%s; sessions',
        'self._logger.warning("%s; sessions'),
    Mutant("progress is not saved at exit", "session",
        "if self._ledger.outlives_process and not self._ledger.has_saved(record := self._progress()):",
        "if (record := self._progress()) is self:"),
    Mutant("every event is treated as the first of its session", "current",
        "        if number == 1:\n",
        "        if number:\n"),
    Mutant("a restart does not check the saved session", "current",
        "return ended + lifecycle.decide(Input.FOREGROUND, now)",
        "return ended"),
    Mutant("a restart resumes a session with a time in the future", "current",
        "if max(lifecycle.last_activity, lifecycle.started) > now:",
        "if lifecycle.started is now:"),
    Mutant("a restart resumes a session with an unknown start despite a maximum duration", "current",
        "elif record.session_start is None and math.isfinite(lifecycle.max_duration):",
        "elif record is None:"),
    Mutant("a restart judges a saved session by the foreground timeout", "current",
        "SessionState.BACKGROUND_ACTIVE if record.background else",
        "SessionState.BACKGROUND_ACTIVE if record is None else"),
    Mutant("a restart resumes a session that ended", "current",
        "after.record = attrs.evolve(record, last_activity=last_activity, background=None)",
        "after.record = record"),
    Mutant("an end is reported before it is saved", "current",
        "self.must_save = record.background is not None",
        "self.must_save = False"),
    Mutant("forgetting the user does not end the session", "current",
        "decisions = after.lifecycle.decide(Command.FORGET, self.now.monotonic)",
        "decisions = ()"),
    Mutant("a forgotten user is still known until the next session", "ledger",
        "self.newest = self._saved = user",
        "self._saved = user"),
    Mutant("a new user's first session continues the old user's index", "ledger",
        "return Snapshot(user_id=new_id(), storage_mechanism=self.storage_mechanism)",
        "index = self.newest.session_index if self.pending_id is not None and hasattr(self, 'newest') else 0\n"
        "        return Snapshot(user_id=new_id(), session_index=index, storage_mechanism=self.storage_mechanism)"),
    # The log of inputs
    Mutant("forgetting the user is logged with the new user", "current",
        "(self.before if given == Command.FORGET else self.after).facts.user_id",
        "self.after.facts.user_id"),
    Mutant("a new user's records do not say that the app is in the background", "input_log",
        "                inputs.append(Input.BACKGROUND)\n",
        "                pass\n"),
    Mutant("records are numbered anew with each input", "input_log",
        "self.sequence + len(records), user_id)",
        "len(records), user_id)"),
    Mutant("event ids are not converted to lowercase", "arguments",
        "return str.lower(value)",
        "return value"),
    Mutant("anonymous entities name the previous session", "entity",
        "user_id=ZERO_USER_ID, previous_session_id=None)",
        "user_id=ZERO_USER_ID)"),
    # Session indexes and the store
    Mutant("the index increases by two", "ledger",
        "before.session_index + 1, MAX",
        "before.session_index + 2, MAX"),
    Mutant("a session's previous id is its own id", "ledger",
        "if again else before.session_id,",
        "if again else session_id,"),
    Mutant("a repeated request for an index gets a different one", "ledger",
        "again = not is_other(before)",
        "again = False"),
    Mutant("a session that is no longer pending gets an index", "ledger",
        "if self.pending_id != session_id:",
        "if not session_id:"),
    Mutant("a forked child chooses the same pending id as its parent", "ledger",
        "if not self.pending_id and process == THIS_PROCESS.id:",
        "if not self.pending_id:"),
    Mutant("an interrupted transaction is not repeated", "ledger",
        "if self._transaction is mine or (",
        "if mine or ("),
    Mutant("an older session overwrites a newer one in the file", "ledger",
        "return stored.session_index < ours.session_index or stored.session_id == self.unused_id",
        "return True"),
    Mutant("every failed save is logged, not only the first of several in a row", "ledger",
        "        elif not was_failing:\n",
        "        else:\n"),
    Mutant("an unreadable file results in a new user", "ledger",
        "if isinstance(recovered, Snapshot) else None",
        "if recovered is self else None"),
    Mutant("an index assigned while the file is locked ignores the file's index", "ledger",
        "                self._peek()\n                decide()\n",
        "                decide()\n"),
    Mutant("saving an older session is treated as saving the newest one", "ledger",
        "if ours.session_index < self.newest.session_index:",
        "if ours.session_index < 0:"),
    # The file format
    Mutant("duplicate keys are accepted", "codec",
        "if content in self._seen:",
        "if content is self._seen:"),
    Mutant("a document type declaration is accepted", "codec",
        "        parser.StartDoctypeDeclHandler = lambda",
        "        _ = lambda"),
    Mutant("a namespace of any length is accepted", "codec",
        "if len(data) > _SHORT_BYTES and _LONG_NAMESPACE.search(data):",
        "if data is None:"),
    Mutant("ignored elements may be nested without limit", "codec",
        "if self._ignored_depth > _MAX_IGNORED_DEPTH:",
        "if self is None:"),
    Mutant("an index may contain underscores", "codec",
        "[1-9][0-9]{0,9}",
        "[1-9][0-9_]{0,9}"),
    # Files
    Mutant("a corrupt file becomes the backup", "xml_store",
        '(".corrupt", ()) if before.error else',
        '(".bak", ()) if before.error else'),
    Mutant("a backup that cannot be written prevents saving", "xml_store",
        'else (".bak", (OSError,))',
        'else (".bak", ())'),
    Mutant("an unreadable file is treated as missing", "xml_store",
        "        except FileNotFoundError:\n            return None",
        "        except OSError:\n            return None"),
    Mutant("a link that is temporarily unreadable is replaced with a file", "file_store",
        "atomic_file.follow_links(self._path)",
        "os.path.realpath(self._path)"),
    Mutant("startup does not remove the temporary file of a killed writer", "xml_store",
        "if not read_only and not is_locked and os.path.lexists(self._temporary):",
        "if not self._temporary:"),
    Mutant("startup removes the temporary file of an active writer", "xml_store",
        "                with contextlib.suppress(OSError), self._locked(wait=False):\n                    pass\n",
        "                os.unlink(self._temporary)\n"),
    Mutant("a link at the backup's path is followed", "atomic_file",
        '("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")',
        '("O_CLOEXEC", "O_NONBLOCK", "O_BINARY")'),
    Mutant("the umask determines who may read the file", "atomic_file",
        "PRIVATE if like is None else like.st_mode & 0o777)",
        "(like or os.fstat(descriptor)).st_mode & 0o777)"),
    Mutant("the file loses the mode that its owner set", "atomic_file",
        "PRIVATE if like is None else like.st_mode & 0o777)",
        "PRIVATE)"),
    Mutant("the file is replaced before its bytes are synced", "atomic_file",
        "            _sync(descriptor)\n        if delete:\n",
        "        if delete:\n"),
    Mutant("a failed write leaves its temporary file behind", "atomic_file",
        "        with contextlib.suppress(OSError):\n            lease.call(os.unlink, temporary)\n        raise",
        "        raise"),
    Mutant("a folder whose fsync fails is treated as synced", "atomic_file",
        "if error.errno not in (*UNSUPPORTED, *error_numbers):",
        "if not error.errno:"),
    Mutant("a planted link at the save path is followed", "atomic_file",
        "if found.st_uid not in (0, os.geteuid()) and",
        "if not found.st_uid and"),
    Mutant("a folder that is replaced with a planted link is used", "file_store",
        "        atomic_file.check_folder(folder, folder_stat.st_dev, folder_stat.st_ino, user)\n",
        ""),
    Mutant("the lock file does not get the mode of the file", "atomic_file",
        "            mode |= owner.st_mode & 0o666\n",
        ""),
    Mutant("short writes are not completed", "atomic_file",
        "            while view:\n                view = view[lease.call(os.write, descriptor, view) :]",
        "            os.write(descriptor, view)"),
    Mutant("the name of a new folder is not synced", "atomic_file",
        "            raise\n    sync(parent)\n",
        "            raise\n"),
    Mutant("a waiting process does not notice that the lock changes hands", "lock_file",
        "            self.stamp, self.changed_at = stamp, time.monotonic()\n",
        "            self.stamp = stamp\n"),
    Mutant("a process locks the file although another has waited longer", "lock_file",
        "is_in_line = 0 < turn < since",
        "is_in_line = since < turn < since"),
    Mutant("the victim of a hard link in place of the lock file is overwritten", "lock_file",
        "file_stat.st_nlink == 1 and file_stat.st_size in (0, _SIZE)",
        "bool(file_stat.st_nlink)"),
    Mutant("a session that is closed remains owned", "lock_file",
        "        self._file.erase_stamp()\n        self._file.unlock()\n",
        "        self._file.erase_stamp()\n"),
    # Forgetting
    Mutant("the old user's corrupt file is kept", "xml_store",
        'for each in (".corrupt", ".bak")])',
        'for each in (".bak",)])'),
    Mutant("the old user's backup is deleted before the copy that cannot be deleted", "xml_store",
        'for each in (".corrupt", ".bak")])',
        'for each in (".bak", ".corrupt")])'),
    Mutant("a corrupt file loses its user if it cannot be replaced", "xml_store",
        "        if recovered is not None:\n            self._write(lease, dumps(recovered), recovered)\n",
        ""),
    Mutant("a power cut brings back copies of the old user's file", "atomic_file",
        "                _unlink(lease, each)\n            sync_folder(os.path.dirname(path))\n",
        "                _unlink(lease, each)\n"),
    Mutant("a copy that cannot be deleted remains next to the new user's file", "atomic_file",
        "            for each in delete:\n                _unlink(lease, each)\n",
        "            for each in delete:\n"
        "                with contextlib.suppress(OSError):\n                    _unlink(lease, each)\n"),
    Mutant("a queued save supersedes the replacement of the user", "writer_thread",
        "if is_required or number == len(taken):",
        "if number == len(taken):"),
    Mutant("after a failed replacement, the new user is loaded", "writer_thread",
        "                self.newest = None\n",
        "                pass\n"),
    # Forks and the writer thread
    Mutant("a child that is forked during a save continues the save", "forks",
        "        if self._process == THIS_PROCESS.id and MARKER[0]:\n            return function",
        "        if self._process:\n            return function"),
    Mutant("fork hooks run in registration order", "forks",
        "    bisect.insort(_registry, (stage, hooks), key=lambda registered: registered[0])\n",
        "    _registry.append((stage, hooks))\n"),
    Mutant("a fork in C code is not noticed", "forks",
        "    if not MARKER[0]:\n        _renew_child()",
        "    if not MARKER:\n        _renew_child()"),
    Mutant("the writer thread does not pause for a fork", "writer_thread",
        "    before_fork=WRITER.pause,\n",
        ""),
    Mutant("a failed background save is treated as successful", "writer_thread",
        "                future.set_exception(error)\n",
        "                future.set_result(None)\n"),
    Mutant("queued snapshots are written in reverse order", "writer_thread",
        "iter(self._waiting.popleft, None)",
        "iter(self._waiting.pop, None)"),
    Mutant("the lock is released before a queued snapshot is durable", "writer_thread",
        "            lock.retain()\n",
        ""),
    Mutant("the interpreter exits without waiting for the writer thread", "writer_thread",
        "            done.wait(max(0.0, until - time.monotonic()))\n",
        "            done.set()\n"),
    # Databases
    Mutant("a database of another application is used", "sqlite_connection",
        "if application_id != APPLICATION_ID:",
        "if application_id is path:"),
    Mutant("a database whose table has been changed is used", "sqlite_connection",
        "WHERE tbl_name = 'sessions'\") != [(TABLE,)]:",
        "WHERE tbl_name = 'sessions'\") is path:"),
    Mutant("a child uses the database that its parent had open", "sqlite_connection",
        "        if files[0] in _inherited:",
        "        if files[0] in ():"),
    Mutant("replacing the user leaves the old one in the database's log", "sqlite_store",
        "        (is_blocked, *_), *_ = self._connection.run(_PURGE, lease=lease, wait=wait)\n",
        "        is_blocked = 0\n"),
    Mutant("a user that could not be replaced in the log is not restored", "sqlite_store",
        "                self._connection.run(_REPLACE, *before[0], lease=lease)\n",
        "                pass\n"),
    Mutant("a corrupt database loses the rows that can be read", "sqlite_store",
        "            found = self._connection.run(_SELECT_SOME)\n",
        "            pass\n"),
    Mutant("a store's path is not resolved, so the lock file is next to the link", "file_store",
        "                self._set_path(path)\n",
        "                pass\n"),
    # States of visitors
    Mutant("a swap in memory does not compare", "client_session_persistence/states",
        "                if value != old:\n",
        "                if value is self:\n"),
    Mutant("expired values stay in memory", "client_session_persistence/states",
        "                del self._entries[key]\n",
        "                pass\n"),
    Mutant("a swap in a database does not compare", "sqlite_states",
        "AND expires_at > ? AND value = ?",
        "AND expires_at > ? AND ? IS NOT NULL"),
    Mutant("a new value replaces one that has not expired", "sqlite_states",
        "expires_at = excluded.expires_at WHERE expires_at <= ?",
        "expires_at = excluded.expires_at WHERE ? > 0"),
    Mutant("expired values are read from a database", "sqlite_states",
        "SELECT value FROM states WHERE key = ? AND expires_at > ?",
        "SELECT value FROM states WHERE key = ? AND ? > 0"),
    Mutant("`purge` deletes values that have not expired", "sqlite_states",
        "key <= ? AND expires_at <= ?",
        "key <= ? AND ? > 0"),
    # Visitors
    Mutant("a visitor's event that is sent again is counted again", "decision",
        "        if event is not None:\n            for number",
        "        if event is self:\n            for number"),
    Mutant("only a visitor's last seven events are recognized", "value",
        "REMEMBERED_EVENTS = 8",
        "REMEMBERED_EVENTS = 7"),
    Mutant("a store's clock that is behind moves a visitor's times back", "decision",
        "        now = max(now, state.last_input)\n        core",
        "        core"),
    Mutant("a store's clock that is set back suspends expiry until it catches up", "decision",
        "            state = _shifted(state, now - state.last_input)\n",
        "            pass\n"),
    Mutant("a clock that is set back is not in the log", "decision",
        "if after.swaps > before.swaps + 1:",
        "if after.swaps < before.swaps:"),
    Mutant("a visitor's end is reported twice", "decision",
        'notifications.append(("on_session_end", summary))',
        'notifications += [("on_session_end", summary)] * 2'),
    Mutant("an older session that is no longer remembered is not the previous one", "decision",
        "return tuple(kept), ids.uuid_bytes(oldest)",
        "return tuple(kept), previous"),
    Mutant("a swap whose reply was lost is not recognized", "exchange",
        "if is_swapped or value == new:",
        "if is_swapped:"),
    Mutant("two threads may write the same value", "exchange",
        "_RANDOM.getrandbits(32)",
        "0"),
    Mutant("after another host's swap, the cached state is used again", "exchange",
        "                entry = self._remember(key, _entry(key, value), now)\n",
        "                self._remember(key, _entry(key, value), now)\n"),
    Mutant("a cached state by which nothing changes is not checked", "exchange",
        "            elif not is_cached:\n",
        "            elif outcome:\n"),
    Mutant("`forget_user` leaves the state in the store", "settings",
        "        yield from self._exchanges.delete(key)\n",
        ""),
    Mutant("the store's time stands still between replies", "exchange",
        "return now + int(elapsed * 1e6) if",
        "return now if"),
    Mutant("the store's time is carried forward without limit", "exchange",
        "if elapsed < CLOCK_SECONDS else None",
        "if elapsed < 1e9 else None"),
    Mutant("the cache grows without limit", "exchange",
        "if len(self._newer) >= CACHE_SIZE // 2:",
        "if not self._newer:"),
    Mutant("`keep` is ignored", "exchange",
        "entry.value, new, self._keep)",
        "entry.value, new, 3e9)"),
    Mutant("`key_secret` is ignored", "settings",
        "return ids.user_id(self.rules.namespace, visitor, self._secret)",
        "return ids.user_id(self.rules.namespace, visitor)"),
    Mutant("a value of a newer version is read as if it were corrupt", "value",
        "if value and VERSION < value[0] <= _MAX_NEWER_VERSION:",
        "if value and VERSION > value[0]:"),
    Mutant("a value of a newer version is overwritten", "exchange",
        "return _NEW if value is None else Entry",
        "return Entry(value, NEW_VISITOR) if value is None or value[0] > 1 else Entry"),
    Mutant("a visitor's corrupt value is read", "value",
        "if value[len(body) :] != _checksum(key, body):",
        "if value is key:"),
    Mutant("another visitor's value is read", "value",
        "zlib.crc32(body, zlib.crc32(key.encode()))",
        "zlib.crc32(body)"),
    Mutant("a visitor's key is logged", "sessions",
        "        return VisitorSession(self, self._visitors.user_id(visitor))\n",
        '        _LOGGER.debug("a session of %s", visitor)\n'
        "        return VisitorSession(self, self._visitors.user_id(visitor))\n"),
    Mutant("an error names the visitor", "exchange",
        'msg = f"other hosts changed the visitor\'s state first',
        'msg = f"{key}: other hosts changed the visitor\'s state first'),
)
# fmt: on


def run(mutant: Mutant | None) -> str | None:
    """Run the fast tests on a copy of the code with this bug. Return the first test that failed, or ``None``."""
    with tempfile.TemporaryDirectory(prefix="client-session-mutant-") as folder:
        copy = Path(folder)
        for name in (*SOURCES, "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            path = copy / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                message = f"{mutant.bug}: the old code occurs {text.count(mutant.old)} times in {mutant.file}, not once"
                raise ValueError(message)
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        first = FIRST_TESTS.get(mutant.module, ()) if mutant is not None else ()
        files = [f"tests/test_{name}.py" for name in (*first, *(name for name in FAST_TESTS if name not in first))]
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
                "-m",
                "not engines",
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
        message = f"{mutant}: pytest failed, but none of the tests did:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return failed[1] if failed else None


def readme(caught: dict[str, str]) -> str:
    """Return the text of tests/README.md."""
    rows = "".join(f"| {bug} | `{test}` |\n" for bug, test in caught.items())
    return f"""# The tests

`make test` runs all of them. For each property, Hypothesis draws 50 examples with the `dev` profile, 200 with `ci` (the
default if `CI` is set), and 5,000 with `nightly` (`HYPOTHESIS_PROFILE=nightly make suite`).

Tests that need Chromium are skipped if it is missing; pytest's summary lists them.

## Mutation testing

`make mutants` introduces these deliberate bugs, one at a time, into a copy of the code, and checks that the fast tests
fail. The table shows each bug and the first test that caught it.

| bug | caught by |
|---|---|
{rows}"""


def main() -> None:
    """Run the tests on the unmodified code, then with each bug."""
    if (failed := run(None)) is not None:
        sys.exit(f"the fast tests fail even without a bug: {failed}")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip((mutant.bug for mutant in MUTANTS), pool.map(run, MUTANTS), strict=True))
    for bug, test in found.items():
        print(f"{'caught' if test else 'NOT CAUGHT'}  {bug}  ({test})")  # noqa: T201  # the program's output
    caught = {bug: test for bug, test in found.items() if test}
    print(f"{len(caught)} of {len(MUTANTS)} bugs caught")  # noqa: T201  # the program's output
    if len(caught) < len(MUTANTS):
        sys.exit(1)
    README.write_text(readme(caught), encoding="utf-8")


if __name__ == "__main__":
    main()
