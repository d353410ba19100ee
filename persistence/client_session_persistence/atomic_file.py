"""Files that are either wholly old or wholly new, after a crash or a power cut too.

The rules: a full temporary file in the same folder, fsync, replace, fsync of the folder (man 2 rename, man 2 fsync).
After a failed fsync the pages count as clean, so a descriptor is never synced twice: the temporary file is thrown away.
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

    from client_session_persistence.forks import Hold

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700

_MOST_LINKS = 40
"""As Linux has it (man 7 path_resolution)."""

# Not every platform has every flag. O_NONBLOCK keeps a FIFO in the file's place from blocking the open, O_NOFOLLOW
# keeps a planted link from choosing what is opened.
CAREFULLY = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_CREATE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


def follow_links(path: str) -> str:
    """Return the file that is meant by a path, which may be a chain of symbolic links and need not exist.

    Raises:
        OSError: that cannot be told now (permission, I/O error, no current folder), or the links form a loop.

    """
    path = os.path.join(os.getcwd(), path)
    for _ in range(_MOST_LINKS):
        try:
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def read_regular_file(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """Return at most ``most`` bytes of a regular file, and its status.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is no regular file (a folder, FIFO, device, symbolic link).

    """
    descriptor = os.open(path, os.O_RDONLY | CAREFULLY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        data = _read(descriptor, most, 0)
        while len(data) < min(most, status.st_size) and (chunk := _read(descriptor, most - len(data), len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    return data, status


def _read(descriptor: int, most: int, offset: int) -> bytes:
    """Read from an offset that is not shared with a child that is forked meanwhile, and reads too."""
    return os.pread(descriptor, most, offset) if hasattr(os, "pread") else os.read(descriptor, most)


def write_durably(hold: Hold, path: str, temporary: str, data: bytes, like: os.stat_result | None = None) -> None:
    """Write a file's whole content, by way of a temporary one; not yet durable under its name: see `sync_folder`.

    It is private, or else has the mode and, as far as this process may give files away, the owner of ``like``.
    The caller's hold makes it the only writer, so that a temporary file found there is a dead one's.
    """
    with contextlib.suppress(FileNotFoundError):
        hold.do(os.unlink, temporary)
    descriptor = hold.do(os.open, temporary, _CREATE, PRIVATE)
    try:
        try:
            _dress(descriptor, like)
            view = memoryview(data)
            while view:
                view = view[hold.do(os.write, descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        hold.do(os.replace, temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            hold.do(os.unlink, temporary)
        raise


def keep_beside(hold: Hold, path: str, kept: str, temporary: str, read: tuple[bytes, os.stat_result]) -> None:
    """Let a file also stand under a second name in its folder, replacing what stood there.

    ``read`` is what was read of it, for file systems without hard links (FAT, some of Android's). The temporary file
    may be left, for `write_durably` to remove.
    """
    try:
        hold.do(partial(os.link, follow_symlinks=False), path, temporary)
        # Replacing a name by another name of the same file does nothing, and leaves both (man 2 rename).
        hold.do(os.replace, temporary, kept)
    except (OSError, NotImplementedError):
        write_durably(hold, kept, temporary, *read)


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable, where that can be asked for.

    Windows can't, and need not: its journal orders them. Nor can some network and FUSE file systems, which say so by
    EINVAL or ENOTSUP (man 2 fsync).
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: str, mode: int = PRIVATE_FOLDER, *, sync: Callable[[str], object] = sync_folder) -> None:
    """Make a folder, private, and its parents, as usual, durably: each name stands in its own parent (man 2 fsync).

    Another ``sync`` may leave it to somebody else to sync those parents.
    """
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folder(parent, 0o777, sync=sync)
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync(parent)


def _dress(descriptor: int, like: os.stat_result | None) -> None:
    """Set a new file's owner and mode. Where that fails (FAT has neither), it stays as private as it was created."""
    if not hasattr(os, "fchown"):  # Windows
        return
    if like is not None:
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, like.st_gid)
        with contextlib.suppress(OSError):
            os.fchown(descriptor, like.st_uid, -1)
    with contextlib.suppress(OSError):  # also if private: the umask may have taken away more
        os.fchmod(descriptor, PRIVATE if like is None else stat.S_IMODE(like.st_mode))
