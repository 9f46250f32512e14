"""Where results go: new arrays, out=, operands themselves, files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate.conftest import same
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.errors import UsageError

N = 30_000


def test_out_takes_the_result_and_is_returned(way: str) -> None:
    """out= is filled and returned, for expressions, reductions and single numbers."""
    a, out = np.arange(float(N)), np.empty(N)
    assert ff.evaluate("a * 2 + 1", {"a": a}, out=out) is out
    same(out, a * 2 + 1)
    total = np.empty(())
    assert ff.evaluate("sum(a)", {"a": a}, out=total) is total
    assert total == a.sum()
    table = a.reshape(300, 100)
    columns = np.empty(100)
    ff.evaluate("sum(a, axis=0)", {"a": table}, out=columns)
    same(columns, table.sum(axis=0))
    assert ff.evaluate("1 + 2", {}, out=total) == 3


def test_out_of_another_dtype_is_converted(way: str) -> None:
    """As NumPy's same-kind rule allows: float64 into float32, integers into floats."""
    a = np.arange(float(N)) / 3
    out = np.empty(N, np.float32)
    same(ff.evaluate("a * 2", {"a": a}, out=out), (a * 2).astype(np.float32))
    same(ff.evaluate("n + 1", {"n": np.arange(N)}, out=out), np.arange(1, N + 1, dtype=np.float32))


def test_out_that_does_not_fit_is_refused() -> None:
    """Wrong shape, wrong dtype, read-only, no array: the message says what would be right."""
    a, locked = np.ones(3), np.ones(3)
    locked.flags.writeable = False
    given: dict[str, Any] = {"a": a}
    for out, words in {
        "shape": (np.ones(4), r"make out = np.empty\(\(3,\)\)"),
        "row": (np.ones((1, 3)), r"the result \(3,\)"),
        "dtype": (np.ones(3, int), "make out of dtype float64"),
        "locked": (locked, "read-only"),
        "list": ([0, 0, 0], "has to be a NumPy array"),
    }.values():
        with pytest.raises(UsageError, match=words):
            ff.evaluate("a + 1", given, out=out)


LAYOUTS: list[Callable[[Any], Any]] = [
    lambda a: a,
    lambda a: a.T,
    lambda a: a[::-1],
    lambda a: a[:, ::-2],
    lambda a: a[:, 3:-5],
    lambda a: a[:, None, :],
    lambda a: np.lib.stride_tricks.as_strided(a, a.shape, a.strides),
]


@pytest.mark.parametrize("number", range(len(LAYOUTS)))
@pytest.mark.parametrize("dtype", ["d", "f"])
def test_any_layout_of_operands_and_out(
    way: str, number: int, dtype: str, random: Callable[..., Any]
) -> None:
    """Views of any kind are read and written right; a new result lies as NumPy's would."""
    a, b = (LAYOUTS[number](random(130, 517, dtype=dtype)) for _ in "ab")
    expected = a * b + a
    found = ff.evaluate("a * b + a")
    same(found, expected)
    assert found.strides == expected.strides
    out = LAYOUTS[number](np.zeros((130, 517), dtype))
    same(ff.evaluate("a * b + a", out=out), expected)
    out = np.empty(expected.shape[::-1], dtype).T
    same(ff.evaluate("a * b + a", out=out), expected)


def test_rows_columns_and_numbers_broadcast(way: str, random: Callable[..., Any]) -> None:
    """A row, a column, a number and a table, in any place."""
    table, row, column = random(260, 333), random(333), random(260, 1)
    same(ff.evaluate("table * row - column / 3"), table * row - column / 3)
    same(ff.evaluate("row + column"), row + column)
    same(ff.evaluate("sqrt(abs(column)) * row"), np.sqrt(np.abs(column)) * row)


def test_a_result_too_large_for_the_caches(way: str) -> None:
    """Large results are stored past the caches, from an address that is no multiple of a vector."""
    for dtype, shift in (("d", 1), ("f", 3), ("f", 0)):
        a = np.arange(2**23 + 21, dtype=dtype)[shift:]
        out = np.zeros(2**23 + 21, dtype)[shift:]
        assert np.array_equal(ff.evaluate("a * a - a", out=out), a * a - a)


@pytest.mark.parametrize("text", ["a * 2 + b", "where(b > 0, a, b)", "b - a", "a"])
def test_out_may_be_an_operand_or_overlap_one(way: str, text: str) -> None:
    """The values are as if every operand was read before anything is written."""
    begin = np.arange(2.0 * N) % 97 - 40

    def views(memory: Any) -> list[tuple[Any, Any, Any]]:
        return [
            (memory[:N], memory[N:], memory[:N]),
            (memory[:N], memory[N:], memory[N:]),
            (memory[:-1], memory[1:], memory[1:]),
            (memory[:-1], memory[1:], memory[:-1]),
            (memory, memory[::-1], memory),
        ]

    for number in range(5):
        a, b, _ = views(begin.copy())[number]
        expected = ff.evaluate(text, {"a": a, "b": b})
        a, b, out = views(begin.copy())[number]
        same(ff.evaluate(text, {"a": a, "b": b}, out=out), expected)


def test_a_reduction_may_be_written_into_its_operand(way: str) -> None:
    """out= is written when everything has been read."""
    a = np.ones((300, 100))
    ff.evaluate("sum(a, axis=0)", out=a[7])
    assert a[7].tolist() == [300.0] * 100
    assert a.sum() == 299 * 100 + 300 * 100


# Files --------------------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[..., Any]:
    """A new array in a file."""

    def make(name: str, count: int = N) -> Any:
        return np.lib.format.open_memmap(tmp_path / name, "w+", dtype=float, shape=(count,))

    return make


def test_operands_and_results_in_files(way: str, mapped: Callable[..., Any]) -> None:
    """Memory maps are read tile by tile and written in place: same text, same answer."""
    a, b, out = mapped("a.npy"), mapped("b.npy"), mapped("out.npy")
    a[:], b[:] = np.arange(N), np.arange(N)[::-1]
    assert ff.evaluate("a**2 + b**2 + 2*a*b", out=out) is out
    out.flush()
    same(np.load(out.filename), np.full(N, float((N - 1) ** 2)))
    assert ff.evaluate("sum(a * b)") == np.sum(np.arange(N) * np.arange(N)[::-1])


def test_a_file_that_was_cut_is_noticed(mapped: Callable[..., Any]) -> None:
    """Reading past the end of a file would end the process; it is an error that names it."""
    a = mapped("a.npy")
    part = a[100:200].reshape(2, 50)
    os.truncate(a.filename, 4096)
    for operand in (a, part):
        with pytest.raises(UsageError, match="the file behind a has 4096 bytes, and had"):
            ff.evaluate("a + 1", {"a": operand})


FULL = """
import numpy as np, fanfold as ff, sys
for count in (10**5, 10**6):
    out = np.lib.format.open_memmap(sys.argv[1], "w+", dtype=float, shape=(count,))
    try:
        ff.evaluate("a + 1", {"a": np.ones(count)}, out=out)
        print(out.sum())
    except ff.NoSpace as error:
        print(error.strerror)
"""


@mounts
def test_a_disk_without_room_for_out_is_noticed(tmp_path: Path) -> None:
    """Writing to a page without a block would end the process; room is asked for before."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*with_mounts((disk, "4m")), sys.executable, "-c", FULL, str(disk / "out.npy")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    fits, full = told.stdout.splitlines()
    assert fits == "200000.0"
    assert full.startswith("no room for the 8000128 bytes of out: No space left")
