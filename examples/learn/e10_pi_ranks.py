"""Pi by points in a circle, as an MPI program: each rank throws its share, rank 0 gathers.

    mpiexec -n 3 python examples/learn/e10_pi_ranks.py --points 3000000 --seed 1
    fanfold mpi -n 3 examples/learn/e10_pi_ranks.py --points 3000000 --seed 1

`--careless` divides the points as many a program does, and loses some.
"""

import argparse

import numpy as np
from mpi4py import MPI

BATCH = 100_000  # points at a time: they fit the cache


def throw(points: int, random: np.random.Generator) -> int:
    """How many of so many points lie in the quarter circle."""
    inside = 0
    for begin in range(0, points, BATCH):
        x, y = random.random((2, min(BATCH, points - begin)))
        inside += int((x * x + y * y < 1).sum())
    return inside


def share(points: int, rank: int, size: int, careless: bool) -> int:
    """How many points are for this rank; the first ranks take one more where they do not divide."""
    return points // size + (not careless and rank < points % size)


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate pi by MPI ranks.")
    parser.add_argument("--points", type=int, default=3_000_000, help="points in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--careless", action="store_true", help="points // size for each rank")
    options = parser.parse_args()

    comm = MPI.COMM_WORLD
    began = MPI.Wtime()
    mine = share(options.points, comm.rank, comm.size, options.careless)
    seed = None if options.seed is None else [options.seed, comm.rank]
    counts = comm.gather((mine, throw(mine, np.random.default_rng(seed))))
    if counts is None:  # only rank 0 has them
        return
    for rank, (thrown, inside) in enumerate(counts):
        print(f"rank {rank}: {inside} of {thrown} points inside")
    thrown, inside = map(sum, zip(*counts, strict=True))
    seconds = MPI.Wtime() - began
    print(f"pi = {4 * inside / thrown:.6f} from {thrown} points in {seconds:.2f} s")
    if thrown < options.points:
        print(f"{options.points - thrown} of {options.points} points were lost")


if __name__ == "__main__":
    main()
