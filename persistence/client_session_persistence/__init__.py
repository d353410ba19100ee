"""What a client session saves, and where: snapshot, XML codec, stores, default path.

Knows nothing of the lifecycle in ``client_session``; it can be used alone to read or write save files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from client_session_persistence.errors import CorruptSaveFileError
from client_session_persistence.snapshot import Snapshot
from client_session_persistence.store import MemoryStore, SnapshotStore

if TYPE_CHECKING:
    from client_session_persistence.codec import dumps, loads
    from client_session_persistence.paths import default_save_path
    from client_session_persistence.xml_store import XmlStore

__all__ = [
    "CorruptSaveFileError",
    "MemoryStore",
    "Snapshot",
    "SnapshotStore",
    "XmlStore",
    "default_save_path",
    "dumps",
    "loads",
]

_MODULES = {"XmlStore": "xml_store", "default_save_path": "paths", "dumps": "codec", "loads": "codec"}


def __getattr__(name: str) -> object:
    """Import what concerns files when it is first asked for: a program may keep its sessions elsewhere."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
