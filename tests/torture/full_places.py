"""Places that cannot be written: full, read-only, limited, somebody else's, vanishing."""

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

from torture.errors import SCENARIOS
from torture.fault import CannotRunError, Fault, Outcome, Scale
from torture.living import Life, make_old
from torture.warm import share_out

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

NOBODY = 65534
_CLONE_NEWNS = 0x20000


@attrs.frozen
class Place:
    """What happens to the save file's folder, for how long a context lasts."""

    name: str
    spoil: Callable[[Path], AbstractContextManager[None]]
    only_running: bool = False
    """It takes the file away, so that there is something to keep for a session alone that is there already."""


# Mounts


@contextlib.contextmanager
def full(folder: Path, leave: int) -> Generator[None]:
    """Fill a file system but for so many pages; the backup is gone too, in whose place a save would find room."""
    for backup in folder.glob("*.bak"):
        backup.unlink()
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017  # no test's error: the loop's end
        file.truncate(file.tell() - leave * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def crowded(folder: Path, leave: int) -> Generator[None]:
    """Use up a file system's names but for so many."""
    made: list[Path] = []
    try:
        while True:
            name = folder.parent / f"filler-{len(made)}"
            name.touch()
            made.append(name)
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017  # no test's error: the loop's end
    for name in made[:leave]:
        name.unlink()
    yield
    for name in made[leave:]:
        name.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Generator[None]:
    """Let a file system be read-only."""
    subprocess.run(["mount", "-o", "remount,ro", folder.parent], check=True)  # noqa: S603, S607  # mount(8)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder.parent], check=True)  # noqa: S603, S607  # mount(8)


MOUNTED = (
    *(Place(f"a disk with {pages} free pages", partial(full, leave=pages)) for pages in range(4)),
    *(Place(f"a disk with {names} free names", partial(crowded, leave=names)) for names in range(4)),
    Place("a read-only disk", read_only),
)


# Limits, permissions, what is no longer there


@contextlib.contextmanager
def limited(_: Path, limit: int, soft: int) -> Generator[None]:
    """Set a resource's limit."""
    before, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft, hard))
    yield
    resource.setrlimit(limit, (before, hard))


@contextlib.contextmanager
def few_descriptors(folder: Path, spare: int) -> Generator[None]:
    """Let no more than so many files be opened."""
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    with limited(folder, resource.RLIMIT_NOFILE, lowest + spare):
        yield


@contextlib.contextmanager
def forbidden(folder: Path, name: str, mode: int) -> Generator[None]:
    """Let a file of the folder, or itself, have a mode that forbids something."""
    path = folder / name
    if not path.exists():
        yield
        return
    before = path.stat().st_mode
    path.chmod(mode)
    yield
    path.chmod(before)


@contextlib.contextmanager
def vanished(folder: Path) -> Generator[None]:
    """Remove the folder with all that is in it."""
    shutil.rmtree(folder)
    yield


@contextlib.contextmanager
def moved_away(folder: Path) -> Generator[None]:
    """Let a file stand in the folder's place."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.touch()
    yield
    folder.unlink()
    aside.rename(folder)


UNPRIVILEGED = (
    *(
        Place(f"a limit of {size} bytes for a file", partial(limited, limit=resource.RLIMIT_FSIZE, soft=size))
        for size in (0, 1, 100, 500, 1000)
    ),
    *(Place(f"{spare} descriptors left", partial(few_descriptors, spare=spare)) for spare in range(3)),
    *(Place(f"a folder of mode {mode:o}", partial(forbidden, name=".", mode=mode)) for mode in (0o555, 0o300, 0)),
    *(
        Place(f"a file of mode {mode:o}", partial(forbidden, name="session.xml", mode=mode))
        for mode in (0o444, 0o200, 0)
    ),
    Place("a lock of mode 0", partial(forbidden, name="session.xml.lock", mode=0)),
    Place("a file in the folder's place", moved_away),
    Place("a folder removed", vanished, only_running=True),
)


# Running them


def live_there(places: tuple[Place, ...], around: Callable[[Path], AbstractContextManager[None]]) -> Outcome:
    """Let sessions live through each place, in a folder made for each."""
    cases, hindered, losses = 0, 0, list[str]()
    for place in places:
        for scenario in SCENARIOS:
            if scenario.linked or scenario.closing or (place.only_running and not scenario.running):
                continue
            cases += 1
            with tempfile.TemporaryDirectory(prefix="client-session-torture-") as made, around(Path(made)):
                folder = Path(made) / "session"
                folder.mkdir()
                life = Life(folder / "session.xml", scenario.running)
                if scenario.old:
                    make_old(life.path)
                life.go_through(place.spoil(folder))
                hindered += any(life.log.lines)
                losses += [f"{place.name}, {scenario.name}: {loss}" for loss in life.losses]
    return Outcome(cases, tuple(losses), f"saving was hindered in {hindered}")


@contextlib.contextmanager
def small_disk(place: Path) -> Generator[None]:
    """Mount a disk of 16 pages and 20 names."""
    options = "size=64k,nr_inodes=20"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)  # noqa: S603, S607  # mount(8)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)  # noqa: S603, S607  # umount(8)


@contextlib.contextmanager
def as_nobody(place: Path) -> Generator[None]:
    """Become somebody whom permissions concern, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(place, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def in_small_disks(share: int, shares: int, scale: Scale) -> Outcome:  # noqa: ARG001  # one share is enough
    """Let sessions live on mounts of this process alone, which end with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        msg = f"needs mounts of its own: {os.strerror(ctypes.get_errno())}"
        raise CannotRunError(msg)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)  # noqa: S607  # mount(8)
    return live_there(MOUNTED, small_disk)


def unprivileged(share: int, shares: int, scale: Scale) -> Outcome:  # noqa: ARG001  # one share is enough
    """Let sessions live where a process is limited."""
    return live_there(UNPRIVILEGED, as_nobody)


def run_small_disks(scale: Scale) -> Outcome:
    """Run them all, at any scale."""
    if sys.platform != "linux" or os.geteuid() != 0:
        msg = "needs Linux and root, to mount small disks (sudo make torture)"
        raise CannotRunError(msg)
    return share_out(in_small_disks, scale, shares=1)


def run_unprivileged(scale: Scale) -> Outcome:
    """Run them all, at any scale."""
    if sys.platform == "win32":
        msg = "needs POSIX permissions and limits"
        raise CannotRunError(msg)
    return share_out(unprivileged, scale, shares=1)


_LOST = "an exception, a user id, a save at the next tick, a temporary file, a failure told of not once"
FAULTS: tuple[Fault, ...] = (
    Fault("a disk that is full, out of names, or read-only, for a while", _LOST, run_small_disks),
    Fault(
        "a folder, file, lock or process that forbids it, or a folder that vanishes, for a while",
        _LOST,
        run_unprivileged,
    ),
)
