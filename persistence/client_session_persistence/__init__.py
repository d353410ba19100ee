"""Persistence for client sessions: the snapshot, the XML codec, stores, and the default path.

This package does not depend on ``client_session``, so it can be used on its own to read and write save files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from client_session_persistence.snapshot import CorruptSaveFileError, Snapshot
from client_session_persistence.store import MemoryStore, Owner, SnapshotStore

if TYPE_CHECKING:
    from client_session_persistence.codec import dumps, loads
    from client_session_persistence.paths import default_save_path
    from client_session_persistence.xml_store import XmlStore

__all__ = [
    "CorruptSaveFileError", "MemoryStore", "Owner", "Snapshot", "SnapshotStore", "XmlStore", "default_save_path",
    "dumps", "loads",
]  # fmt: skip

_MODULES = {"XmlStore": "xml_store", "default_save_path": "paths", "dumps": "codec", "loads": "codec"}


def __getattr__(name: str) -> object:
    """Import the file-related code on first use: programs that use other stores do not need it."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
