"""A disk whose power can fail: a file system in an image file, mounted by a loop device.

What the mounted file system still keeps in memory is not in the image; what it has submitted to the device is. So a
copy of the image is what a power cut at that moment leaves, and mounting the copy is the next start of the machine.
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


@attrs.define
class Disk:
    """A mounted disk, for as long as its context lasts."""

    place: Path
    """The folder that holds image and mount points."""
    options: str
    cuts: int = 0
    """How often the power has failed."""

    @property
    def folder(self) -> Path:
        """Where it is mounted."""
        return self.place / "disk"

    @property
    def image(self) -> Path:
        """The file that is the device."""
        return self.place / "image"

    @contextlib.contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """Let the power fail now, and start again: return where it is mounted then. The old one stays as it is."""
        self.cuts += 1
        copy, folder = self.place / "copy", self.place / "after"
        shutil.copyfile(self.image, copy)
        with _mounted(copy, folder, self.options):
            yield folder


@contextlib.contextmanager
def a_disk(make: Sequence[str], options: str) -> Iterator[Disk]:
    """Make a disk and mount it; everything is gone afterwards.

    Args:
        make: more arguments of ``mkfs.ext4``.
        options: more options of ``mount``.

    Raises:
        CannotRunError: not root, or ``mkfs.ext4``, ``mount`` or a loop device is missing.

    """
    if os.name != "posix" or os.geteuid() != 0:
        message = "needs root, to mount a file system of its own"
        raise CannotRunError(message)
    with tempfile.TemporaryDirectory(prefix="client-session-power-") as folder:
        disk = Disk(Path(folder), options)
        with disk.image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", *make, str(disk.image))
        with _mounted(disk.image, disk.folder, disk.options):
            yield disk


@contextlib.contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "ext4", "-o", f"loop,{options}", str(image), str(folder))
    try:
        yield
    finally:
        _run("umount", str(folder))  # which frees the loop device too


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        message = f"needs the program {command[0]} (apt-get install e2fsprogs mount)"
        raise CannotRunError(message)
    done = subprocess.run(  # noqa: S603  # a system program, and paths of our own
        [program, *command[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = f"{' '.join(command[:1])} failed, perhaps for want of a loop device: {done.stderr.strip()}"
        raise CannotRunError(message)
