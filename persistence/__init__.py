"""What a client session saves, and where: snapshot, XML codec, stores, default path.

Knows nothing of the lifecycle in ``fsm``; it can be used alone to read or write save files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from persistence.errors import CorruptSaveFileError
from persistence.snapshot import Snapshot
from persistence.store import MemoryStore, SnapshotStore

if TYPE_CHECKING:
    from persistence.codec import dumps, loads
    from persistence.locations import default_save_path
    from persistence.xml_store import XmlStore

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

_MODULES = {"XmlStore": "xml_store", "default_save_path": "locations", "dumps": "codec", "loads": "codec"}


def __getattr__(name: str) -> object:
    """Import what concerns files when it is first asked for: a program may keep its sessions elsewhere."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
