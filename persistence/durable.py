"""Files that are either wholly old or wholly new, after a crash or a power cut too.

The rules: a full temporary file in the same folder, fsync, replace, fsync of the folder (man 2 rename, man 2 fsync).
After a failed fsync the pages count as clean, so a descriptor is never synced twice: the temporary file is thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700

_MOST_LINKS = 40
"""As Linux has it (man 7 path_resolution)."""

# Not every platform has every flag. O_NONBLOCK keeps a FIFO in the file's place from blocking the open, O_NOFOLLOW
# keeps a planted link from choosing what is opened.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
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
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        data = bytearray()
        while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    return bytes(data), status


def write_durably(path: str, data: bytes, like: os.stat_result | None = None) -> None:
    """Write a file's whole content, by way of ``<name>.tmp``; not yet durable under its name: see `sync_folder`.

    It is private, or else has the mode and, as far as this process may give files away, the owner of ``like``.
    The caller holds the lock that makes it the only writer, so that a ``<name>.tmp`` found there is a dead one's.
    """
    temporary = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, _CREATE, PRIVATE)
    try:
        try:
            _dress(descriptor, like)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def keep_beside(path: str, kept: str, data: bytes, status: os.stat_result) -> None:
    """Let a file also stand under a second name in its folder, replacing what stood there.

    ``data`` and ``status`` are the file's, for file systems without hard links (FAT, some of Android's).
    """
    temporary = _temporary(kept)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.link(path, temporary, follow_symlinks=False)
        os.replace(temporary, kept)
        # Replacing a name by another name of the same file does nothing, and leaves both (man 2 rename).
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    except (OSError, NotImplementedError):
        write_durably(kept, data, status)


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


def make_folder(folder: str, mode: int = PRIVATE_FOLDER) -> list[str]:
    """Make a folder, private, and its parents, as usual.

    Return the folders that are yet to be synced: each new name stands in its own parent (man 2 fsync).
    """
    if os.path.isdir(folder):
        return []
    parent = os.path.dirname(folder)
    unsynced = make_folder(parent, 0o777)
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    return [*unsynced, parent]


def has_leftovers(*paths: str) -> bool:
    """Tell whether a writer of these files is at work, or was killed."""
    return any(os.path.lexists(_temporary(path)) for path in paths)


def remove_leftovers(*paths: str) -> None:
    """Remove the temporary files that a killed writer of these files left. The caller holds the writers' lock."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(_temporary(path))


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


def _temporary(path: str) -> str:
    return path + ".tmp"
