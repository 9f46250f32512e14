"""The folder of a run: what is where, private, and checked before anything is unpickled."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fanfold.errors import (
    RunDamaged,
    RunNotFound,
    RunReadOnly,
    RunUntrusted,
    UnsafeFolder,
    UsageError,
)
from fanfold.store.directory import (
    RunDirectory,
    next_name,
    open_private,
    run_directories,
    safe_name,
)
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease
from fanfold.store.pack import PackWriter

Forbidden = Callable[[Path, int], AbstractContextManager[None]]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Making and finding


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_a_new_run_is_private(tmp_path: Path, mask: int) -> None:
    """X02: folders are 0700 and files 0600, whatever the umask; missing parents are private too."""
    with umask(mask):
        directory = RunDirectory.create(tmp_path / "a" / "b", "run-1")
        directory.write_text("run.json", "{}")
    made = [directory.path.parent.parent, directory.path.parent, directory.path]
    made += [path for path in directory.path.iterdir() if path.is_dir()]
    assert [mode(path) for path in made] == [0o700] * 8
    assert mode(directory.run_json) == 0o600


def test_a_parent_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """Only what is made is made private."""
    parent = tmp_path / "runs"
    parent.mkdir(mode=0o755)
    RunDirectory.create(parent, "run-1")
    assert mode(parent) == 0o755


def test_a_run_is_made_once(tmp_path: Path) -> None:
    """R04: of two that make a run of one name one succeeds; what is there is not touched."""
    RunDirectory.create(tmp_path, "run-1").write_text("run.json", "{}")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("run-1", "link"):
        with pytest.raises(FileExistsError):
            RunDirectory.create(tmp_path, name)
    assert RunDirectory.open(tmp_path / "run-1").read_json("run.json") == {}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "../up", "a\0b", "-rf", ".hidden", "x" * 300, "CON", "ü"]
)
def test_impossible_names(tmp_path: Path, name: str) -> None:
    """R19, X11: a name that is no name for a folder is refused, with one that is."""
    with pytest.raises(UsageError, match="cannot be the name of a run") as caught:
        RunDirectory.create(tmp_path / "runs", name)
    assert repr(safe_name(name)) in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_parent_that_everybody_may_write(tmp_path: Path) -> None:
    """X02: where anybody may replace a folder none is made, and none is trusted; the sticky bit,
    as in /tmp, makes it safe."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(UnsafeFolder, match=re.escape(f"chmod o-w {shared}")):
        RunDirectory.create(shared / "runs", "run-1")
    shared.chmod(0o1777)
    directory = RunDirectory.create(shared / "runs", "run-1")
    directory.check_private(trust=False)
    shared.chmod(0o777)
    with pytest.raises(UnsafeFolder, match=re.escape(f"chmod o-w {shared}")):
        directory.check_private(trust=False)
    directory.check_private(trust=True)


def test_a_parent_that_is_no_folder(tmp_path: Path) -> None:
    """A file in the place of a folder is told."""
    (tmp_path / "file").touch()
    for parent in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            UsageError, match=rf"{re.escape(str(tmp_path / 'file'))} is not a folder"
        ):
            RunDirectory.create(parent, "run-1")


def test_a_folder_that_cannot_be_written(directory: RunDirectory, forbidden: Forbidden) -> None:
    """R17: a folder without the permission to write is named, with what to do."""
    with forbidden(directory.path, 0o555):
        with pytest.raises(RunReadOnly, match=f"{re.escape(str(directory.path))}.* --dir"):
            RunDirectory.create(directory.path, "run-1")
        with pytest.raises(RunReadOnly, match=re.escape(str(directory.run_json))):
            directory.write_text("run.json", "{}")


def test_a_folder_that_was_moved(directory: RunDirectory) -> None:
    """R17: when the folder has gone while a driver is at work the error says so."""
    directory.path.rename(directory.path.with_name("moved"))
    with pytest.raises(RunDamaged, match="moved or removed"):
        directory.write_text("run.json", "{}")


def test_a_run_is_found_through_links(directory: RunDirectory) -> None:
    """A link to a run, or above it, is as good as its path: what it leads to is checked."""
    directory.write_text("run.json", "{}")
    link = directory.path.with_name("latest")
    link.symlink_to(directory.path)
    found = RunDirectory.open(link)
    assert found.path == directory.path
    found.check_private(trust=False)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    """The error names the runs that come close, or the last ones."""
    with pytest.raises(RunNotFound, match="has no runs at all"):
        RunDirectory.open(tmp_path / "runs" / "pi-1")
    for name in ("pi.count-1", "pi.count-2", "flights"):
        RunDirectory.create(tmp_path, name).write_text("run.json", "{}")
    RunDirectory.create(tmp_path, "unfinished")
    with pytest.raises(RunNotFound, match=r"did you mean pi\.count-[12] or pi\.count-[12]\?"):
        RunDirectory.open(tmp_path / "pi.count")
    with pytest.raises(RunNotFound, match="the last ones there are pi"):
        RunDirectory.open(tmp_path / "zzz")
    with pytest.raises(UsageError, match=r"no run in .*unfinished"):
        RunDirectory.open(tmp_path / "unfinished")


def test_a_run_that_may_not_be_read(directory: RunDirectory, forbidden: Forbidden) -> None:
    """X01: a folder that is closed is no run to be opened, and the error says what to do."""
    directory.write_text("run.json", "{}")
    with (
        forbidden(directory.path, 0o000),
        pytest.raises(RunNotFound, match=r"may not read .*ask its owner"),
    ):
        RunDirectory.open(directory.path)


# Names of files


def test_where_things_are(directory: RunDirectory) -> None:
    """The names are those of docs/reference/run-directory.md."""
    paths = [
        directory.run_json,
        directory.function,
        directory.inputs(2),
        directory.lease(0, 1),
        directory.beat(0, 1),
        directory.journal(0, 1),
        directory.pack(3, 12),
        *directory.log(0, 1, 5),
    ]
    assert [str(path.relative_to(directory.path)) for path in paths] == [
        "run.json",
        "function.pickle",
        "inputs-2.pack",
        "leases/e0-a1.json",
        "leases/e0-a1.beat",
        "journals/e0-a1.journal",
        "results/e3-a12.pack",
        "logs/e0-a1-w5.out",
        "logs/e0-a1-w5.err",
    ]


def test_writers_and_attempts(directory: RunDirectory) -> None:
    """They are in the order of their numbers; what has another name is not ours."""
    for key in ((0, 1), (0, 2), (0, 10), (2, 1), (10, 1)):
        directory.journal(*key).touch()
    directory.lease(0, 11).touch()
    for name in (
        ".e0-a3.journal.1f",
        "e0-a03.journal",
        "e0-a4.journal~",
        "e0-a\u0665.journal",
        "e0.x",
    ):
        (directory.path / "journals" / name).touch()
    assert directory.writers() == [(0, 1), (0, 2), (0, 10), (2, 1), (10, 1)]
    assert directory.attempts(0) == [1, 2, 10, 11]
    assert directory.attempts(1) == []
    assert RunDirectory(directory.path / "nowhere").writers() == []


def test_runs_in_a_folder(tmp_path: Path) -> None:
    """They are in the order in which they were made; a folder without run.json is no run."""
    assert run_directories(tmp_path / "nowhere") == []
    for number, name in enumerate(["c", "a", "b"]):
        directory = RunDirectory.create(tmp_path, name)
        directory.write_text("run.json", "{}")
        os.utime(directory.run_json, (number, number))
    RunDirectory.create(tmp_path, "d")
    (tmp_path / "file").touch()
    assert [path.name for path in run_directories(tmp_path)] == ["c", "a", "b"]


def test_the_next_name_is_free(tmp_path: Path) -> None:
    """The first number that nothing has, be it a run, a file or a link that leads nowhere."""
    (tmp_path / "pi-1").mkdir()
    (tmp_path / "pi-2").touch()
    (tmp_path / "pi-3").symlink_to("nowhere")
    (tmp_path / "pi-5").touch()
    assert next_name(tmp_path, "pi") == "pi-4"
    long = next_name(tmp_path, "x" * 80)
    RunDirectory.create(tmp_path, long)
    assert next_name(tmp_path, "x" * 80) != long


# Text files


def test_a_file_is_replaced_at_once(directory: RunDirectory) -> None:
    """R01: whoever reads while a file is replaced sees the old or the new, and nothing is left."""
    directory.write_text("run.json", json.dumps({"count": 0}))
    done = threading.Event()
    seen = []

    def look() -> None:
        while not done.is_set():
            seen.append(directory.read_json("run.json")["count"])

    reader = threading.Thread(target=look)
    reader.start()
    for count in range(1, 101):
        directory.write_text("run.json", json.dumps({"count": count, "text": "x" * 50_000}))
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert directory.read_json("run.json")["count"] == 100
    assert [path.name for path in directory.path.iterdir() if path.is_file()] == ["run.json"]


def test_a_name_comes_after_its_content(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R03: the content is synced before the name is given, and the folder afterwards; so a power
    failure cannot leave an empty file."""
    calls: list[str] = []
    for name in ("fdatasync", "replace", "fsync"):
        monkeypatch.setattr(os, name, noted(calls, name, getattr(os, name)), raising=False)
    directory.write_text("run.json", "{}")
    assert calls == ["fdatasync", "replace", "fsync"]


def noted(calls: list[str], name: str, function: Callable[..., None]) -> Callable[..., None]:
    def call(*args: object) -> None:
        calls.append(name)
        function(*args)

    return call


def test_a_rename_that_was_done_and_denied(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R15: over NFS a rename may be reported to have failed though it was done: it counts. One
    that has failed is an error, and leaves nothing."""
    real = os.replace

    def done_and_denied(*paths: Path) -> None:
        real(*paths)
        raise FileNotFoundError(errno.ENOENT, "as asked")

    def failed(*_: Path) -> None:
        raise OSError(errno.EIO, "as asked")

    monkeypatch.setattr(os, "replace", done_and_denied)
    directory.write_text("run.json", '{"count": 1}')
    monkeypatch.setattr(os, "replace", failed)
    with pytest.raises(OSError, match="as asked"):
        directory.write_text("run.json", '{"count": 2}')
    assert directory.read_json("run.json") == {"count": 1}
    assert [path.name for path in directory.path.iterdir() if path.is_file()] == ["run.json"]


def test_a_link_is_replaced_not_followed(directory: RunDirectory, tmp_path: Path) -> None:
    """X04: a link planted at the name of a file leads no writer and no reader anywhere."""
    target = tmp_path / "target"
    target.write_text("{}")
    directory.run_json.symlink_to(target)
    with pytest.raises(RunDamaged, match="symbolic link"):
        directory.read_json("run.json")
    directory.write_text("run.json", '{"count": 1}')
    assert target.read_text() == "{}"
    assert directory.read_json("run.json") == {"count": 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b"\0" * 9]
)
def test_json_that_is_none(directory: RunDirectory, content: bytes) -> None:
    """R06: what is not a JSON object is damage, and the file is named."""
    directory.run_json.write_bytes(content)
    with pytest.raises(RunDamaged, match=re.escape(str(directory.run_json))):
        directory.read_json("run.json")


def test_json_that_is_missing(directory: RunDirectory) -> None:
    """R07: a missing file is damage, and named."""
    with pytest.raises(RunDamaged, match=f"{re.escape(str(directory.run_json))} is missing"):
        directory.read_json("run.json")


# Whom it belongs to


@pytest.fixture
def filled(directory: RunDirectory) -> RunDirectory:
    """A run that has each kind of file that is unpickled."""
    for path in (
        directory.function,
        directory.inputs(1),
        directory.inputs(2),
        directory.pack(0, 1),
    ):
        path.touch(mode=0o600)
    directory.write_text("run.json", "{}")
    directory.check_private(trust=False)
    return directory


FOLDERS = [".", "leases", "journals", "results", "logs"]
FILES = ["function.pickle", "inputs-1.pack", "inputs-2.pack", "results/e0-a1.pack"]


@root_only
@pytest.mark.parametrize("name", FOLDERS + FILES)
def test_what_belongs_to_somebody_else(filled: RunDirectory, name: str) -> None:
    """X01: what is somebody else's is not unpickled, and the error says whose it is and how to
    insist; its text can be read."""
    path = filled.path / name
    owner = pwd.getpwuid(65534).pw_name
    os.chown(path, 65534, -1)
    with pytest.raises(RunUntrusted, match=rf"belongs to {owner}.*--trust") as caught:
        filled.check_private(trust=False)
    assert (caught.value.path, caught.value.owner) == (path.resolve(), owner)
    filled.check_private(trust=True)
    assert RunDirectory.open(filled.path).read_json("run.json") == {}


@root_only
def test_an_owner_without_a_name(filled: RunDirectory) -> None:
    """X01: an owner that this machine does not know has a number."""
    os.chown(filled.path, 54321, -1)
    with pytest.raises(RunUntrusted, match="belongs to user 54321"):
        filled.check_private(trust=False)


def test_what_belongs_to_me_when_i_am_somebody_else(
    filled: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X01: the same, seen by another user."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(RunUntrusted):
        filled.check_private(trust=False)
    with pytest.raises(RunUntrusted):
        open_private(filled.function, trust=False)
    os.close(open_private(filled.function, trust=True))


@pytest.mark.parametrize("more", [0o020, 0o002])
@pytest.mark.parametrize("name", FOLDERS + FILES)
def test_what_others_may_write(filled: RunDirectory, name: str, more: int) -> None:
    """X02: what the group or others may write is not unpickled, and the error says how to forbid
    it."""
    path = (filled.path / name).resolve()
    path.chmod(mode(path) | more)
    with pytest.raises(UnsafeFolder, match=re.escape(f"chmod go-w {path}")):
        filled.check_private(trust=False)
    filled.check_private(trust=True)


@pytest.mark.parametrize("name", FOLDERS[1:] + FILES)
def test_links_in_a_run(filled: RunDirectory, name: str, tmp_path: Path) -> None:
    """X04: a link in the place of a folder or a file of a run is not followed."""
    path = filled.path / name
    target = tmp_path / "target"
    path.rename(target)
    path.symlink_to(target)
    with pytest.raises(UnsafeFolder, match=re.escape(str(path))):
        filled.check_private(trust=False)
    filled.check_private(trust=True)


def test_a_hundred_links_at_names_to_come(directory: RunDirectory, tmp_path: Path) -> None:
    """X04: links planted at every name that can be predicted lead no writer out of the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = [directory.journal(0, n) for n in range(1, 26)]
    names += [directory.pack(0, n) for n in range(1, 26)]
    names += [directory.lease(0, n) for n in range(1, 26)]
    names += [directory.beat(0, n) for n in range(1, 26)]
    for number, path in enumerate(names):
        path.symlink_to(outside / str(number))
    for path in names[:25]:
        with pytest.raises(FileExistsError):
            JournalWriter(path, {})
    for path in names[25:50]:
        with pytest.raises(FileExistsError):
            PackWriter(path, {})
    lease = Lease.take(directory, 0, steal=True)
    assert lease.attempt == 26
    for path in names[75:]:
        path.rename(directory.beat(0, 26))
        lease.beat({})
    assert list(outside.iterdir()) == []


def test_what_is_checked_is_what_is_read(filled: RunDirectory, tmp_path: Path) -> None:
    """X04: a file is checked by its descriptor: no change of names comes in between."""
    filled.function.write_text("mine")
    descriptor = open_private(filled.function, trust=False)
    filled.function.unlink()
    filled.function.write_text("theirs")
    with os.fdopen(descriptor) as file:
        assert file.read() == "mine"
    filled.function.chmod(0o620)
    with pytest.raises(UnsafeFolder):
        open_private(filled.function, trust=False)
    os.close(open_private(filled.function, trust=True))
    filled.function.unlink()
    for make in (
        lambda: None,
        lambda: filled.function.symlink_to(tmp_path / "x"),
    ):
        make()
        with pytest.raises(RunDamaged, match=re.escape(str(filled.function))):
            open_private(filled.function, trust=False)


@root_only
def test_a_file_given_away(filled: RunDirectory) -> None:
    """X01: the same for a file alone."""
    os.chown(filled.function, 65534, -1)
    with pytest.raises(RunUntrusted):
        open_private(filled.function, trust=False)
