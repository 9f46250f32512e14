"""Pi by random points: each task throws points into a square and counts those inside the circle.

    python examples/learn/e03_pi.py

Each task returns (points, points inside). Their sums give pi.
"""

import multiprocessing
import time

import numpy as np

import fanfold as ff

TASKS = 10


def throw(points: int) -> tuple[int, int]:
    """(points thrown, points inside), from the random stream of the running task."""
    x, y = ff.rng().random((2, points))
    return points, int((x * x + y * y < 1).sum())


def throw_wrong(points: int) -> tuple[int, int]:
    """The same from NumPy's one global generator, which every forked worker inherits."""
    x, y = np.random.rand(2, points)
    return points, int((x * x + y * y < 1).sum())


def pi(counts: list[tuple[int, int]]) -> float:
    thrown, inside = zip(*counts, strict=True)
    return 4 * sum(inside) / sum(thrown)


def main() -> None:
    print("the same seed on 1, 2 and 3 workers, and without processes:")
    for on, workers in (("processes", 1), ("processes", 2), ("processes", 3), ("serial", 1)):
        counts = ff.map(throw, [100_000] * TASKS, on=on, workers=workers, seed=12)
        print(f"  {on:9} {workers}: pi = {pi(counts):.6f}")

    print("more points, closer to pi:")
    for points in (1_000, 100_000, 1_000_000):
        counts = ff.map(throw, [points] * TASKS, seed=12)
        print(f"  {TASKS * points:>10,}: off by {abs(pi(counts) - np.pi):.6f}")

    print("time for 40 million points:")
    for workers in (1, 2):
        with ff.executor("processes", workers=workers) as pool:
            ff.map(throw, [1] * workers, on=pool)  # the workers are started, and have NumPy
            began = time.perf_counter()
            ff.map(throw, [1_000_000] * 4 * TASKS, on=pool, seed=12)
            print(f"  {workers} worker{'s' * (workers > 1)}: {time.perf_counter() - began:.2f} s")

    print("wrong: forked workers that share one generator's state:")
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        with context.Pool(1) as one_worker:
            print("  points inside:", *one_worker.map(throw_wrong, [1000, 1000]))


if __name__ == "__main__":
    main()
