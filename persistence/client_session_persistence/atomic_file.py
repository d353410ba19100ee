"""Atomic writes: even after a crash or a power failure, a file has either its old contents or its new contents.

The steps: write a temporary file in the same folder, fsync it, rename it, fsync the folder (man 2 rename and fsync).
After a failed fsync, the kernel marks the pages clean, so fsync is not retried; the temporary file is discarded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_session_persistence.forks import Lease

PRIVATE = 0o600
_MAX_LINKS = 40
"""The same limit as Linux (man 7 path_resolution)."""

SAFE_FLAGS: int = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""Some platforms lack some of these flags. O_NONBLOCK keeps a FIFO at the path from blocking `os.open`;
O_NOFOLLOW keeps a planted link from redirecting `os.open`."""
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_FLAGS


def follow_links(path: str) -> str:
    """Resolve a path that may be a chain of symbolic links; the file itself need not exist.

    Raise `OSError` if the path cannot be resolved now (permissions, I/O, no current folder) or the links form a loop.
    """
    path = os.path.join(os.getcwd(), path)
    for _ in range(_MAX_LINKS):
        try:
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def read_regular_file(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return at most ``limit`` bytes of a regular file, and its `os.stat_result`.

    Raise `FileNotFoundError` if the file does not exist, and `OSError` if it cannot be read or is not a regular file
    (for example, a folder, FIFO, device, or symbolic link).
    """
    descriptor = os.open(path, os.O_RDONLY | SAFE_FLAGS)
    try:
        file_stat = os.fstat(descriptor)
        if not stat.S_ISREG(file_stat.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        data = _read(descriptor, limit, 0)
        while len(data) < min(limit, file_stat.st_size) and (chunk := _read(descriptor, limit - len(data), len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    return data, file_stat


def _read(descriptor: int, limit: int, offset: int) -> bytes:
    # Read at an explicit offset: a child forked between two reads would share (and move) the descriptor's offset.
    return os.pread(descriptor, limit, offset) if hasattr(os, "pread") else os.read(descriptor, limit)


def write_durably(lease: Lease, path: str, temporary: str, data: bytes, like: os.stat_result | None = None) -> None:
    """Replace a file's contents via a temporary file. The rename is not durable until `sync_folder` is called.

    Without ``like``, the file is private; otherwise, it gets the mode of ``like`` and, if this process may set it, the
    owner. The lease makes the caller the only writer, so any temporary file is left over from a writer that was killed.
    """
    with contextlib.suppress(FileNotFoundError):
        lease.call(os.unlink, temporary)
    descriptor = lease.call(os.open, temporary, _CREATE_FLAGS, PRIVATE)
    try:
        try:
            _set_owner_and_mode(descriptor, like)
            view = memoryview(data)
            while view:
                view = view[lease.call(os.write, descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        lease.call(os.replace, temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            lease.call(os.unlink, temporary)
        raise


def keep_copy(lease: Lease, path: str, copy: str, temporary: str, content: tuple[bytes, os.stat_result]) -> None:
    """Keep a copy of a file under another name in the same folder, replacing any file that has this name.

    ``content`` (the file's data and its `os.stat_result`) is used to write a copy on file systems without hard links
    (FAT, and some on Android). The temporary file may remain; the next `write_durably` removes it.
    """
    try:
        lease.call(partial(os.link, follow_symlinks=False), path, temporary)
        # If both names already link to the same file, os.replace leaves both in place (man 2 rename).
        lease.call(os.replace, temporary, copy)
    except (OSError, NotImplementedError):
        write_durably(lease, copy, temporary, *content)


def sync_folder(folder: str) -> None:
    """Make the file names in a folder durable, on systems that support this.

    Windows neither supports nor needs this: its journal keeps changes in order. Some network and FUSE file systems do
    not support it either, and return EINVAL or ENOTSUP (man 2 fsync).
    """
    if os.name == "nt":  # pragma: no cover - runs on Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def create_folder(folder: str, mode: int = 0o700, *, sync: Callable[[str], object] = sync_folder) -> None:
    """Create a private folder, and any missing parents with the default mode; ``sync`` makes their names durable."""
    parent = os.path.dirname(folder)
    if parent == folder or os.path.isdir(folder):  # if the system can report nothing, not even the root is a folder
        return
    create_folder(parent, 0o777, sync=sync)
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync(parent)


def _set_owner_and_mode(descriptor: int, like: os.stat_result | None) -> None:
    """Set a new file's owner and mode. If that fails (FAT supports neither), the file remains private."""
    if not hasattr(os, "fchown"):  # pragma: no cover - runs on Windows
        return
    if like is not None:
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, like.st_gid)
        with contextlib.suppress(OSError):
            os.fchown(descriptor, like.st_uid, -1)
    with contextlib.suppress(OSError):  # needed even for a private file: the umask may have removed owner permissions
        os.fchmod(descriptor, PRIVATE if like is None else stat.S_IMODE(like.st_mode))
