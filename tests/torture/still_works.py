"""What is asked after a fault: does the session still work, and what was opened meanwhile?"""

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
_SILENT = logging.getLogger("torture")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def begin(store: XmlStore) -> ClientSession:
    """Begin a session that nothing ticks, and that logs nothing."""
    return ClientSession(store=store, clock=ManualClock(), scheduler=ManualScheduler(), logger=_SILENT)


def track(session: ClientSession) -> list[str]:
    """Let the session give an event its entity; return what is wrong with it."""
    data = session.get_session_context(uuid.uuid4()).data
    return [error.message for error in _VALIDATOR.iter_errors(data)]


def saved(store: XmlStore) -> Snapshot | None:
    """Return what stands in the file, if that is a save file."""
    with contextlib.suppress(OSError, CorruptSaveFileError):
        return store.load()
    return None


_heard: list[tuple[str, str]] | None = None
_FOREIGN = ("socket", "subprocess", "urllib", "ctypes", "shutil", "tempfile", "os.system", "os.exec", "os.posix_spawn")


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _heard is None:
        return
    if event == "open" or event.startswith(("os.", *_FOREIGN)):
        names = [os.fspath(value) for value in arguments if isinstance(value, str | bytes | os.PathLike)]
        _heard.extend((event, os.fsdecode(name)) for name in names or [""])


@contextlib.contextmanager
def only_its_own(store: XmlStore, losses: list[str], case: str) -> Generator[None]:
    """Add to the losses whatever is opened, linked, made, connected or run meanwhile beyond the store's own names."""
    global _heard  # noqa: PLW0603  # an audit hook can be neither replaced nor removed
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    path = os.fspath(store.path)
    own = {os.path.dirname(path)} | {"", *(path + suffix for suffix in SUFFIXES)}  # noqa: PTH120  # as os tells it
    heard: list[tuple[str, str]] = []
    _heard = heard
    try:
        yield
    finally:
        _heard = None
        losses.extend(
            f"{case}: {event} {name}" for event, name in heard if event.startswith(_FOREIGN) or name not in own
        )


_hooked: list[bool] = []
SUFFIXES = ("", ".bak", ".corrupt", ".lock", ".tmp")
"""What a save file's own names end in."""
