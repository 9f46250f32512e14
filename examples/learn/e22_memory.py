"""What gives memory back, and what does not: `del`, cycles, the garbage collector, a cache.

    python examples/learn/e22_memory.py

Three tasks, one after the other in the same worker, make an array of 80 MB each.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import psutil

import fanfold as ff

ELEMENTS = 10_000_000
kept: list[np.ndarray] = []


class Node:
    """Something that holds an array, and itself: a cycle."""

    def __init__(self) -> None:
        self.array = np.ones(ELEMENTS)
        self.me = self


def lets_go() -> None:
    """The array goes with its last name: at `del`, or at the end of the function."""
    array = np.ones(ELEMENTS)
    del array


def makes_a_cycle() -> None:
    """The array stays until the garbage collector looks for what nobody can reach."""
    Node()


def collects() -> None:
    Node()
    gc.collect()


def keeps() -> None:
    """What a name outside of the function holds stays: a list, a cache, an `lru_cache`."""
    kept.append(np.ones(ELEMENTS))


def after(work: Callable[[], object], _: int) -> float:
    """The memory of this process when ``work`` has ended, in MB."""
    work()
    return psutil.Process().memory_info().rss / 1e6


def measure(work: Callable[[], None], **options: Any) -> None:
    """The memory of a worker after each of three tasks, above what it had at its start."""
    with ff.executor("processes", workers=1, **options) as pool:
        [start] = ff.map(partial(after, partial(np.ones, 1)), [0], on=pool)
        sizes = [size - start for size in ff.map(partial(after, work), range(3), on=pool, chunk=1)]
    verdict = (
        "given back" if sizes[2] < 40 else "it grows" if sizes[2] > 200 else "no more than one"
    )
    print(f"  {work.__name__:14}", *(f"{max(0, size):6.0f} MB" for size in sizes), "", verdict)


def make(megabytes: int) -> float:
    """A task that needs so much memory."""
    return float(np.ones(megabytes * 125_000).sum())


def main() -> None:
    print("after one, two and three tasks:")
    for work in (lets_go, makes_a_cycle, collects, keeps):
        measure(work)
    print("a new worker for each task:")
    measure(keeps, max_tasks_per_child=1)
    print("the peaks of a worker whose tasks make 200, 100 and 50 MB:")
    run = ff.run(make, [200, 100, 50], workers=1)
    run.results()
    peaks = [piece.peak_memory or 0 for piece in run.history().pieces]
    falling = peaks == sorted(peaks, reverse=True)
    print(" ", *(f"{peak / 1e6:.0f} MB" for peak in peaks), "", "falling" if falling else "")


if __name__ == "__main__":
    main()
