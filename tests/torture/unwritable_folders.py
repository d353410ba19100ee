"""Make the save file's folder unwritable: full or read-only disks, resource limits, permissions, deleted folders."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from torture.failing_system_calls import SCENARIOS
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.survivor import Survivor, create_old_file
from torture.worker_pool import run_in_workers

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

NOBODY = 65534
_CLONE_NEWNS = 0x20000


@attrs.frozen
class Obstacle:
    """A temporary condition that prevents saving."""

    name: str
    apply: Callable[[Path], AbstractContextManager[None]]
    requires_running: bool = False
    """Whether the obstacle deletes the file, which leaves the data only in a running session."""


# Mounts


@contextlib.contextmanager
def full_disk(folder: Path, spare: int) -> Generator[None]:
    """Use up all but ``spare`` pages of a file system, and delete the backup, since a save could reuse its space."""
    for backup in folder.glob("*.bak"):
        backup.unlink()
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017  # ends the loop
        file.truncate(file.tell() - spare * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def out_of_inodes(folder: Path, spare: int) -> Generator[None]:
    """Use up all but ``spare`` inodes of a file system."""
    fillers: list[Path] = []
    try:
        while True:
            filler = folder.parent / f"filler-{len(fillers)}"
            filler.touch()
            fillers.append(filler)
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017  # ends the loop
    for filler in fillers[:spare]:
        filler.unlink()
    yield
    for filler in fillers[spare:]:
        filler.unlink()


@contextlib.contextmanager
def read_only_disk(folder: Path) -> Generator[None]:
    """Remount a file system read-only."""
    subprocess.run(["mount", "-o", "remount,ro", folder.parent], check=True)  # noqa: S603, S607  # mount(8)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder.parent], check=True)  # noqa: S603, S607  # mount(8)


MOUNTED = (
    *(Obstacle(f"a disk with {pages} free pages", partial(full_disk, spare=pages)) for pages in range(4)),
    *(Obstacle(f"a disk with {inodes} free inodes", partial(out_of_inodes, spare=inodes)) for inodes in range(4)),
    Obstacle("a read-only disk", read_only_disk),
)


# Limits, permissions and deleted folders


@contextlib.contextmanager
def resource_limit(_: Path, limit: int, soft: int) -> Generator[None]:
    """Set a resource limit."""
    before, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft, hard))
    yield
    resource.setrlimit(limit, (before, hard))


@contextlib.contextmanager
def few_descriptors(folder: Path, spare: int) -> Generator[None]:
    """Allow the process to open only ``spare`` more files."""
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    with resource_limit(folder, resource.RLIMIT_NOFILE, lowest + spare):
        yield


@contextlib.contextmanager
def restrictive_mode(folder: Path, name: str, mode: int) -> Generator[None]:
    """Set a restrictive mode on the folder or a file in it."""
    path = folder / name
    if not path.exists():
        yield
        return
    before = path.stat().st_mode
    path.chmod(mode)
    yield
    path.chmod(before)


@contextlib.contextmanager
def deleted_folder(folder: Path) -> Generator[None]:
    """Delete the folder and its contents."""
    shutil.rmtree(folder)
    yield


@contextlib.contextmanager
def folder_replaced_by_file(folder: Path) -> Generator[None]:
    """Replace the folder with a file."""
    moved_folder = folder.with_name("moved")
    folder.rename(moved_folder)
    folder.touch()
    yield
    folder.unlink()
    moved_folder.rename(folder)


UNPRIVILEGED = (
    *(
        Obstacle(f"a file size limit of {size} bytes", partial(resource_limit, limit=resource.RLIMIT_FSIZE, soft=size))
        for size in (0, 1, 100, 500, 1000)
    ),
    *(Obstacle(f"{spare} descriptors left", partial(few_descriptors, spare=spare)) for spare in range(3)),
    *(
        Obstacle(f"a folder with mode {mode:o}", partial(restrictive_mode, name=".", mode=mode))
        for mode in (0o555, 0o300, 0)
    ),
    *(
        Obstacle(f"a file with mode {mode:o}", partial(restrictive_mode, name="session.xml", mode=mode))
        for mode in (0o444, 0o200, 0)
    ),
    Obstacle("a lock file with mode 0", partial(restrictive_mode, name="session.xml.lock", mode=0)),
    Obstacle("a file in place of the folder", folder_replaced_by_file),
    Obstacle("a deleted folder", deleted_folder, requires_running=True),
)


# Running sessions


def run_survivors(obstacles: tuple[Obstacle, ...], setting: Callable[[Path], AbstractContextManager[None]]) -> Outcome:
    """Expose sessions to each obstacle, using a new folder that ``setting`` prepares for each."""
    cases, failed, losses = 0, 0, list[str]()
    for obstacle in obstacles:
        for scenario in SCENARIOS:
            if scenario.linked or scenario.closing or (obstacle.requires_running and not scenario.running):
                continue
            cases += 1
            with tempfile.TemporaryDirectory(prefix="client-session-torture-") as name, setting(Path(name)):
                folder = Path(name) / "session"
                folder.mkdir()
                survivor = Survivor(folder / "session.xml", scenario.running)
                if scenario.has_file:
                    create_old_file(survivor.path)
                survivor.run_through(obstacle.apply(folder))
                failed += any(survivor.log.lines)
                losses += [f"{obstacle.name}, {scenario.name}: {loss}" for loss in survivor.losses]
    return Outcome(cases, tuple(losses), f"saving failed in {failed} cases")


@contextlib.contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Mount a disk with 16 pages and 20 inodes."""
    options = "size=64k,nr_inodes=20"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)  # noqa: S603, S607  # mount(8)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S603, S607  # umount(8)


@contextlib.contextmanager
def running_as_nobody(folder: Path) -> Generator[None]:
    """Switch from root to the user nobody, since permissions do not restrict root."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _run_mounted(shard: int, shards: int, scale: Scale) -> Outcome:  # noqa: ARG001  # one shard is enough
    """Run sessions on disks in a private mount namespace, which ends with this process."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        msg = f"needs a private mount namespace: {os.strerror(ctypes.get_errno())}"
        raise CannotRunError(msg)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)  # noqa: S607  # mount(8)
    return run_survivors(MOUNTED, small_disk)


def _run_unprivileged(shard: int, shards: int, scale: Scale) -> Outcome:  # noqa: ARG001  # one shard is enough
    """Run sessions as an unprivileged user."""
    return run_survivors(UNPRIVILEGED, running_as_nobody)


def run_disk_cases(scale: Scale) -> Outcome:
    """Run all disk cases, regardless of the scale."""
    if sys.platform != "linux" or os.geteuid() != 0:
        msg = "needs Linux and root to mount small disks (sudo make torture)"
        raise CannotRunError(msg)
    return run_in_workers(_run_mounted, scale, shards=1)


def run_restricted_cases(scale: Scale) -> Outcome:
    """Run all limit and permission cases, regardless of the scale."""
    if sys.platform == "win32":
        msg = "needs POSIX permissions and limits"
        raise CannotRunError(msg)
    return run_in_workers(_run_unprivileged, scale, shards=1)


_LOSS = (
    "a call raises, the user id is lost, the next tick does not save, a temporary file remains, or a failure is not "
    "logged exactly once"
)
FAULTS: tuple[Fault, ...] = (
    Fault("a disk is temporarily full, out of inodes, or read-only", _LOSS, run_disk_cases),
    Fault(
        "permissions, resource limits, or a replaced or deleted folder temporarily prevent saving",
        _LOSS,
        run_restricted_cases,
    ),
)
