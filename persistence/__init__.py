"""What a client session saves, and where: snapshot, XML codec, stores, default path.

Knows nothing of the lifecycle in ``fsm``; it can be used alone to read or write save files.
"""

from persistence.codec import dumps, loads
from persistence.errors import CorruptSaveFileError
from persistence.locations import default_save_path
from persistence.snapshot import Snapshot
from persistence.store import MemoryStore, SnapshotStore
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
