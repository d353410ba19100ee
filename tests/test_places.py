"""Places: file systems that refuse some steps, long names, shared folders, planted links, mount points, sandboxes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_session import ClientSession
from client_session.testing import ManualScheduler
from client_session_persistence import CorruptSaveFileError, Snapshot, XmlStore, atomic_file, dumps, loads, lock_file
from client_session_persistence.deadline import within_deadline
from event_ids import event_id
from torture.worker_pool import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD = Snapshot(user_id=event_id(7), session_id=event_id(1), session_index=1)
NEW = Snapshot(user_id=event_id(7), session_id=event_id(2), session_index=2)
OTHER = 54321
"""A user other than root and the user that runs the tests."""

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and links")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to switch users and change owners"
)

RUN_AS = """
import os, sys, uuid
from client_session import ClientSession, XmlStore  # imported now, while the modules are readable
os.umask(int(sys.argv[2], 8)); os.setgroups([]); os.setgid(int(sys.argv[4])); os.setuid(int(sys.argv[3]))
with ClientSession(sys.argv[1]) as session:
    event = session.get_session_context(uuid.uuid4())
print(event.user_id, event.session_index, session.save_error)
"""


def run_as(path: Path, uid: int, gid: int | None = None, umask: int = 0o022) -> list[str]:
    """Run a session as another user; return its user id, its index, and its save error."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", RUN_AS, path, f"{umask:o}", str(uid), str(uid if gid is None else gid)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.rstrip("\n").split(maxsplit=2)


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Let the system check this user's permissions instead of root's."""
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries."""
    return sorted(path.name for path in folder.iterdir())


def modes_in(folder: Path) -> dict[str, str]:
    """Return the mode of each file in a folder."""
    return {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in folder.iterdir()}


# Steps that a file system refuses


def refuse(code: int) -> Callable[..., Any]:
    """Return a function that raises this error."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


UNSUPPORTED = [errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM]


@posix
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("step", ["flock", "link", "fsync", "fchown", "fchmod"])
@pytest.mark.parametrize("code", UNSUPPORTED, ids=errno.errorcode.get)
def test_refused_step_is_done_without(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str, *, background: bool
) -> None:
    """Locks, hard links, fsync, owners and modes are not needed: without them, sessions still follow one another."""
    if step == "flock":
        monkeypatch.setattr(lock_file, "lock_descriptor", refuse(code))
        monkeypatch.setattr(lock_file, "unlock_descriptor", refuse(code))
    else:
        monkeypatch.setattr(os, step, refuse(code))
    contexts, store = [], XmlStore(save_path, background=background)
    for _ in range(3):
        with ClientSession(store=store, scheduler=ManualScheduler()) as session:
            contexts.append(session.get_session_context(uuid.uuid4()))
        store.flush()
        assert session.save_error is None
    assert [context.session_index for context in contexts] == [1, 2, 3]
    assert len({context.user_id for context in contexts}) == 1
    assert loads(save_path.with_name("session.xml.bak").read_bytes()).user_id == contexts[0].user_id


@pytest.mark.parametrize("name", ["link", "fchmod", "fchown", "pread"])
def test_missing_function_is_done_without(save_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Some platforms lack some functions of `os`: Pyodide has no `os.link`, and Windows has none of these."""
    monkeypatch.delattr(os, name, raising=False)
    store = XmlStore(save_path)
    store.save(OLD)
    store.save(NEW)
    assert store.load() == NEW
    assert loads(store.backup_path.read_bytes()) == OLD


@needs_root
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_second_run_without_locks_has_the_same_user(save_path: Path, error: str) -> None:
    """If the kernel refuses flock (as NFS does without a lock daemon), the next run continues the last one."""
    program = [sys.executable, "-c", RUN_AS, str(save_path), "022", "0", "0"]
    trace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:error={error}"]

    def run() -> list[str]:
        output = subprocess.check_output([*trace, *program], env=environment(), text=True)  # noqa: S603  # strace
        return output.split()

    first, second = run(), run()
    assert (first[1:], second) == (["1", "None"], [first[0], "2", "None"])


@needs_root
def test_folder_that_can_be_written_but_not_read(open_folder: Path) -> None:
    """A folder with mode 0300 cannot be opened, and so not synced, but files in it can be saved."""
    folder = open_folder / "drop"
    folder.mkdir()
    os.chown(folder, OTHER, OTHER)
    folder.chmod(0o300)
    first, second = run_as(folder / "session.xml", OTHER), run_as(folder / "session.xml", OTHER)
    assert (first[1:], second) == (["1", "None"], [first[0], "2", "None"])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_failing_disk_is_not_an_unsupported_one(save_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An fsync that fails, rather than being refused, is reported by save()."""
    monkeypatch.setattr(os, "fsync", refuse(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        XmlStore(save_path).save(NEW)


# Names


@posix
@pytest.mark.parametrize("character", ["x", "é", "漢", "\udce9"])
@pytest.mark.parametrize("spare", [0, 1, 3, 4, 5, 7, 8, 9])
def test_name_of_any_allowed_length_can_be_saved(tmp_path: Path, character: str, spare: int) -> None:
    """The names of the files next to the save file are shortened if they would exceed the system's limit."""
    limit, size = os.pathconf(tmp_path, "PC_NAME_MAX") - spare, len(os.fsencode(character))
    folder = tmp_path / "new"
    names = [
        "a" * (limit % size) + character * (limit // size),
        "b" * (limit % size + size) + character * (limit // size - 1),
    ]
    for name in names:
        XmlStore(folder / name).save(OLD)
        XmlStore(folder / name).save(NEW)
        (folder / name).write_bytes(b"corrupt")
        store = XmlStore(folder / name)
        with pytest.raises(CorruptSaveFileError) as caught:
            store.load()
        assert caught.value.recovered == OLD
        store.save(NEW)
        assert store.load() == NEW
        assert store.backup_path.exists()
        assert store.corrupt_path.read_bytes() == b"corrupt"
        assert store.backup_path.name == name + ".bak" or spare < 4
    assert len(list(folder.iterdir())) == 8  # two stores, each with a save file, backup, lock and corrupt file


def test_short_names_are_not_changed(tmp_path: Path) -> None:
    """The files next to a save file have its name and a suffix, if the file system allows that name."""
    for name in ("session.xml", "x" * 240):
        store = XmlStore(tmp_path / name)
        assert (store.backup_path.name, store.corrupt_path.name) == (name + ".bak", name + ".corrupt")


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins with ~ is in the user's home folder, for a store and for a session."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    XmlStore("~/a/session.xml").save(NEW)
    with ClientSession(Path("~", "b", "session.xml"), scheduler=ManualScheduler()) as session:
        session.get_session_context(uuid.uuid4())
    assert XmlStore(tmp_path / "a" / "session.xml").load() == NEW
    assert XmlStore(tmp_path / "b" / "session.xml").load() is not None
    assert not (tmp_path / "~").exists()
    with pytest.raises(ValueError, match="save_path must be the path of a file, not a folder"):
        ClientSession("~")


def test_unknown_home_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ~ cannot be expanded, the session continues in memory, and no folder named ~ is created."""
    monkeypatch.chdir(tmp_path)
    with ClientSession("~no-such-user/session.xml", scheduler=ManualScheduler()) as session:
        session.get_session_context(uuid.uuid4())
        assert isinstance(session.save_error, FileNotFoundError)
        assert "home folder is unknown" in str(session.save_error)
    XmlStore("./~no-such-user/session.xml").save(NEW)
    assert (tmp_path / "~no-such-user" / "session.xml").exists()


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (b"session.xml", TypeError, "path must be the path of a file"),
        (None, TypeError, "path must be the path of a file"),
        (7, TypeError, "path must be the path of a file"),
        ("", ValueError, "path must be the path of a file"),
        ("  ", ValueError, "path must be the path of a file"),
        ("a\0b", ValueError, "path must be the path of a file"),
        ("folder/", ValueError, "path must be the path of a file"),
        pytest.param("\ud800.xml", ValueError, "path must be a path whose characters", marks=posix),
    ],
)
def test_invalid_path_is_rejected(path: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401  # wrong on purpose
    """A store's constructor says which argument is wrong, and why."""
    with pytest.raises(error, match=message):
        XmlStore(path)


def test_background_must_be_a_bool(save_path: Path) -> None:
    """A truthy string does not count as True."""
    with pytest.raises(TypeError, match="background must be True or False, not 'no'"):
        XmlStore(save_path, background="no")  # type: ignore[arg-type]  # wrong on purpose


# Users who share a folder


@needs_root
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "umask", "groups"),
    [
        (0o2770, 0o660, 0o007, (5555, 5555)),
        (0o2770, 0o660, 0o077, (5555, 5555)),
        (0o2775, 0o664, 0o022, (5555, 5555)),
        (0o777, 0o666, 0o022, (OTHER, OTHER + 1)),
    ],
)
@pytest.mark.parametrize("prepared", [False, True], ids=["the first user creates the file", "an empty file exists"])
def test_users_share_a_file(  # noqa: PLR0913  # the combinations of modes
    open_folder: Path, folder_mode: int, file_mode: int, umask: int, groups: tuple[int, int], *, prepared: bool
) -> None:
    """Users who can write to the folder and to the file take turns, whatever their umask."""
    folder = open_folder / "shared"
    folder.mkdir()
    os.chown(folder, 0, 5555)
    folder.chmod(folder_mode)
    path = folder / "session.xml"
    if prepared:
        path.write_bytes(dumps(Snapshot(user_id=event_id(7))))
        os.chown(path, 0, 5555)
        path.chmod(file_mode)
    runs = [run_as(path, OTHER, groups[0], umask)]
    path.chmod(file_mode)  # by an administrator
    runs += [run_as(path, OTHER + 1, groups[1], umask), run_as(path, OTHER, groups[0], umask)]
    assert runs == [[runs[0][0], str(index), "None"] for index in (1, 2, 3)]


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666, 0o400])
def test_new_lock_file_has_the_mode_of_the_file(save_path: Path, mode: int, umask: int) -> None:
    """The lock file gets the mode of the save file under any umask; its owner can always read and write it."""
    save_path.write_bytes(dumps(OLD))
    save_path.chmod(mode)
    before = os.umask(umask)
    try:
        XmlStore(save_path).save(NEW)
    finally:
        os.umask(before)
    assert modes_in(save_path.parent) == {
        "session.xml": oct(mode),
        "session.xml.bak": oct(mode),
        "session.xml.lock": oct(mode | 0o600),
    }


@posix
@pytest.mark.parametrize(
    ("folder_mode", "lock_mode"),
    [(0o700, 0o600), (0o755, 0o600), (0o2770, 0o660), (0o775, 0o660), (0o777, 0o666), (0o1777, 0o600)],
)
def test_lock_file_is_open_to_those_who_can_remove_it(save_path: Path, folder_mode: int, lock_mode: int) -> None:
    """Users who can write to the folder can lock the file, even though the save file itself is private."""
    save_path.parent.chmod(folder_mode)
    XmlStore(save_path).save(OLD)
    assert modes_in(save_path.parent) == {"session.xml": "0o600", "session.xml.lock": oct(lock_mode)}


@needs_root
def test_first_run_as_root_does_not_lock_out_the_user(open_folder: Path) -> None:
    """What root creates in a user's home belongs to that user, who continues where root's run ended."""
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, OTHER, OTHER)
    path = home / ".local" / "share" / "my-app" / "session.xml"
    runs = [run_as(path, uid) for uid in (0, OTHER, 0, OTHER)]
    assert runs == [[runs[0][0], str(index), "None"] for index in (1, 2, 3, 4)]
    owners = {(found.lstat().st_uid, found.lstat().st_gid) for found in home.rglob("*")}
    assert owners == {(OTHER, OTHER)}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@needs_root
def test_root_gives_away_only_new_empty_folders(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a user exchanges a folder that root has just created, the other folder keeps its owner."""
    home = open_folder / "home"
    private = home / "private"
    private.mkdir(parents=True)
    (private / "secret").touch()
    os.chown(home, OTHER, OTHER)
    mkdir = os.mkdir

    def create_and_exchange(path: str, mode: int) -> None:
        mkdir(path, mode)
        Path(path).rmdir()
        private.rename(path)

    monkeypatch.setattr(os, "mkdir", create_and_exchange)
    atomic_file.create_folder(str(home / "my-app"))
    assert (home / "my-app" / "secret").exists()
    assert (home / "my-app").stat().st_uid == 0


# Links


@needs_root
@pytest.mark.parametrize("user", [0, OTHER + 1], ids=["root", "a user"])
@pytest.mark.parametrize("folder_mode", [0o777, 0o1777, 0o775, 0o755], ids=oct)
@pytest.mark.parametrize(
    "place",
    [
        "the file",
        "a folder",
        "the parent of a missing folder",
        "a missing folder",
        "a second link",
        "a parent of the target",
    ],
)
def test_planted_link_is_not_followed(open_folder: Path, folder_mode: int, place: str, user: int) -> None:
    """A link of another user in a folder that others can write to is an error, wherever it is on the way to the file.

    With mode 0755, the folder belongs to the user who planted the link.
    """
    victims, folder, own = (open_folder / name for name in ("victims", "folder", "own"))
    for path in (victims, folder, own):
        path.mkdir()
        os.chown(path, user, user)
    if folder_mode == 0o755:
        os.chown(folder, OTHER, OTHER)
    victim = victims / "session.xml"
    victim.write_text("precious")
    os.chown(victim, user, user)
    planted, save = folder / "planted", own / "session.xml"
    if place in ("the file", "a second link"):
        planted.symlink_to(victim)
        if place == "a second link":
            save.symlink_to(planted)  # the user's own link leads to the planted one
        else:
            save = planted
    elif place == "a parent of the target":
        planted.symlink_to(victims)
        save.symlink_to(planted / "session.xml")
    else:
        planted.symlink_to(victims / "missing" if place == "a missing folder" else victims)
        save = planted / ("new" if place == "the parent of a missing folder" else "") / "session.xml"
    os.chown(planted, OTHER, OTHER, follow_symlinks=False)
    folder.chmod(folder_mode)
    with acting_as(user), ClientSession(save, scheduler=ManualScheduler()) as session:
        assert session.get_session_context(uuid.uuid4()).session_index == 1
    assert isinstance(session.save_error, PermissionError)
    assert "This symbolic link belongs to another user" in str(session.save_error)
    assert session.save_error.filename == str(planted)
    assert victim.read_text() == "precious"
    assert [names_in(path) for path in (victims, folder)] == [["session.xml"], ["planted"]]


@needs_root
@pytest.mark.parametrize("user", [0, OTHER], ids=["root", "a user"])
@pytest.mark.parametrize(("owner", "folder_mode"), [("user", 0o1777), ("root", 0o1777), ("another user", 0o755)])
def test_trusted_link_is_followed(open_folder: Path, owner: str, folder_mode: int, user: int) -> None:
    """A link of the current user or of root is followed, and so is any link in a folder that only they can write to."""
    real, folder = open_folder / "real", open_folder / "folder"
    for path in (real, folder):
        path.mkdir()
        os.chown(path, user, user)
    for link, target in ((folder / "link.xml", real / "session.xml"), (folder / "sub", real)):
        link.symlink_to(target)
        uid = {"user": user, "root": 0, "another user": OTHER + 1}[owner]
        os.chown(link, uid, uid, follow_symlinks=False)
    folder.chmod(folder_mode)
    with acting_as(user):
        XmlStore(folder / "link.xml").save(OLD)
        assert XmlStore(folder / "sub" / "session.xml").load() == OLD
        XmlStore(folder / "sub" / "session.xml").save(NEW)
    assert loads((real / "session.xml").read_bytes()) == NEW
    assert names_in(folder) == ["link.xml", "sub"]


@needs_root
@pytest.mark.parametrize("before", ["missing", "used"])
def test_folder_replaced_with_a_planted_link_is_not_used(open_folder: Path, before: str) -> None:
    """A link that is planted after the path was resolved is not followed either."""
    victims, folder = open_folder / "victims", open_folder / "folder"
    victims.mkdir()
    store = XmlStore(folder / "session.xml")
    if before == "used":
        store.save(OLD)
        folder.rename(open_folder / "moved")
    folder.symlink_to(victims)
    os.chown(folder, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(PermissionError, match="This symbolic link belongs to another user"):
        store.save(NEW)
    assert names_in(victims) == []
    folder.unlink()
    store.save(NEW)
    assert loads((folder / "session.xml").read_bytes()) == NEW


@posix
def test_absolute_path_does_not_need_the_current_folder(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose current folder has been deleted can save to an absolute path."""
    folder = save_path.with_name("deleted")
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    XmlStore(save_path).save(NEW)
    assert XmlStore(save_path).load() == NEW


@posix
def test_links_with_dots_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative links, and links that lead through parent folders, are followed just as the system does."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").symlink_to("a/b")
    (tmp_path / "a" / "link.xml").symlink_to("../c/.././target.xml")
    monkeypatch.chdir(tmp_path / "c")
    XmlStore("../link.xml").save(NEW)
    assert loads((tmp_path / "a" / "target.xml").read_bytes()) == NEW


@posix
def test_loop_of_folders_is_an_error(tmp_path: Path) -> None:
    """A path through a link loop is an error, as it is for the system."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        XmlStore(tmp_path / "a" / "session.xml").save(NEW)


@posix
def test_folder_that_cannot_be_looked_at_is_passed_through(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes allow opening files, but not looking at the folders on the way to them."""
    lstat = os.lstat

    def refuse_above(path: str) -> os.stat_result:
        if path == str(save_path.parents[1]):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refuse_above)
    XmlStore(save_path).save(NEW)
    assert XmlStore(save_path).load() == NEW


# Mount points


MOUNTED = """
import subprocess, sys
source, target = sys.argv[1:3]
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", source, target], check=True)
for _ in range(2):
    subprocess.run([sys.executable, *sys.argv[3:]], check=True)
"""


@needs_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
@pytest.mark.parametrize("content", [b"", b"corrupt", dumps(OLD)], ids=["empty", "corrupt", "a save file"])
def test_mount_point_cannot_be_replaced(tmp_path: Path, content: bytes) -> None:
    """If the save file is a mount point, the error says what to mount instead, and the next run has the same user."""
    source, save = tmp_path / "source.xml", tmp_path / "data" / "session.xml"
    source.write_bytes(content)
    save.parent.mkdir()
    save.touch()
    program = [sys.executable, "-c", MOUNTED, str(source), str(save), "-c", RUN_AS, str(save), "022", "0", "0"]
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:  # noqa: S607  # unshare(1)
        pytest.skip("needs a private mount namespace")
    done = subprocess.run(["unshare", "-m", *program], env=environment(), capture_output=True, text=True, check=True)  # noqa: S603, S607
    runs = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    is_valid = content.startswith(b"<")
    assert [run[0] for run in runs] == [OLD.user_id if is_valid else runs[0][0]] * 2
    # Valid contents, which the kernel does not let us replace, decide. Otherwise, the backup does.
    assert [run[1] for run in runs] == (["2", "2"] if is_valid else ["1", "2"])
    for run in runs:
        assert f"if it is a mount point, mount its folder ({save.parent}) instead" in run[2]
    assert source.read_bytes() == content


# Other programs that have the file open, as on Windows


class Scanner:
    """A virus scanner, which has a file open while it is opened, renamed or removed for the first few times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: str, suffix: str, times: float) -> None:
        """Refuse the function's first calls for files whose names end with the suffix."""
        self.refusals = 0
        call = getattr(os, function)

        def refuse_first(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # like the function
            names = [str(argument) for argument in arguments if isinstance(argument, str)]
            if names[-1].endswith(suffix) and self.refusals < times:
                self.refusals += 1
                error = PermissionError(errno.EACCES, "Access is denied", names[-1])
                error.winerror = 32  # type: ignore[attr-defined]  # only Windows has it
                raise error
            return call(*arguments, **options)

        monkeypatch.setattr(os, function, refuse_first)


@pytest.mark.parametrize(
    ("function", "suffix"),
    [
        ("replace", "session.xml"),
        ("replace", ".bak"),
        ("open", "session.xml"),
        ("open", ".tmp"),
        ("open", ".lock"),
        ("unlink", ".tmp"),
    ],
)
def test_sharing_violation_is_retried(
    save_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, suffix: str
) -> None:
    """On Windows, a file that another program has open for a moment is saved by the same call."""
    monkeypatch.setattr(atomic_file, "_ON_WINDOWS", True)
    XmlStore(save_path).save(OLD)
    save_path.with_name("session.xml.tmp").write_bytes(b"half")
    scanner = Scanner(monkeypatch, function, suffix, 3)
    store = XmlStore(save_path)
    store.save(NEW)
    assert scanner.refusals == 3
    assert store.load() == NEW
    assert loads(store.backup_path.read_bytes()) == OLD


def test_sharing_violation_that_lasts_is_an_error(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call retries until its deadline, and then reports the error; a call without patience tries once."""
    store = XmlStore(save_path)
    scanner = Scanner(monkeypatch, "replace", "session.xml", float("inf"))
    with pytest.raises(PermissionError):
        within_deadline(lambda: store.save(OLD))
    assert scanner.refusals > 1
    scanner.refusals = 0
    with pytest.raises(PermissionError):
        within_deadline(lambda: store.save(OLD), patient=False)
    assert scanner.refusals == 1
    assert [path.name for path in save_path.parent.iterdir()] == ["session.xml.lock"]


@posix
def test_missing_permission_is_not_retried(save_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems, a file that cannot be opened is not a matter of time."""
    scanner = Scanner(monkeypatch, "open", "session.xml", float("inf"))
    store = XmlStore(save_path)
    with contextlib.suppress(PermissionError):
        store.load()
    assert scanner.refusals == 1
