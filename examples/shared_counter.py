"""A counter that workers share: the lost updates of the textbooks, and two ways without them.

    python examples/shared_counter.py --workers 10 --times 50

``counter.value += 1`` reads, then writes. Who reads before another has written overwrites it.
"""

import argparse
import time
from collections.abc import Callable

import fanfold as ff


def careless(counter: ff.SharedValue, times: int) -> None:
    for _ in range(times):
        seen = counter.value
        time.sleep(0.0005)  # some work, in which the others read the same number
        counter.value = seen + 1


def locked(counter: ff.SharedValue, times: int) -> None:
    for _ in range(times):
        with counter.lock:
            counter.value += 1


def adding(counter: ff.SharedValue, times: int) -> None:
    for _ in range(times):
        counter.add(1)


def count(way: Callable[[ff.SharedValue, int], None], workers: int, times: int) -> int:
    """What the counter says when every worker has counted to ``times``."""
    with ff.SharedValue(0) as counter:
        ff.starmap(way, [(counter, times)] * workers, on="processes", workers=workers, chunk=1)
        return int(counter.value)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count with many workers.")
    parser.add_argument("--workers", type=int, default=10, help="worker processes (default 10)")
    parser.add_argument("--times", type=int, default=50, help="what each counts to (default 50)")
    options = parser.parse_args()
    expected = options.workers * options.times
    for way in (careless, locked, adding):
        found = count(way, options.workers, options.times)
        lost = f", {expected - found} lost" if found < expected else ""
        print(f"{way.__name__}: {found} of {expected}{lost}")


if __name__ == "__main__":
    main()
