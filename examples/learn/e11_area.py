"""The area under a curve by bars: each MPI rank adds up its share, `reduce` the shares.

    python examples/learn/e11_area.py --bars 100 --ranks 4

The curve is 0.7x³ - 2x² + 4 from 0 to 3; the area is exactly 8.175. A bar is as high as the curve
at its left edge, so that ten bars give 8.09175, a hundred 8.1620175.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import fanfold as ff

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

BEGIN, END = 0.0, 3.0
BATCH = 1_000_000  # bars at a time


def curve(x: np.ndarray) -> np.ndarray:
    return 0.7 * x**3 - 2 * x**2 + 4


def area(comm: Intracomm, bars: int) -> float | None:
    """The area, on rank 0. Rank r takes the bars r, r + size, r + 2 size ...: none is lost."""
    width, share = (END - BEGIN) / bars, 0.0
    mine = range(comm.rank, bars, comm.size)
    for begin in range(0, len(mine), BATCH):
        edges = BEGIN + width * np.array(mine[begin : begin + BATCH])
        share += width * float(curve(edges).sum())
    print(f"{len(mine)} bars: {share:.6f}")
    return comm.reduce(share)  # MPI.SUM, to rank 0


def main() -> None:
    parser = argparse.ArgumentParser(description="The area under a curve, by MPI.")
    parser.add_argument("--bars", type=int, default=100, help="bars in all")
    parser.add_argument("--ranks", type=int, default=2, help="MPI ranks")
    options = parser.parse_args()
    result, *_ = ff.spmd(area, options.ranks, options.bars)
    print(f"area = {result:.8f}, exactly 8.175")


if __name__ == "__main__":
    main()
