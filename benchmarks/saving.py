"""Compares `save()` with a bare durable write of the same bytes, and both stores with each other.

Both alternate on the same file system.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.parsing import FOLDER, create_save_file
from benchmarks.results import Bar, Row
from client_session import ClientSession, SqliteStore, XmlStore
from client_session.testing import ManualScheduler

PAIRS = 1_000
_WARM_UP = 20
_GROUPS = 10
"""The number of groups into which the pairs are split. The groups' medians show how noisy the disk was."""


def measure() -> list[Row]:
    """Alternate between saves and bare writes, and compare them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as folder:
        saves, writes = time_pairs(Path(folder), PAIRS + _WARM_UP)
        in_database, in_file = time_stores(Path(folder), PAIRS + _WARM_UP)
    size = PAIRS // _GROUPS
    groups = [slice(begin, begin + size) for begin in range(_WARM_UP, _WARM_UP + PAIRS, size)]
    return [
        Row.of_rounds(
            "save(), p50",
            [_median(saves[group]) for group in groups],
            [_median(writes[group]) for group in groups],
            against="write, fsync, replace, fsync",
            unit="ms",
            bar=Bar(1.4),
        ),
        Row.of_rounds(
            "save() with SqliteStore, p50",
            [_median(in_database[group]) for group in groups],
            [_median(in_file[group]) for group in groups],
            against="save() with XmlStore",
            unit="ms",
            bar=Bar(0.5),
        ),
    ]


def time_pairs(folder: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds taken by each `save()` of a new event and by each bare write."""
    path, bare_path = create_save_file("save", folder), create_save_file("bare", folder)
    saves: list[float] = []
    writes: list[float] = []
    with ClientSession(path, scheduler=ManualScheduler()) as session:
        for _ in range(pairs):
            session.get_session_context(uuid.uuid4())
            begin = time.perf_counter()
            session.save()
            middle = time.perf_counter()
            data = path.read_bytes()
            start = time.perf_counter()
            write_bare(bare_path, data)
            writes.append((time.perf_counter() - start) * 1e3)
            saves.append((middle - begin) * 1e3)
    return saves, writes


def time_stores(folder: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds taken by each `save()` of a new event in a database, and in a save file."""
    stores = SqliteStore(folder / "sessions.db"), XmlStore(folder / "session.xml")
    durations: tuple[list[float], list[float]] = [], []
    sessions = [ClientSession(store=store, scheduler=ManualScheduler()) for store in stores]
    for _ in range(pairs):
        for session, milliseconds in zip(sessions, durations, strict=True):
            session.get_session_context(uuid.uuid4())
            begin = time.perf_counter()
            session.save()
            milliseconds.append((time.perf_counter() - begin) * 1e3)
    for session in sessions:
        session.close()
    return durations


def write_bare(path: Path, data: bytes) -> None:
    """Replace a file durably: write, fsync, replace, and fsync the folder."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105  # constructing a Path takes extra time
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
