"""Arrays and values in files of the user's, places without room, and strangers."""

from __future__ import annotations

import os
import pickle
import socket
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.arrays.conftest import line, output
from tests.faults.test_resources import mounts, with_mounts
from tests.runs.small import site_in

import fanfold as ff
from fanfold.arrays.memory import Place, attach
from fanfold.errors import SharedGone
from fanfold.transport import segments


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, 5))


# Files


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_path_is_an_npy_file(tmp_path: Path, order: Any, writable: bool) -> None:
    """With a path the array is an .npy file that numpy.load reads, and that stays."""
    array = np.array(np.arange(24).reshape(2, 3, 4), order=order)
    path = tmp_path / "a.npy"
    with ff.share(array, path=path, writable=writable) as shared:
        assert again(shared).tolist() == array.tolist()
        assert shared.flags.f_contiguous == array.flags.f_contiguous
    del shared
    assert np.load(path).tolist() == array.tolist()
    assert np.load(path, mmap_mode="r").tolist() == array.tolist()


FIELDS = np.zeros(3, [(f"field_{n}", "f8") for n in range(5000)])


@pytest.mark.parametrize("array", [np.zeros(0), np.array(7), FIELDS], ids=["none", "0-d", "wide"])
def test_files_of_any_shape(tmp_path: Path, array: np.ndarray) -> None:
    """Empty arrays, single numbers and thousands of fields have files, too."""
    shared = ff.share(array, path=tmp_path / "a.npy")
    assert again(shared).tobytes() == array.tobytes()
    assert (again(shared).dtype, again(shared).shape) == (array.dtype, array.shape)


def test_open(tmp_path: Path) -> None:
    """An .npy file, shared or saved by NumPy, can be opened by path, and changed under its lock."""
    np.save(tmp_path / "a.npy", np.arange(5))
    found = ff.SharedArray.open(tmp_path / "a.npy")
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert not found.flags.writeable
    writer = ff.SharedArray.open(tmp_path / "a.npy", writable=True)
    with writer.lock:
        writer[0] = 9
    assert found[0] == 9


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"year,month\n2013,1\n"])
def test_open_what_is_no_npy_file(tmp_path: Path, content: bytes) -> None:
    """Another file is refused with its path and the reason."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ff.UsageError, match=r"table.csv is not an \.npy file"):
        ff.SharedArray.open(path)
    with pytest.raises((ff.UsageError, SharedGone), match=r"table.csv"):
        ff.SharedValue.open(path)


def test_open_what_is_not_there(tmp_path: Path) -> None:
    """A missing file is a wrong call, not a traceback of the system."""
    for kind in (ff.SharedArray, ff.SharedValue):
        with pytest.raises(ff.UsageError, match="No such file"):
            kind.open(tmp_path / "missing")


def test_open_objects(tmp_path: Path) -> None:
    """A file of pickled objects is not opened, nor is anything in it run."""
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ff.UsageError, match="Python objects"):
        ff.SharedArray.open(tmp_path / "a.npy")


def test_a_file_that_has_been_cut(tmp_path: Path) -> None:
    """A file shorter than its shape says is a typed error, and no SIGBUS."""
    shared = ff.share(np.arange(10**5), path=tmp_path / "a.npy")
    handle = pickle.dumps(shared)
    del shared
    os.truncate(tmp_path / "a.npy", 5000)
    with pytest.raises(SharedGone, match="shorter than the array"):
        pickle.loads(handle)
    with pytest.raises(SharedGone, match="shorter than the array"):
        ff.SharedArray.open(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 0)
    with pytest.raises(SharedGone, match="empty"):
        pickle.loads(handle)


def test_a_path_that_exists_is_kept(tmp_path: Path) -> None:
    """Nothing is overwritten: not a file, not what a link points to, dangling ones included."""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    for name in ("kept", "link", "dangling"):
        with pytest.raises(ff.UsageError, match="exists: remove it"):
            ff.share([1], path=tmp_path / name)
        with pytest.raises(ff.UsageError, match="exists: remove it"):
            ff.SharedValue(path=tmp_path / name)
    assert kept.read_text() == "kept"
    assert not (tmp_path / "made").exists()


def test_a_path_in_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is told in words."""
    with pytest.raises(ff.UsageError, match="No such file or directory; choose a path"):
        ff.share([1], path=tmp_path / "missing" / "a.npy")


# Job arrays


def fill(array: ff.SharedArray, counter: ff.SharedValue, index: int) -> None:
    array[index] = index + 1
    counter.add(index)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with site_in(tmp_path, monkeypatch) as site:
        yield site


def test_elements_of_a_job_array_see_a_file(site: ModuleType) -> None:
    """Elements, processes of another node perhaps, attach to a file by its path, and write."""
    array = ff.share(np.zeros(6), path="out.npy", writable=True)
    counter = ff.SharedValue(0, path="count")
    calls = [(array, counter, index) for index in range(6)]
    ff.starmap(fill, calls, on="slurm")
    assert array.tolist() == [1, 2, 3, 4, 5, 6]
    assert counter.value == 15
    assert np.load("out.npy").tolist() == array.tolist()


def test_memory_of_another_machine() -> None:
    """A handle that comes to another node says whose memory it is, and what to do: path=."""
    place = Place("/dev/shm/fanfold-none/s0", os.geteuid(), 1, "node17")
    here = socket.gethostname()
    with pytest.raises(SharedGone, match=f"memory of node17, which {here} cannot see.*path="):
        attach(place, writable=False)
    with pytest.raises(SharedGone, match=f"not there on {here}"):
        attach(Place(place.path, place.user), writable=False)


# Strangers


def test_names_are_ours_alone() -> None:
    """X05: memory is readable by its user alone, in a folder that no one else can enter, whatever
    the umask."""
    before = os.umask(0)
    try:
        with ff.share(np.arange(3)) as shared, ff.SharedValue(1) as value:
            for path in map(Path, (shared.path, value.path)):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("writable", [False, True])
def test_a_link_in_its_place(tmp_path: Path, writable: bool) -> None:
    """A link that somebody puts where a shared file was is not followed."""
    shared = ff.share(np.arange(3), path=tmp_path / "a.npy", writable=writable)
    handle = pickle.dumps(shared)
    os.rename(tmp_path / "a.npy", tmp_path / "b.npy")
    (tmp_path / "a.npy").symlink_to(tmp_path / "b.npy")
    with pytest.raises(SharedGone, match="a link in its place"):
        pickle.loads(handle)


def test_a_file_of_another_user(tmp_path: Path) -> None:
    """A file of another user where a shared one was is not mapped, nor is a folder or a pipe."""
    shared = ff.share(np.arange(3), path=tmp_path / "a.npy")
    handle = pickle.dumps(shared)
    os.unlink(tmp_path / "a.npy")
    os.mkdir(tmp_path / "a.npy")
    with pytest.raises(SharedGone, match="somebody replaced it"):
        pickle.loads(handle)
    os.rmdir(tmp_path / "a.npy")
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(SharedGone, match="somebody replaced it"):
        pickle.loads(handle)
    with pytest.raises(ff.UsageError, match="is no file"):
        ff.SharedArray.open(tmp_path / "a.npy")
    os.unlink(tmp_path / "a.npy")
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    np.save(tmp_path / "a.npy", np.arange(3))
    os.chown(tmp_path / "a.npy", 12345, -1)
    with pytest.raises(SharedGone, match="somebody replaced it"):
        pickle.loads(handle)


# Room


FULL = """
import tempfile, warnings

def where(shared):
    return os.path.dirname(os.path.dirname(shared.path))

warnings.simplefilter("error")
try:
    ff.share(np.zeros(10**6))
except RuntimeWarning as warning:
    say(warning)
warnings.simplefilter("ignore")
shared = ff.share(np.ones((1000, 2000))[:, ::2])
say(where(shared), sum(ff.map(np.sum, np.array_split(shared, 4), on="processes")))
say(len(os.listdir(os.path.dirname(shared.path))))
with ff.share(np.ones(1000)) as small:
    say(where(small))
try:
    ff.share(np.zeros(10**7))
except ff.NoSpace as error:
    say(error.strerror)
try:
    ff.share(np.zeros(10**7), path=tempfile.gettempdir() + "/a.npy")
except ff.NoSpace as error:
    say(error.strerror, os.path.exists(tempfile.gettempdir() + "/a.npy"))
folders = {os.path.dirname(small.path), os.path.dirname(shared.path)}
del shared
say([name for folder in folders for name in os.listdir(folder)])
"""


@mounts
def test_no_room_in_shared_memory(script: Any, tmp_path: Path) -> None:
    """L41: where /dev/shm is too small the array lies in a file in the temporary folder, which is
    told; what fits nowhere is NoSpace, with the sizes, and leaves nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    small = [*with_mounts(("/dev/shm", "4m"), (disk, "40m")), "env", f"TMPDIR={disk}"]
    told = output(script(FULL, prefix=small))
    assert told[0].startswith("no room for 7.6 MB of shared memory (/dev/shm has 4.0 MB free)")
    assert told[1:4] == [f"{disk} 1000000.0", "1", "/dev/shm"]
    assert told[4].startswith("no room for 76.3 MB: /dev/shm has")
    assert "set TMPDIR to a larger disk" in told[4]
    assert told[5].startswith(f"no room for {disk}/a.npy: {disk} has")
    assert told[5].endswith("False")
    assert told[6] == "[]"


KILLED = """
shared = ff.share(np.arange(10**6))
value = ff.SharedValue(1)
say(shared.path)
say(value.path)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["exit", "kill", "close its input"])
def test_nothing_is_left(script: Any, end: str) -> None:
    """L54: the end of the owner removes what it shared; what SIGKILL leaves, the next program of
    this user sweeps."""
    owner = script(KILLED)
    paths = [Path(line(owner)), Path(line(owner))]
    assert all(path.exists() for path in paths)
    if end == "kill":
        owner.kill()
        owner.wait()
        segments.sweep()  # unless the program of another test has done so by now
    else:
        output(owner)
    assert not any(path.exists() or path.parent.exists() for path in paths)
