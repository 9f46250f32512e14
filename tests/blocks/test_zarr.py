"""Blocks: arrays of Zarr, whose library keeps threads of its own for as long as a program runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, numpy as np, zarr, fanfold as ff
folder = sys.argv[1]
table = np.random.default_rng(1).normal(size=(300, 200))
array = zarr.create_array(folder + "/one.zarr", shape=table.shape, chunks=(70, 30), dtype="f8")
array[:] = table
group = zarr.open_group(folder + "/two.zarr", mode="w")
for name in "ab":
    group.create_array(name, shape=table.shape, chunks=(300, 50), dtype=">f4")[:] = table
for source, key in ((folder + "/one.zarr", None), (array, None)):
    blocks = ff.Blocks(source, key=key)
    assert blocks.argmax() == table.argmax()
    assert np.isclose(blocks.var(), table.var(), rtol=1e-14)
    assert blocks.histogram(9)[0].tolist() == np.histogram(table, 9)[0].tolist()
assert (ff.evaluate("blocks * 2 + 1") == table * 2 + 1).all()
assert ff.Blocks(folder + "/two.zarr", key="b").max() == table.astype("f4").max()
try:
    ff.Blocks(folder + "/two.zarr")
except ff.UsageError as error:
    print(error)
"""


def test_zarr(tmp_path: Path) -> None:
    """An array in a Zarr folder, by path or as an object, or one of a group by key; in an
    expression, too."""
    pytest.importorskip("zarr")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.endswith("two.zarr needs key=: its arrays are 'a', 'b'\n"), done.stderr
