"""The mean of a table that need not fit into memory: the wrong way, by rows, and by blocks.

    python examples/learn/e14_large_file.py
    python examples/learn/e14_large_file.py --rows 40000 --columns 40000 --memory 1GB

The second is the table of the textbooks: it writes 12.8 GB into your temporary folder.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

import fanfold as ff

SCALE = 1 if sys.platform == "darwin" else 1024  # getrusage counts kilobytes, but on macOS bytes

AT_ONCE = 1e9  # bytes: a larger file is not read at once, which might take all of your memory


def write(path: Path, rows: int, columns: int) -> None:
    """A raw file of float64: row ``i`` holds the numbers from ``i`` to ``i + 1``."""
    with path.open("wb") as file:
        for row in range(rows):
            file.write(np.linspace(row, row + 1, columns).data)


def without_dtype(path: Path) -> float:
    """What the textbook's own line does: it reads bytes."""
    return float(np.memmap(path, mode="r").mean())


def by_rows(path: Path, columns: int) -> float:
    table = np.memmap(path, dtype="float64", mode="r").reshape(-1, columns)
    return float(np.mean([row.mean() for row in table]))


def peak() -> float:
    """The most memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * SCALE / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the mean of a large file.")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--columns", type=int, default=4000)
    parser.add_argument("--memory", default="64MB", help="the most to hold (default 64MB)")
    options = parser.parse_args()
    shape = options.rows, options.columns
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.bin")
        write(path, *shape)
        print(f"the file has {path.stat().st_size / 1e6:.0f} MB")
        blocks = ff.Blocks(path, dtype="float64", shape=shape, memory=options.memory)
        print(blocks.plan())
        before = peak()
        print(f"by blocks:       {blocks.mean():.3f}, {peak() - before:.0f} MB")
        print(
            "                 within the budget:", 1e6 * (peak() - before) <= blocks.plan().memory
        )
        print(f"by rows:         {by_rows(path, options.columns):.3f}, {peak() - before:.0f} MB")
        if path.stat().st_size < AT_ONCE:
            whole = np.fromfile(path, dtype="float64")
            print(f"read at once:    {whole.mean():.3f}, {peak() - before:.0f} MB")
        print(f"without a dtype: {without_dtype(path):.3f}: a mean of bytes")


if __name__ == "__main__":
    main()
