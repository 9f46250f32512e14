"""Pi by points in a circle: throw points into a square, count those inside the quarter circle.

    python examples/pi.py --points 10000000 --tasks 10 --workers 4 --seed 1

Every task draws from its own random stream (`ff.rng`), keyed by the seed and the task's index:
the digits are the same for any number of workers.
"""

import argparse
import time

import fanfold as ff

BATCH = 100_000  # points at a time: they fit the cache, and memory stays small


def throw(points: int) -> tuple[int, int]:
    """(points thrown, points inside), from the random stream of the running task."""
    random, inside = ff.rng(), 0
    for begin in range(0, points, BATCH):
        x, y = random.random((2, min(BATCH, points - begin)))
        inside += int((x * x + y * y < 1).sum())
    return points, inside


def split(points: int, tasks: int) -> list[int]:
    """``points`` divided between ``tasks`` tasks as evenly as possible; none is lost."""
    return [points // tasks + (task < points % tasks) for task in range(tasks)]


def estimate(points: int, tasks: int, workers: int | None, seed: int | None) -> float:
    """Pi from ``points`` points, thrown by ``tasks`` tasks."""
    counts = ff.map(throw, split(points, tasks), workers=workers, seed=seed)
    thrown, inside = zip(*counts, strict=True)
    return 4 * sum(inside) / sum(thrown)


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate pi by points in a circle.")
    parser.add_argument("--points", type=int, default=10_000_000, help="points in all")
    parser.add_argument("--tasks", type=int, default=10, help="tasks they are divided between")
    parser.add_argument("--workers", type=int, help="worker processes (default: every core)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same digits")
    options = parser.parse_args()
    if not 1 <= options.tasks <= options.points:
        parser.error("--tasks must be at least 1 and at most --points")
    began = time.perf_counter()
    pi = estimate(options.points, options.tasks, options.workers, options.seed)
    print(f"pi = {pi:.6f} ({options.points:,} points in {time.perf_counter() - began:.2f} s)")


if __name__ == "__main__":
    main()
