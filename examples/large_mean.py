"""The mean of a table that does not fit into memory, three ways; the first of them is wrong.

    python examples/large_mean.py --rows 2000

A raw file says nothing about itself. Read without its dtype it is bytes, whose mean means nothing.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fanfold as ff


def write(path: Path, rows: int, columns: int) -> None:
    """A raw file of float64: row ``i`` holds the numbers from ``i`` to ``i + 1``."""
    with path.open("wb") as file:
        for row in range(rows):
            file.write(np.linspace(row, row + 1, columns).data)


def by_rows(path: Path, columns: int) -> float:
    """A loop over a memory map: right, on one core, and as careful as its author."""
    table = np.memmap(path, dtype="float64", mode="r").reshape(-1, columns)
    return float(np.mean([row.mean() for row in table]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the mean of a large file.")
    parser.add_argument("--rows", type=int, default=2000, help="rows (default 2000)")
    parser.add_argument("--columns", type=int, default=4000, help="columns (default 4000)")
    parser.add_argument("--memory", default="64MB", help="the most to hold (default 64MB)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.bin")
        write(path, options.rows, options.columns)
        print(f"as bytes: {np.memmap(path, mode='r').mean():.6f}")
        print(f"by rows:  {by_rows(path, options.columns):.6f}")
        blocks = ff.Blocks(
            path, dtype="float64", shape=(options.rows, options.columns), memory=options.memory
        )
        print(blocks.plan())
        print(f"blocks:   {blocks.mean():.6f}")
        print(f"largest:  {blocks.max():.6f}, element {blocks.argmax()}")


if __name__ == "__main__":
    main()
