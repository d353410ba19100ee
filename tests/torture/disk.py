"""A disk for simulated power cuts: a file system in an image file, mounted through a loop device.

The image contains all data that the file system has sent to the device, but not the data still cached in memory. A
copy of the image therefore has the contents that the disk would have after a power cut at that moment. Mounting the
copy simulates the next boot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from torture.fault import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IMAGE_BYTES = 8 << 20
_REPAIRED = 1
"""The exit status of e2fsck if it has repaired the file system."""


@attrs.define
class Disk:
    """A mounted disk."""

    root: Path
    """The folder that contains the image and the mount points."""
    options: str
    cuts: int = 0
    """The number of power cuts simulated."""

    @property
    def folder(self) -> Path:
        """The mount point."""
        return self.root / "disk"

    @property
    def image(self) -> Path:
        """The image file behind the loop device."""
        return self.root / "image"

    @contextlib.contextmanager
    def after_power_cut(self, *, checked: bool = False) -> Iterator[Path]:
        """Simulate a power cut: mount a copy of the image. The disk itself stays mounted and unchanged.

        With ``checked``, check and repair the copy's file system first, as systems do when they boot.
        """
        self.cuts += 1
        # Each cut has a file of its own: if another program still had the device of an earlier copy open, mount would
        # use that device again, with its cached data.
        copy, folder = self.root / f"copy-{self.cuts}", self.root / "after"
        shutil.copyfile(self.image, copy)
        if checked:
            _run("e2fsck", "-y", str(copy), allowed_status=_REPAIRED)
        with _mounted(copy, folder, self.options):
            yield folder
        copy.unlink()


@contextlib.contextmanager
def mounted_disk(mkfs_arguments: Sequence[str], options: str) -> Iterator[Disk]:
    """Create and mount a disk; delete it at the end of the block.

    Args:
        mkfs_arguments: extra arguments for ``mkfs.ext4``.
        options: extra options for ``mount``.

    Raises:
        CannotRunError: the user is not root, or ``mkfs.ext4``, ``mount`` or a loop device is missing.

    """
    if os.name != "posix" or os.geteuid() != 0:
        message = "needs root to mount a file system"
        raise CannotRunError(message)
    with tempfile.TemporaryDirectory(prefix="client-session-power-") as folder:
        disk = Disk(Path(folder), options)
        with disk.image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", *mkfs_arguments, str(disk.image))
        with _mounted(disk.image, disk.folder, disk.options):
            yield disk


@contextlib.contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "ext4", "-o", f"loop,{options}", str(image), str(folder))
    try:
        yield
    finally:
        _run("umount", str(folder))  # this also frees the loop device


def _run(*command: str, allowed_status: int = 0) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        message = f"needs the program {command[0]} (apt-get install e2fsprogs mount)"
        raise CannotRunError(message)
    completed = subprocess.run(  # noqa: S603  # a system program and our own paths
        [program, *command[1:]], capture_output=True, text=True, check=False
    )
    if completed.returncode > allowed_status:
        message = (
            f"{' '.join(command[:1])} failed, possibly because no loop device is available: {completed.stderr.strip()}"
        )
        raise CannotRunError(message)
