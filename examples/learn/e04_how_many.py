"""How many workers? The time of the same work by the number of workers, and one number to take.

python examples/learn/e04_how_many.py
"""

import multiprocessing
import time

import fanfold as ff

WORKERS = [1, 2, 4]
INPUTS = [500_000] * 12


def add_up(n: int) -> int:
    """Pure Python that computes: it needs a core of its own."""
    return sum(range(n)) % 97 + sum(x * x for x in range(n)) % 89


def by_hand() -> None:
    """One run each, the start of the pool included: quick to write, and easily misled."""
    for workers in WORKERS:
        began = time.perf_counter()
        with multiprocessing.Pool(workers) as pool:
            pool.map(add_up, INPUTS)
        print(f"  {workers} workers: {time.perf_counter() - began:.3f} s")


def main() -> None:
    print(f"{int(ff.cores())} cores may be used here")
    print("by hand:")
    by_hand()
    print("a study:")
    study = ff.scaling(add_up, INPUTS, workers=WORKERS, repeats=3)
    for workers in study.workers:
        seconds, speedup = study.seconds[workers], study.speedup(workers)
        print(f"  {workers} workers: {seconds:.3f} s, speed-up {speedup:.2f}")
    print(f"take {study.best} workers; equal runs differ by {study.noise:.0%}")
    print(f"reasons for doubt: {len(study.doubts)}")


if __name__ == "__main__":
    main()
