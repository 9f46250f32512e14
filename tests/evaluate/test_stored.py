"""Operands in files: `Blocks` in an expression give what the arrays would, within their budget."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate.conftest import in_numpy, same
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.blocks.tables import ParquetSource
from fanfold.expressions import gpu, stored
from fanfold.expressions.operands import bind
from fanfold.expressions.text import parse

Make = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of the tests are many blocks."""
    monkeypatch.setattr(stored, "BLOCK", 2**12)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, Any], Any]:
    """Keeps arrays as ``NAME.npy``, in C order or Fortran's, and gives their Blocks."""

    def kept(name: str, array: Any) -> ff.Blocks:
        np.save(tmp_path / f"{name}.npy", array)
        return ff.Blocks(tmp_path / f"{name}.npy")

    return kept


ELEMENTWISE = [
    "a**2 + b**2 + 2*a*b",
    "where(a > row, a, sin(b)) * column",
    "number - a",
    "a - mean(a)",
    "(a - mean(a, axis=0)) / max(b, axis=1, keepdims=True)",
]


@pytest.mark.parametrize("text", ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i2"])
def test_elements_are_those_of_arrays(text: str, dtype: str, save: Any, random: Make) -> None:
    """The same text gives the same values for files as for arrays, bit for bit where no sum of
    floats is in it: files and arrays may be mixed, broadcast and be in either order."""
    arrays = {
        "a": random(90, 200).astype(dtype),
        "b": np.asfortranarray(random(90, 200).astype(dtype)),
        "row": random(200),
        "column": random(90, 1),
        "number": np.array(1.5),
    }
    files = {name: save(name, array) for name, array in arrays.items()}
    expected = in_numpy(text, **{n: x.astype(x.dtype.newbyteorder("=")) for n, x in arrays.items()})
    for given in (files, files | {"b": arrays["b"], "row": arrays["row"]}):
        found = ff.evaluate(text, given, workers=2)
        if "mean" in text:
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        else:
            same(found, expected)


REDUCTIONS = ["sum(a * b)", "mean(a)", "min(a)", "max(a * 2)", "prod(a > -9)", "any(a > 8)"]


@pytest.mark.parametrize("axis", ["", ", axis=0", ", axis=1", ", axis=(0, 2)", ", keepdims=True"])
@pytest.mark.parametrize("text", REDUCTIONS)
def test_reductions_are_those_of_arrays(text: str, axis: str, save: Any, random: Make) -> None:
    """Over all axes or some, of the dtype and shape that NumPy gives, and the same bits for any
    number of threads."""
    arrays = {"a": random(30, 40, 50), "b": random(50)}
    files = {name: save(name, array) for name, array in arrays.items()}
    text = text.replace(")", axis + ")")
    found, expected = ff.evaluate(text, files, workers=1), in_numpy(text, **arrays)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-10, strict=True)
    same(ff.evaluate(text, files, workers=3), found)


@pytest.mark.parametrize("shape", [(9000, 3), (3, 9000), (20, 30, 40)])
def test_files_in_fortrans_order_are_read_in_long_runs(
    shape: tuple[int, ...], save: Any, random: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are whole columns there: a file is not read element by element."""
    a = np.asfortranarray(random(*shape))
    blocks = save("a", a)
    reads: list[int] = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: reads.append(1) or preadv(*given))
    same(ff.evaluate("a + 1", {"a": blocks}), a + 1)
    assert len(reads) <= 4 * a.size / min(shape[0], stored.BLOCK)


def test_row_groups_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are cut where the pieces of a file are, so that none is read for two of them."""
    arrow = pytest.importorskip("pyarrow")
    values = np.arange(20_000.0)
    pytest.importorskip("pyarrow.parquet").write_table(
        arrow.table({"x": values}), tmp_path / "x.parquet", row_group_size=5000
    )
    read: list[int] = []
    piece = ParquetSource.piece

    def noting(self: ParquetSource, number: int) -> Any:
        read.append(number)
        return piece(self, number)

    monkeypatch.setattr(ParquetSource, "piece", noting)
    assert ff.evaluate("sum(x)", {"x": ff.Blocks(tmp_path / "x.parquet")}) == values.sum()
    assert sorted(read) == [0, 1, 2, 3]


def test_integers_are_exact(save: Any) -> None:
    """Sums of integers wrap round as in NumPy; extremes keep NaN."""
    numbers = np.arange(50_000, dtype="i8") * 2**50
    assert ff.evaluate("sum(n)", {"n": save("n", numbers)}) == numbers.sum()
    holes = np.where(np.arange(50_000) == 31_000, np.nan, 1)
    assert np.isnan(ff.evaluate("max(h)", {"h": save("h", holes)}))


@pytest.mark.parametrize("kind", ["hdf5", "csv", "parquet"])
def test_files_of_every_kind(kind: str, tmp_path: Path, random: Make) -> None:
    """Operands may come from chunked files and from columns of tables."""
    values = random(20_000)
    if kind == "hdf5":
        path, options = tmp_path / "x.h5", {"chunks": (3000,), "compression": "gzip"}
        with pytest.importorskip("h5py").File(path, "w") as file:
            file.create_dataset("x", data=values, **options)
    elif kind == "csv":
        path = tmp_path / "x.csv"
        path.write_text("x\n" + "\n".join(map(repr, values.tolist())))
    else:
        path, arrow = tmp_path / "x.parquet", pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            arrow.table({"x": values}), path, row_group_size=3000
        )
    same(ff.evaluate("x * 2 + 1", {"x": ff.Blocks(path)}), values * 2 + 1)


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_nothing_and_one_number(shape: tuple[int, ...], save: Any) -> None:
    """A file of no elements, and one of no axes, are as such arrays."""
    array = np.ones(shape)
    given = {"a": save("a", array)}
    same(ff.evaluate("a + 1", given), array + 1)
    same(ff.evaluate("sum(a)", given), array.sum())


# Where the result goes ----------------------------------------------------------------------------


def test_out_is_a_new_file(tmp_path: Path, save: Any, random: Make) -> None:
    """A path is that of a new .npy file, for operands in files and in memory, and for reductions;
    what comes back is its map."""
    a = random(300, 100)
    for given in (save("a", a), a):
        for text in ("a * a + 1", "max(a, axis=1)", "max(a)"):
            found = ff.evaluate(text, {"a": given}, out=tmp_path / "out.npy")
            assert isinstance(found, np.memmap)
            same(np.asarray(found), in_numpy(text, a=a))
            same(np.load(tmp_path / "out.npy"), in_numpy(text, a=a))
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.npy"]


class HeldUp:
    """Ones, of which one thread gets a block only when others have read five more."""

    blocks = 96

    def __init__(self, out: Path) -> None:
        self._out, self._reads, self._slow = out, 0, 0
        self._another = threading.Condition()
        self.resident = 0  # bytes of the file ``out`` that were mapped, at most

    def __stored__(self) -> stored.Stored:
        shape = (self.blocks * stored.BLOCK,)
        return stored.Stored(shape, np.dtype(float), "", self._read, lambda most: None, 8, 1 << 20)

    def _read(self, region: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        with self._another:
            self._reads += 1
            self._another.notify_all()
            self._slow = self._slow or threading.get_ident()
            if self._slow == threading.get_ident():
                wanted = min(self._reads + 5, self.blocks)
                assert self._another.wait_for(lambda: self._reads >= wanted, timeout=60)
            self.resident = max(self.resident, self._resident())
        return np.ones(region[0].stop - region[0].start)

    def _resident(self) -> int:
        with open("/proc/self/smaps") as maps:
            lines = list(maps)
        [start] = (n for n, line in enumerate(lines) if self._out.name in line)
        return int(lines[start + 4].removeprefix("Rss:").split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells which pages are mapped")
def test_who_is_held_up_keeps_no_pages(tmp_path: Path) -> None:
    """While one thread is slow, what it writes is let go of as well: of a result in a file no more
    than four blocks a thread are mapped, which is what the budget counts."""
    held_up = HeldUp(tmp_path / "out.npy")
    found = ff.evaluate("x + 1", {"x": held_up}, out=tmp_path / "out.npy", workers=2)
    assert found.shape == (held_up.blocks * stored.BLOCK,)
    assert (np.asarray(found) == 2).all()
    assert 0 < held_up.resident <= 2 * 4 * stored.BLOCK * 8


def test_out_may_replace_an_operand(tmp_path: Path, save: Any, random: Make) -> None:
    """The new file takes its name at the end, so it may be that of an operand; a map of the
    operand's file is refused, for it would change what is still to be read."""
    a = random(20_000)
    blocks = save("a", a)
    ff.evaluate("a + 1", {"a": blocks}, out=tmp_path / "a.npy")
    same(np.load(tmp_path / "a.npy"), a + 1)
    out = np.load(tmp_path / "a.npy", mmap_mode="r+")
    with pytest.raises(ff.UsageError, match="file of an operand"):
        ff.evaluate("a * 2", {"a": blocks}, out=out)


def test_a_failure_leaves_no_file(tmp_path: Path, save: Any) -> None:
    """After an error there is no half result, under no name, and what was there stays."""
    given = {"a": save("a", np.zeros(20_000))}
    (tmp_path / "out.npy").write_text("before")
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        ff.evaluate("1 / a", given, out=tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.npy"]


FULL = """
import os, sys
import numpy as np, fanfold as ff
source, out = sys.argv[1:]
try:
    ff.evaluate("a + 1", {"a": ff.Blocks(source)}, out=out)
except ff.NoSpace as error:
    assert os.listdir(os.path.dirname(out)) == [], os.listdir(os.path.dirname(out))
    print("no space")
"""


@mounts
def test_a_full_disk(tmp_path: Path, save: Any) -> None:
    """Where the disk has no room for the new file, that is `NoSpace` before any work."""
    save("a", np.zeros(2**20))
    disk = tmp_path / "disk"
    disk.mkdir()
    paths = [str(tmp_path / "a.npy"), str(disk / "out.npy")]
    command = [*with_mounts((disk, "4m")), sys.executable, "-c", FULL, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "no space\n", done.stderr


# The budget, and what is wrong --------------------------------------------------------------------


def test_a_result_larger_than_the_budget_goes_to_a_file(tmp_path: Path, save: Any) -> None:
    """The result counts, too: one that is larger than memory= is refused, with what to do."""
    save("a", np.zeros(2**18))
    blocks = ff.Blocks(tmp_path / "a.npy", memory="1MB")
    with pytest.raises(ff.UsageError, match=r'has 2.0 MB, and memory=.* out="result.npy"'):
        ff.evaluate("a + 1", {"a": blocks})
    assert ff.evaluate("a + 1", {"a": blocks}, out=tmp_path / "out.npy").sum() == 2**18
    with pytest.raises(ff.UsageError, match='Give memory="1MB" or more'):
        ff.evaluate("max(a)", {"a": ff.Blocks(tmp_path / "a.npy", memory=1000)})


def test_a_file_that_was_cut(tmp_path: Path, save: Any) -> None:
    """A file that is shorter than it was is `SourceChanged`, in elements and in reductions."""
    given = {"a": save("a", np.zeros(50_000))}
    os.truncate(tmp_path / "a.npy", 200_000)
    for text in ("a + 1", "sum(a)"):
        with pytest.raises(ff.SourceChanged, match="ends at byte"):
            ff.evaluate(text, given, workers=2)


def test_shapes_and_places_that_do_not_go(save: Any) -> None:
    """Shapes that do not broadcast are named; a GPU takes arrays only."""
    given = {"a": save("a", np.zeros((30, 40))), "b": np.zeros(30)}
    with pytest.raises(ff.UsageError, match=r"a \(30, 40\), b \(30,\)"):
        ff.evaluate("a + b", given)
    with pytest.raises(ff.UsageError, match="there is no variable 'c'"):
        ff.evaluate("a + c", given)
    graph = parse("a + 1")
    with pytest.raises(ff.UsageError, match='on="cuda" takes arrays'):
        gpu.compute(None, graph, bind(graph, given), None)
