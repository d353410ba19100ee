"""Files that are either wholly old or wholly new, after a crash or a power cut too.

The rules: a full temporary file in the same folder, fsync, replace, fsync of the folder (man 2 rename, man 2 fsync).
After a failed fsync the pages count as clean, so a descriptor is never synced twice: the temporary file is thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = 0o600

# Not every platform has every flag; O_NONBLOCK keeps a FIFO in the file's place from blocking the open.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_regular_file(path: Path, most: int) -> tuple[bytes, int]:
    """Return at most ``most`` bytes of a regular file, and its permission bits.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is no regular file (a folder, FIFO, device).

    """
    descriptor = os.open(path, _READ)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
        data = bytearray()
        while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    return bytes(data), stat.S_IMODE(mode)


def write_durably(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a file's whole content, by way of ``<name>.tmp``; not yet durable under its name: see `sync_folder`.

    The caller holds the lock that makes it the only writer, so that a ``<name>.tmp`` found there is a dead one's.
    """
    temporary = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, _CREATE, PRIVATE)
    try:
        try:
            if mode != PRIVATE:
                os.chmod(temporary, mode)  # noqa: PTH101  # beside its os.open
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def keep_beside(path: Path, kept: Path, data: bytes) -> None:
    """Let a file also stand under a second name in its folder, replacing what stood there.

    ``data`` is the file's content, for file systems without hard links (FAT, some of Android's).
    """
    temporary = _temporary(kept)
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        os.link(path, temporary, follow_symlinks=False)
        temporary.replace(kept)
        # Replacing a name by another name of the same file does nothing, and leaves both (man 2 rename).
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    except (OSError, NotImplementedError):
        write_durably(kept, data)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Windows can't, and need not: its journal orders them.

    Nor can some network and virtual file systems: EINVAL and EBADF tell of that, and not of a failure.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably: the name of each stands in its own parent (man 2 fsync)."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def has_leftovers(*paths: Path) -> bool:
    """Tell whether a temporary file of these files is there: a killed writer's, or that of one who is at work."""
    return any(os.path.lexists(_temporary(path)) for path in paths)


def remove_leftovers(*paths: Path) -> None:
    """Remove the temporary files that a killed writer of these files left. The caller holds the writers' lock."""
    for path in paths:
        with contextlib.suppress(OSError):
            _temporary(path).unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
