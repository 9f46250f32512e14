"""Blocks: the budget of memory is kept, and what happens to files ends in a typed error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.blocks.conftest import numbers, same_bits
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.blocks.files import of_npy
from fanfold.blocks.source import TILE
from fanfold.blocks.window import Window

MEGABYTE = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 8 tiles."""
    np.save(tmp_path / "numbers.npy", numbers(8 * TILE))
    return tmp_path / "numbers.npy"


# Files that change --------------------------------------------------------------------------------


def test_a_file_that_shrinks_is_an_error(path: Path) -> None:
    """A file that is cut after the work was planned is `SourceChanged`, with where it ends; no
    signal ends us."""
    for on in ("threads", "processes"):
        blocks = ff.Blocks(path, on=on, workers=2)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        with pytest.raises(ff.SourceChanged, match="ends at byte"):
            blocks.mean()
        np.save(path, numbers(8 * TILE))


def test_who_cuts_a_mapped_file_waits(path: Path) -> None:
    """While a part of the file is mapped, cutting it waits for the tile at hand; the other tiles
    are read, and the end that is not there any more is `SourceChanged`."""
    source = of_npy(path)
    tiles = source.tiles((slice(0, source.size),))
    first = next(tiles)
    with open(path, "rb") as file:
        if (window := Window.open(file.fileno(), 0, 100)) is None:
            pytest.skip("no leases on this file system, so nothing is mapped")
        window.release()
    cutting = threading.Thread(target=os.truncate, args=(path, 128 + 3 * first.nbytes))
    cutting.start()
    cutting.join(0.2)
    assert cutting.is_alive()
    assert np.isfinite(first.sum())  # the page is there
    assert [len(next(tiles)), len(next(tiles))] == [TILE, TILE]
    cutting.join()
    with pytest.raises(ff.SourceChanged):
        list(tiles)


def test_leases_are_given_back(path: Path) -> None:
    """After a reduction, and after one that is left in the middle, the file can be written to."""
    source = of_npy(path)
    tiles = source.tiles((slice(0, source.size),))
    next(tiles)
    tiles.close()
    ff.Blocks(path).mean()
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # EWOULDBLOCK while somebody has a lease


def test_mapped_and_read_tiles_are_the_same(path: Path) -> None:
    """Tiles that are mapped and tiles that are read, because the file is open for writing, hold
    the same bytes, and the last one what is left."""
    source = of_npy(path)
    part = (slice(5, 3 * TILE),)
    mapped = [tile.copy() for tile in source.tiles(part)]
    with open(path, "r+b"):
        read = [tile.copy() for tile in source.tiles(part)]
    assert [len(tile) for tile in mapped] == [TILE, TILE, TILE - 5]
    assert all(map(same_bits, mapped, read))


# The budget ---------------------------------------------------------------------------------------

MEASURED = """
import sys, threading, psutil
from pathlib import Path
import numpy as np, fanfold as ff
path, on, memory, method = sys.argv[1:]

def tree():
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            pass
    return total

me, over, peak = psutil.Process(), threading.Event(), 0
blocks = ff.Blocks(path, on=on, memory=memory, workers=2)
ff.map(np.sum, [[1.0], [2.0]], on="threads", workers=2)
arguments = {"map": (np.sqrt, path + ".out"), "quantile": (0.5,)}.get(method, ())
text = "(blocks - mean(blocks, axis=0))**2"
before = tree()

def watch():
    global peak
    while not over.wait(0.005):
        peak = max(peak, tree())

watching = threading.Thread(target=watch)
watching.start()
try:
    if method == "evaluate":
        ff.evaluate(text, out=path + ".out", workers=2)
    else:
        getattr(blocks, method)(*arguments)
finally:
    over.set()
watching.join()
print(peak - before, 0 if method == "evaluate" else blocks.plan(method).peak)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of 192 MB: more than any budget here."""
    path = tmp_path_factory.mktemp("large") / "large.npy"
    mapped = np.lib.format.open_memmap(path, "w+", "f8", (1536, 16384))
    mapped[:] = np.random.default_rng(1).random(16384)
    del mapped
    yield path
    for left in path.parent.iterdir():
        left.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is told by Linux alone")
@pytest.mark.parametrize(
    ("on", "memory", "method"),
    [
        ("threads", "32MB", "mean"),
        ("threads", "32MB", "var"),
        ("threads", "64MB", "quantile"),
        ("threads", "48MB", "map"),
        ("threads", "32MB", "evaluate"),
        ("processes", "160MB", "std"),
    ],
)
def test_the_budget_is_kept(on: str, memory: str, method: str, large: Path) -> None:
    """What the whole tree of processes holds beyond the interpreter stays within the budget, and
    so does the peak that the plan tells. Pages that are mapped count."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(large), on, memory, method],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    grown, planned = map(int, done.stdout.split())
    assert grown <= int(memory[:-2]) * MEGABYTE
    assert planned <= int(memory[:-2]) * MEGABYTE


def test_the_plan_is_told_before(path: Path) -> None:
    """The plan says blocks, workers and bytes in a sentence, and needs nothing to be read."""
    plan = ff.Blocks(path, memory="24MB", workers=2).plan()
    told = "2 blocks of 4.0 MB or less, 2 at a time on threads: at most 24.0 MB of 24.0 MB"
    assert str(plan) == told


def test_fewer_workers_where_the_budget_is_small(tmp_path: Path) -> None:
    """Where blocks cannot be smaller, fewer are read at once; where one is too large the error
    says how much it takes."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((4, MEGABYTE)), chunks=(1, MEGABYTE))
    assert ff.Blocks(tmp_path / "data.h5", memory="60MB", workers=4).plan().workers == 2
    with pytest.raises(ff.UsageError, match='Give memory="24MB" or more'):
        ff.Blocks(tmp_path / "data.h5", memory="16MB").mean()


# Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["serial", "threads", "processes"])
def test_map_writes_what_numpy_would(on: str, tmp_path: Path) -> None:
    """The new file is NumPy's result for the whole array, whatever the order of the source."""
    array = np.abs(numbers(120_000).reshape(300, 400))
    for name, stored in (("c", array), ("f", np.asfortranarray(array))):
        np.save(tmp_path / f"{name}.npy", stored)
        blocks = ff.Blocks(tmp_path / f"{name}.npy", on=on, workers=2, memory="128MB")
        out = blocks.map(np.sqrt, tmp_path / "out.npy")
        assert same_bits(np.load(tmp_path / "out.npy"), np.sqrt(array))
        assert out.shape == array.shape
    blocks.map(lambda block: block > 1, tmp_path / "out.npy")
    assert same_bits(np.load(tmp_path / "out.npy"), array > 1)
    blocks.map(np.sqrt, tmp_path / "out.npy", dtype="f4")
    assert same_bits(np.load(tmp_path / "out.npy"), np.sqrt(array).astype("f4"))


def fails_late(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if block.size > 1:
        raise RuntimeError("later")
    return block


def test_a_map_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    """After an error there is no half file, under no name, and what was there before is as it
    was; a function that does not keep the shape is told of."""
    out = tmp_path / "out" / "out.npy"
    out.parent.mkdir()
    out.write_text("before")
    blocks = ff.Blocks(path)
    with pytest.raises(RuntimeError, match="later"):
        blocks.map(fails_late, out)
    with pytest.raises(ff.UsageError, match="keeps the shape"):
        blocks.map(np.sum, out)
    with pytest.raises(ff.UsageError, match="Python objects"):
        blocks.map(lambda block: block.astype(object), out)
    assert [one.name for one in out.parent.iterdir()] == ["out.npy"]
    assert out.read_text() == "before"


DURABLE = """
import os, sys
import numpy as np, fanfold as ff

def noted(block):
    if block.size > 1:
        with open("seen", "a") as file:
            print(int(block[0]), file=file)
        if block[0] == 3 * 2**17 and os.path.exists("kill"):
            os.kill(os.getpid(), 9)
        if block[0] == 3 * 2**17 and os.path.exists("fail"):
            raise RuntimeError("this block, this time")
    return block + 1

blocks = ff.Blocks("ramp.npy", memory="16MB", on="serial", run="ramp")
blocks.map(noted, "out.npy")
"""


def test_a_durable_map_goes_on(tmp_path: Path) -> None:
    """With run= a block may fail, and the driver be killed: out is as it was, and the same call
    computes what was not written and recorded. When the file is complete, it begins anew."""
    np.save(tmp_path / "ramp.npy", np.arange(8.0 * TILE))
    (tmp_path / "out.npy").write_text("before")
    (tmp_path / "map.py").write_text(DURABLE)

    def blocks_seen(trouble: str, code: int) -> list[int]:
        (tmp_path / "seen").unlink(missing_ok=True)
        if trouble:
            (tmp_path / trouble).touch()
        done = subprocess.run(
            [sys.executable, "map.py"], cwd=tmp_path, capture_output=True, timeout=60
        )
        if trouble:
            (tmp_path / trouble).unlink()
        assert done.returncode == code, done.stderr
        return [int(line) // TILE for line in (tmp_path / "seen").read_text().split()]

    written = {*blocks_seen("fail", 1)} - {3}
    assert written >= {0, 1, 2}
    assert blocks_seen("kill", -9) == [3]
    assert (tmp_path / "out.npy").read_text() == "before"
    assert {*blocks_seen("", 0)} == {*range(8)} - written
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.arange(8.0 * TILE) + 1)
    assert not list(tmp_path.glob(".out.npy.*"))
    assert sorted(blocks_seen("", 0)) == [*range(8)]


FULL = """
import errno, os, sys
import numpy as np, fanfold as ff
source, out = sys.argv[1:]
try:
    ff.Blocks(source).map(np.abs, out)
except ff.NoSpace as error:
    assert error.errno == errno.ENOSPC, error
    assert os.listdir(os.path.dirname(out)) == [], os.listdir(os.path.dirname(out))
    print("no space")
"""


@mounts
def test_a_full_disk(path: Path, tmp_path: Path) -> None:
    """Where the disk has no room for the result, that is `NoSpace`, and no half file is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*with_mounts((disk, "4m")), sys.executable, "-c", FULL, str(path), f"{disk}/out.npy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "no space\n", done.stderr


def test_a_disk_that_fills_while_blocks_are_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where room cannot be kept, a disk that is full in the middle is `NoSpace` as well."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ff.NoSpace):
        ff.Blocks(path).map(np.abs, tmp_path / "out.npy")
    assert not list(tmp_path.glob("*out*"))
