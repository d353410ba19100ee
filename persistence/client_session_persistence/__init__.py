"""Persistence for client sessions: the snapshot, the XML codec, stores, the default path, and visitors' states.

This package does not depend on ``client_session``, so it can be used on its own to read and write save files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client_session_persistence.snapshot import CorruptSaveFileError, Snapshot, StoreError
from client_session_persistence.store import MemoryStore, Owner, SnapshotStore

if TYPE_CHECKING:
    from client_session_persistence.codec import dumps, loads
    from client_session_persistence.paths import default_save_path
    from client_session_persistence.postgres_states import PostgresStates
    from client_session_persistence.redis_states import RedisStates
    from client_session_persistence.sqlite_states import SqliteStates
    from client_session_persistence.sqlite_store import SqliteStore
    from client_session_persistence.states import (
        AsyncClient,
        AsyncStateStore,
        MemoryStates,
        ReadResult,
        StateStore,
        SwapResult,
        SyncClient,
    )
    from client_session_persistence.xml_store import XmlStore

__all__ = [
    "AsyncClient", "AsyncStateStore", "CorruptSaveFileError", "MemoryStates", "MemoryStore", "Owner", "PostgresStates",
    "ReadResult", "RedisStates", "Snapshot", "SnapshotStore", "SqliteStates", "SqliteStore", "StateStore",
    "StoreError", "SwapResult", "SyncClient", "XmlStore", "default_save_path", "dumps", "loads",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import most of the code on first use: no program needs all stores."""
    # The imports are written out, because freezers such as Nuitka and PyInstaller do not find computed names.
    value: object
    if name == "XmlStore":
        from client_session_persistence import xml_store  # noqa: PLC0415

        value = xml_store.XmlStore
    elif name == "SqliteStore":
        from client_session_persistence import sqlite_store  # noqa: PLC0415

        value = sqlite_store.SqliteStore
    elif name == "default_save_path":
        from client_session_persistence import paths  # noqa: PLC0415

        value = paths.default_save_path
    elif name in {"dumps", "loads"}:
        from client_session_persistence import codec  # noqa: PLC0415

        value = codec.dumps if name == "dumps" else codec.loads
    elif name == "SqliteStates":
        from client_session_persistence import sqlite_states  # noqa: PLC0415

        value = sqlite_states.SqliteStates
    elif name == "RedisStates":
        from client_session_persistence import redis_states  # noqa: PLC0415

        value = redis_states.RedisStates
    elif name == "PostgresStates":
        from client_session_persistence import postgres_states  # noqa: PLC0415

        value = postgres_states.PostgresStates
    elif name in __all__:
        from client_session_persistence import states  # noqa: PLC0415

        value = getattr(states, name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value
