"""Blocks: where arrays come from, and what is told of the wrong ones."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.blocks.conftest import numbers, same_bits

import fanfold as ff
from fanfold.blocks.grid import Grid, row_runs

TABLE = np.round(numbers(60_000).reshape(300, 200), 3)


def agrees(blocks: ff.Blocks, array: np.ndarray[Any, Any]) -> None:
    """Everything that goes through the blocks of a source: counted once each, in its place."""
    assert (blocks.shape, blocks.dtype) == (array.shape, array.dtype.newbyteorder("="))
    assert (blocks.min(), blocks.max()) == (array.min(), array.max())
    assert (blocks.argmin(), blocks.argmax()) == (array.argmin(), array.argmax())
    assert blocks.mean() == pytest.approx(array.mean())
    assert blocks.std() == pytest.approx(array.std())
    assert same_bits(blocks.histogram(9, (-10, 10))[0], np.histogram(array, 9, (-10, 10))[0])
    assert blocks.quantile(0.5) == np.median(array)
    assert blocks.reduce(np.size, lambda a, b: a + b) == array.size


def test_raw_files(tmp_path: Path) -> None:
    """A raw file is what dtype, shape and offset say; without a shape, one axis to the end."""
    path = tmp_path / "table.dat"
    path.write_bytes(b"head" + TABLE.astype(">f4").tobytes())
    expected = TABLE.astype("f4")
    agrees(ff.Blocks(path, dtype=">f4", shape=(300, 200), offset=4), expected)
    assert ff.Blocks(path, dtype=">f4", offset=4).shape == (60_000,)


@pytest.mark.parametrize("part", ["whole", "rows", "transposed", "one", "offset", "written"])
def test_memory_maps(part: str, tmp_path: Path) -> None:
    """A memory map, and a part of one that lies in one piece, is read from its file; what was
    written to the map counts."""
    path = tmp_path / "table"
    path.write_bytes(bytes(4096 + 24) + TABLE.tobytes())
    mode = "r+" if part == "written" else "r"
    mapped = np.memmap(path, "f8", mode, 4096 + 24, (300, 200))
    if part == "written":
        mapped[7, 7] = -1e9
    parts = {"rows": mapped[17:250], "transposed": mapped.T, "one": mapped[3, 10:90]}
    array = parts.get(part, mapped)
    agrees(ff.Blocks(array), np.array(array))


@pytest.mark.parametrize("view", [lambda m: m[:, ::2], lambda m: m[::-1]])
def test_memory_maps_in_pieces_are_refused(view: Any, tmp_path: Path) -> None:
    """A view with steps, or backwards, is refused, and a copy-on-write map, whose changes no file
    holds."""
    np.save(tmp_path / "table.npy", TABLE)
    with pytest.raises(ff.UsageError, match="one piece"):
        ff.Blocks(view(np.load(tmp_path / "table.npy", mmap_mode="r")))
    with pytest.raises(ff.UsageError, match="copy-on-write"):
        ff.Blocks(np.load(tmp_path / "table.npy", mmap_mode="c"))


def test_fields(tmp_path: Path) -> None:
    """Of a structured dtype column= names the field."""
    records = np.zeros(70_000, [("id", "i2"), ("speed", ">f8")])
    records["speed"] = numbers(70_000)
    np.save(tmp_path / "records.npy", records)
    with pytest.raises(ff.UsageError, match="column='id'"):
        ff.Blocks(tmp_path / "records.npy")
    with pytest.raises(ff.UsageError, match="no field 'Speed'"):
        ff.Blocks(tmp_path / "records.npy", column="Speed")
    agrees(ff.Blocks(tmp_path / "records.npy", column="speed"), records["speed"])


@pytest.mark.parametrize("options", [{}, {"chunks": (70, 30), "compression": "gzip"}])
def test_hdf5(options: dict[str, Any], tmp_path: Path) -> None:
    """A dataset of an HDF5 file, in one piece or in compressed chunks, by key or as an object."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("run/1", data=TABLE, **options)
        file.create_dataset("other", data=[1.0])
    agrees(ff.Blocks(tmp_path / "data.h5", key="run/1", memory="32MB"), TABLE)
    with h5py.File(tmp_path / "data.h5", "r") as file:
        assert ff.Blocks(file["run/1"]).max() == TABLE.max()
    with pytest.raises(ff.UsageError, match="'other', 'run/1'"):
        ff.Blocks(tmp_path / "data.h5")
    whole = (tmp_path / "data.h5").read_bytes()
    (tmp_path / "data.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ff.UsageError, match="cannot be read as HDF5"):
        ff.Blocks(tmp_path / "data.h5", key="run/1")


def test_tables(tmp_path: Path) -> None:
    """A column of a CSV file: missing cells are NaN, empty lines no rows; quotes and Windows' ends
    of lines are read; rows are found again whatever piece they are in."""
    values = np.round(numbers(150_000), 3)
    lines = [f'"a, b{n}",{x!r},{n}' for n, x in enumerate(values.tolist())]
    path = tmp_path / "table.csv"
    path.write_text("name,speed,id\r\n" + "\r\n".join(lines) + "\r\n\r\n")
    blocks = ff.Blocks(path, column="speed")
    assert blocks.plan().blocks > 2
    agrees(blocks, values)
    assert ff.Blocks(path, column="id", dtype="i4").sum() == np.arange(150_000).sum()
    path.write_text("x\ty\n1\t2\n3\tNA\n5\t")
    path = path.rename(path.with_suffix(".tsv"))
    assert ff.Blocks(path, column="x").sum() == 9
    assert np.isnan(ff.Blocks(path, column="y").sum())
    with pytest.raises(ff.UsageError, match="'x', 'y'"):
        ff.Blocks(path, column="z")
    path.write_text("x\n1\ntwo\n")
    with pytest.raises(ff.UsageError, match="could not convert string to float"):
        ff.Blocks(path).sum()
    path.write_text('x\n"1\n"\n2\n"')
    with pytest.raises(ff.UsageError, match="several lines"):
        ff.Blocks(path)


def test_parquet(tmp_path: Path) -> None:
    """A column of a Parquet file, by row groups; integers with missing values are floats."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = [None, *range(1, 2000)]
    table = pyarrow.table({"speed": TABLE[0:10].ravel(), "id": column, "name": ["x"] * 2000})
    parquet.write_table(table, tmp_path / "table.parquet", row_group_size=300)
    agrees(ff.Blocks(tmp_path / "table.parquet", column="speed"), TABLE[0:10].ravel())
    identities = ff.Blocks(tmp_path / "table.parquet", column="id")
    assert (identities.dtype, identities.argmax()) == (np.dtype("f8"), 0)
    with pytest.raises(ff.UsageError, match="column 'name'"):
        ff.Blocks(tmp_path / "table.parquet", column="name")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.parquet", "pyarrow", "parquet"), ("a.h5", "h5py", "arrays"), ("a.zarr", "zarr", "arrays")],
)
def test_a_library_that_is_not_installed(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is the line to install it with."""
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ff.UsageError, match=rf'pip install "fanfold\[{extra}\]"'):
        ff.Blocks(tmp_path / name)


def test_sources_of_two_kinds_go_in_pairs(tmp_path: Path) -> None:
    """linear_fit takes x and y from files of different kinds, and cuts both at the same places."""
    h5py = pytest.importorskip("h5py")
    np.save(tmp_path / "x.npy", np.asfortranarray(TABLE))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("y", data=2 * TABLE - 1, chunks=(70, 30))
    x, y = ff.Blocks(tmp_path / "x.npy"), ff.Blocks(tmp_path / "y.h5")
    assert x.linear_fit(y)[:3] == pytest.approx((2, -1, 1))
    assert y.linear_fit(x)[:3] == pytest.approx((0.5, 0.5, 1))
    np.save(tmp_path / "short.npy", TABLE[0])
    with pytest.raises(ff.UsageError, match=r"\(300, 200\)"):
        x.linear_fit(tmp_path / "short.npy")


def test_sources_are_small_to_send(tmp_path: Path) -> None:
    """What goes to a worker is where the array is, and not the array."""
    np.save(tmp_path / "table.npy", TABLE)
    assert len(pickle.dumps(ff.Blocks(tmp_path / "table.npy")._source)) < 1000


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5)])
def test_grids_cover_every_element_once(shape: tuple[int, ...]) -> None:
    """The blocks of a grid, and the runs of a block, hold each element once, in the array's
    order."""
    array = np.arange(np.prod(shape)).reshape(shape)
    for block in np.ndindex(*shape):
        grid = Grid.regular(shape, [length + 1 for length in block])
        seen = [array[grid[k]].ravel() for k in range(len(grid))]
        assert np.array_equal(np.sort(np.concatenate(seen)), array.ravel())
        runs = [np.arange(a, a + n) for k in range(len(grid)) for a, n in row_runs(shape, grid[k])]
        assert np.array_equal(np.concatenate(runs), np.concatenate(seen))


# What is wrong is told before any work ------------------------------------------------------------


def wrong(source: Any, **options: Any) -> str:
    with pytest.raises(ff.UsageError) as error:
        ff.Blocks(source, **options)
    return str(error.value)


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    """A file shorter than its shape says is refused before any work, with both sizes."""
    np.save(tmp_path / "cut.npy", TABLE)
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-1])
    assert f"has {len(whole) - 1} bytes" in wrong(tmp_path / "cut.npy")
    (tmp_path / "raw").write_bytes(bytes(81))
    assert "has 81 bytes" in wrong(tmp_path / "raw", dtype="f8", shape=(3, 4))
    assert "no whole number" in wrong(tmp_path / "raw", dtype="f8")
    (tmp_path / "no.npy").write_bytes(b"\x93NUMPY")
    assert "no .npy file" in wrong(tmp_path / "no.npy")


def test_dtypes_that_are_not_numbers(tmp_path: Path) -> None:
    """Python objects, texts and times are refused by name."""
    for array, told in (
        (np.array([1, "a"], object), "Python objects"),
        (np.array(["a"]), "<U1"),
        (np.array(["2024-01-01"], "M8[D]"), "datetime64"),
    ):
        np.save(tmp_path / "array.npy", array)
        assert told in wrong(tmp_path / "array.npy")


def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    """What is missing, superfluous or of the wrong kind is told with what would be right."""
    np.save(tmp_path / "table.npy", TABLE)
    assert "there is no file" in wrong(tmp_path / "other.npy")
    assert 'dtype="float64"' in wrong(Path(__file__))
    assert "says nothing about an .npy file" in wrong(tmp_path / "table.npy", dtype="f8")
    assert "numpy can do it" in wrong(TABLE)
    assert "memory=0" in wrong(tmp_path / "table.npy", memory=0)
    with pytest.raises(ff.UsageError, match="Give memory="):
        ff.Blocks(tmp_path / "table.npy", memory="1MB").plan()
    with pytest.raises(ff.UsageError, match="from 0 to 1"):
        ff.Blocks(tmp_path / "table.npy").quantile(50)
    with pytest.raises(ff.UsageError, match="bins='auto'"):
        ff.Blocks(tmp_path / "table.npy").histogram("auto")
    with pytest.raises(ff.UsageError, match="name a method"):
        ff.Blocks(tmp_path / "table.npy").plan("median")
