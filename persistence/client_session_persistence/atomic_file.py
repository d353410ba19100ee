"""Atomic writes: even after a crash or a power failure, a file has either its old contents or its new contents.

The steps: write a temporary file in the same folder, fsync it, rename it, fsync the folder (man 2 rename and fsync).
After a failed fsync, the kernel marks the pages clean, so fsync is not retried; the temporary file is discarded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

from client_session_persistence.contexts import SafeContext, close_all, open_into
from client_session_persistence.deadline import NEVER, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_session_persistence.forks import Lease

Result = TypeVar("Result")

PRIVATE = 0o600
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
"""The errors with which a file system or a sandbox refuses a call that it does not support."""
_NOT_ALLOWED = (AttributeError, OSError)
"""Raised if an owner or a mode cannot be set. Windows lacks these functions."""
_NAME_MAX = 255
"""The longest file name, in bytes, on most file systems. Some encrypted ones allow less."""
_SHORT_NAME = 100
"""Every file system allows file names of this many bytes."""
_RETRY_SECONDS = 0.005
_ON_WINDOWS = os.name == "nt"
_MAX_LINKS = 40
"""The same limit as Linux (man 7 path_resolution)."""

SAFE_FLAGS: int = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""Some platforms lack some of these flags. O_NONBLOCK keeps a FIFO at the path from blocking `os.open`;
O_NOFOLLOW keeps a planted link from redirecting `os.open`."""
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_FLAGS


def path_next_to(path: str, suffix: str) -> str:
    """Return the path of a file that belongs to a save file: ``<path><suffix>``, if the file system allows that name.

    Otherwise, the name consists of the save file's first 20 characters, ``~``, the first 16 digits of the SHA-256 hash
    of the save file's name, and the suffix, so that all processes use the same name.
    """
    folder, name = os.path.split(path)
    encoded = os.fsencode(name)
    size = len(encoded) + len(suffix)
    if size <= _SHORT_NAME or size <= _longest_name(folder):
        return path + suffix
    import hashlib  # noqa: PLC0415  # few names are too long

    return os.path.join(folder, f"{name[:20]}~{hashlib.sha256(encoded).hexdigest()[:16]}{suffix}")


def _longest_name(folder: str) -> int:
    """Return the maximum length of a file name in a folder, which need not exist yet."""
    while True:
        try:
            limit = os.pathconf(folder or ".", "PC_NAME_MAX")
        except FileNotFoundError:
            folder = os.path.dirname(folder)
        except (AttributeError, OSError, ValueError):  # Windows has no pathconf
            return _NAME_MAX
        else:
            return min(limit, _NAME_MAX) if limit > 0 else _NAME_MAX


def follow_links(path: str) -> str:
    """Resolve a path that may be a chain of symbolic links; the file itself need not exist.

    Raise `OSError` if the path cannot be resolved now (permissions, I/O, no current folder, no home folder), the links
    form a loop, or another user may have planted one of them.
    """
    if path.startswith("~"):
        raise FileNotFoundError(errno.ENOENT, "The home folder is unknown; set HOME or use an absolute path", path)
    if not os.path.isabs(path):
        path = os.path.join(os.getcwd(), path)
    is_checked = False
    for _ in range(_MAX_LINKS):
        try:
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            return path
        if not is_checked:  # this also checks the links that follow
            _check_links(path)
            is_checked = True
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


@lru_cache(maxsize=100)
def check_folder(folder: str, device: int, inode: int, user: int) -> None:  # noqa: ARG001  # they identify the result
    """Raise `PermissionError` if another user may have planted a symbolic link on the way to a folder.

    Successes are cached for each folder and user, until the path leads to another folder.
    """
    _check_links(folder)


def _check_links(path: str) -> None:
    """Raise `PermissionError` if another user may have planted a symbolic link on the way to a file, or in its place.

    A link is trusted if it belongs to this user or to root, or if nobody else can write to its folder. Linux applies a
    similar rule to folders such as ``/tmp`` (``protected_symlinks``, man 5 proc).
    """
    if os.name == "nt":  # pragma: no cover - creating a link there requires a privilege
        return
    folder, names, links = "/", path.split("/")[::-1], 0
    while names:
        name = names.pop()
        if name == "..":
            folder = os.path.dirname(folder)
        if name in ("", ".", ".."):
            continue
        current = os.path.join(folder, name)
        try:
            found = os.lstat(current)
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError:  # some sandboxes allow passing through a folder, but not looking at it
            found = None
        if found is None or not stat.S_ISLNK(found.st_mode):
            folder = current
            continue
        if found.st_uid not in (0, os.geteuid()) and _is_writable_by_others(folder):
            message = "This symbolic link belongs to another user and is in a folder that others can write to"
            raise PermissionError(errno.EACCES, message, current)
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(current)
        folder = "/" if target.startswith("/") else folder
        names += target.split("/")[::-1]


def _is_writable_by_others(folder: str) -> bool:
    folder_stat = os.stat(folder)
    return folder_stat.st_uid not in (0, os.geteuid()) or bool(folder_stat.st_mode & 0o022)


def call_patiently(function: Callable[[], Result], *, everywhere: bool = False) -> Result:
    """Call a function that Windows may refuse while another program, such as a virus scanner, has the file open.

    Such a sharing violation (Windows errors 5, 32 and 33, all reported as EACCES) usually ends within milliseconds, so
    retry until the call's deadline (`client_session_persistence.deadline`). On other systems, retry only if
    ``everywhere`` is set, since EACCES usually means that permissions are missing.
    """
    wait = Wait()
    while True:
        try:
            return function()
        except PermissionError as error:
            if error.errno != errno.EACCES or not (_ON_WINDOWS or everywhere) or not wait.seconds_left(NEVER, NEVER):
                raise
        time.sleep(_RETRY_SECONDS)


def opened(path: str, flags: int) -> SafeContext[int]:
    """Return a context manager that opens a file and closes its descriptor."""
    descriptors: list[int] = []

    def enter() -> int:
        call_patiently(lambda: open_into(descriptors, path, flags))
        return descriptors[0]

    return SafeContext(enter, partial(close_all, descriptors))


def read_regular_file(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Return at most ``limit`` bytes of a regular file, and its `os.stat_result`.

    Raise `FileNotFoundError` if the file does not exist, and `OSError` if it cannot be read or is not a regular file
    (for example, a folder, FIFO, device, or symbolic link).
    """
    with opened(path, os.O_RDONLY | SAFE_FLAGS) as descriptor:
        file_stat = os.fstat(descriptor)
        if not stat.S_ISREG(file_stat.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        data = read_at(descriptor, limit, 0)
        while len(data) < min(limit, file_stat.st_size) and (
            chunk := read_at(descriptor, limit - len(data), len(data))
        ):
            data += chunk
    return data, file_stat


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read at an offset. A child forked between two reads at the current offset would share (and move) that offset."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # pragma: no cover - runs on Windows
    return os.read(descriptor, size)  # pragma: no cover - runs on Windows


def write_durably(
    lease: Lease, path: str, temporary: str, content: tuple[bytes, os.stat_result | None], delete: Sequence[str] = ()
) -> None:
    """Replace a file's contents via a temporary file. The rename is not durable until `sync_folder` is called.

    ``content`` is the data and the status of a file whose mode and, if this process may set it, owner the new file
    gets. Without a status, the file is private, and root gives it to the folder's owner. The lease makes the caller the
    only writer, so any temporary file is left over from a writer that was killed.

    The files in ``delete``, which are in the same folder, are deleted in order right before the rename. This is made
    durable first: even after a power failure, none of them exists next to the new contents.
    """
    data, like = content
    _unlink(lease, temporary)
    descriptors: list[int] = []

    def create() -> int:
        # Like `open_into`, but no Python code runs after the lease's check either.
        call_patiently(lambda: lease.call(descriptors.extend, map(os.open, (temporary,), (_CREATE_FLAGS,), (PRIVATE,))))
        return descriptors[0]

    try:
        with SafeContext(create, partial(close_all, descriptors)) as descriptor:
            _set_owner_and_mode(descriptor, like, _folder_owner(path))
            view = memoryview(data)
            while view:
                view = view[lease.call(os.write, descriptor, view) :]
            _sync(descriptor)
        if delete:
            for each in delete:
                _unlink(lease, each)
            sync_folder(os.path.dirname(path))
        _replace(lease, temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            lease.call(os.unlink, temporary)
        raise


def _unlink(lease: Lease, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        call_patiently(lambda: lease.call(os.unlink, path))


def _replace(lease: Lease, source: str, target: str) -> None:
    try:
        call_patiently(lambda: lease.call(os.replace, source, target), everywhere=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        folder = os.path.dirname(target)
        message = f"Cannot replace the file; if it is a mount point, mount its folder ({folder}) instead"
        raise OSError(errno.EBUSY, message, target) from error


def keep_copy(lease: Lease, path: str, copy: str, temporary: str, content: tuple[bytes, os.stat_result]) -> None:
    """Keep a copy of a file under another name in the same folder, replacing any file that has this name.

    ``content`` (the file's data and its `os.stat_result`) is used to write a copy on file systems without hard links
    (FAT, and some on Android) and on systems without `os.link` (Pyodide). The temporary file may remain; the next
    `write_durably` removes it.
    """
    try:
        lease.call(partial(os.link, follow_symlinks=False), path, temporary)
        # If both names already link to the same file, os.replace leaves both in place (man 2 rename).
        _replace(lease, temporary, copy)
    except (AttributeError, NotImplementedError, OSError):
        write_durably(lease, copy, temporary, content)


def sync_folder(folder: str) -> None:
    """Make the file names in a folder durable, if the system supports this.

    Windows neither supports nor needs this: its journal keeps changes in order. Some network and FUSE file systems do
    not support it either, and a folder that this user may write to but not read cannot be opened for it.
    """
    if os.name == "nt":  # pragma: no cover - runs on Windows
        return
    is_open = False
    try:
        with opened(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)) as descriptor:
            is_open = True
            _sync(descriptor, errno.EBADF)  # some systems sync only files that were opened for writing
    except PermissionError:
        if is_open:
            raise


def _sync(descriptor: int, *error_numbers: int) -> None:
    """Make a file durable, unless its file system does not support this."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, *error_numbers):
            raise


def create_folder(folder: str, mode: int = 0o700, *, sync: Callable[[str], object] = sync_folder) -> os.stat_result:
    """Create a private folder, and any missing parents with the default mode; ``sync`` makes their names durable.

    Root gives each new folder to the owner of its parent. Return the folder's `os.stat_result`. Raise
    `PermissionError` if the folder is missing and another user may have planted a link on the way to it.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.stat(folder)
    _check_links(folder)
    parent = os.path.dirname(folder)
    if parent == folder:  # the system does not even report the root
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    create_folder(parent, 0o777, sync=sync)
    try:
        os.mkdir(folder, mode)
        _give_to_owner_of_parent(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync(parent)
    return os.stat(folder)


def _give_to_owner_of_parent(folder: str) -> None:
    with contextlib.suppress(OSError):
        if (owner := _folder_owner(folder)) is None:
            return
        with opened(folder, os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS) as descriptor:
            # The parent's owner may have put another folder of root's in place of the new one. If that folder is
            # empty, there is nothing in it to give away.
            if not os.listdir(descriptor):
                _set_owner(descriptor, owner)


def create_lock_file(descriptors: list[int], path: str, flags: int, guarded: str) -> None:
    """Create a lock file with the owner and mode of the file that it guards, if any, and append its descriptor.

    Users who can write to the folder may share the guarded file, so they may lock it too: unless the folder is sticky,
    its group and other users can read and write the lock file if they can write to the folder.

    Raise `FileExistsError` if the lock file exists.
    """
    folder_stat = os.stat(os.path.dirname(path))
    owner, mode = _folder_owner(path), PRIVATE
    with contextlib.suppress(OSError):
        guarded_stat = os.lstat(guarded)
        if stat.S_ISREG(guarded_stat.st_mode):
            owner = guarded_stat
            mode |= owner.st_mode & 0o666
    writers = 0 if folder_stat.st_mode & stat.S_ISVTX else folder_stat.st_mode & 0o022
    open_into(descriptors, path, flags | os.O_CREAT | os.O_EXCL, mode | writers | writers << 1)
    descriptor = descriptors[-1]
    if owner is not None:
        _set_owner(descriptor, owner)
    with contextlib.suppress(*_NOT_ALLOWED):
        if writers & stat.S_IWGRP:
            os.fchown(descriptor, -1, folder_stat.st_gid)
    with contextlib.suppress(*_NOT_ALLOWED):
        if os.fstat(descriptor).st_gid != folder_stat.st_gid:
            writers &= ~stat.S_IWGRP
        os.fchmod(descriptor, mode | writers | writers << 1)


def _folder_owner(path: str) -> os.stat_result | None:
    """Return the status of a new file's folder if the file should belong to the folder's owner, who is not root.

    Otherwise, a program that first runs as root in a user's home could not save when the user runs it.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    folder_stat = os.stat(os.path.dirname(path))
    return folder_stat if folder_stat.st_uid != 0 else None


def _set_owner(descriptor: int, like: os.stat_result) -> None:
    with contextlib.suppress(*_NOT_ALLOWED):
        os.fchown(descriptor, -1, like.st_gid)
    with contextlib.suppress(*_NOT_ALLOWED):
        os.fchown(descriptor, like.st_uid, -1)


def _set_owner_and_mode(descriptor: int, like: os.stat_result | None, folder_owner: os.stat_result | None) -> None:
    """Set a new file's owner and mode. If that fails (FAT and Windows support neither), the file remains private."""
    if (owner := like or folder_owner) is not None:
        _set_owner(descriptor, owner)
    with contextlib.suppress(*_NOT_ALLOWED):  # a private file needs this too: the umask may remove owner permissions
        os.fchmod(descriptor, PRIVATE if like is None else like.st_mode & 0o777)
