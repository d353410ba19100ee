"""Checks made after a fault: whether the session still works, and which files and programs it accessed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from jsonschema import Draft4Validator, FormatChecker

from client_session import ClientSession
from client_session.testing import ManualClock, ManualScheduler
from client_session_persistence import CorruptSaveFileError

if TYPE_CHECKING:
    from collections.abc import Generator

    from client_session_persistence import Snapshot, XmlStore

_SCHEMA = Path(__file__).parents[1] / "data" / "iglu" / "client_session-1-0-2.json"
_VALIDATOR = Draft4Validator(json.loads(_SCHEMA.read_text(encoding="utf-8")), format_checker=FormatChecker())
_SILENT_LOGGER = logging.getLogger("torture")
_SILENT_LOGGER.addHandler(logging.NullHandler())
_SILENT_LOGGER.propagate = False


def open_session(store: XmlStore) -> ClientSession:
    """Open a session that logs nothing and is ticked only by the caller."""
    return ClientSession(store=store, clock=ManualClock(), scheduler=ManualScheduler(), logger=_SILENT_LOGGER)


def track_event(session: ClientSession) -> list[str]:
    """Track an event, and return the schema errors of its entity."""
    data = session.get_session_context(uuid.uuid4()).data
    return [error.message for error in _VALIDATOR.iter_errors(data)]


def load_if_valid(store: XmlStore) -> Snapshot | None:
    """Return the snapshot in the file, or ``None`` if the file is unreadable or not a save file."""
    with contextlib.suppress(OSError, CorruptSaveFileError):
        return store.load()
    return None


_audit_records: list[tuple[str, str]] | None = None
_FORBIDDEN_EVENTS = (
    "socket",
    "subprocess",
    "urllib",
    "ctypes",
    "shutil",
    "tempfile",
    "os.system",
    "os.exec",
    "os.posix_spawn",
)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _audit_records is None:
        return
    if event == "open" or event.startswith(("os.", *_FORBIDDEN_EVENTS)):
        names = [os.fspath(value) for value in arguments if isinstance(value, str | bytes | os.PathLike)]
        _audit_records.extend((event, os.fsdecode(name)) for name in names or [""])


@contextlib.contextmanager
def check_file_access(store: XmlStore, losses: list[str], case: str) -> Generator[None]:
    """Record each audit event that is forbidden, or that names a file the store does not own, as a loss."""
    global _audit_records  # noqa: PLW0603  # an audit hook can be neither replaced nor removed
    if not _added_hooks:
        sys.addaudithook(_audit)
        _added_hooks.append(True)
    path = os.fspath(store.path)
    own_paths = {os.path.dirname(path)} | {"", *(path + suffix for suffix in SUFFIXES)}  # noqa: PTH120  # a str, as in audit events
    audit_records: list[tuple[str, str]] = []
    _audit_records = audit_records
    try:
        yield
    finally:
        _audit_records = None
        losses.extend(
            f"{case}: {event} {name}"
            for event, name in audit_records
            if event.startswith(_FORBIDDEN_EVENTS) or name not in own_paths
        )


_added_hooks: list[bool] = []
SUFFIXES = ("", ".bak", ".corrupt", ".lock", ".tmp")
"""Suffixes of the save file and of the files that a store creates next to it."""
