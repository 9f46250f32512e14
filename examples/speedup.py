"""The two examples on one worker and on all: what more workers bring on this machine.

    python examples/speedup.py demo-data/2013-*.csv

Each is run three times on one worker and three times on all, in turn, and the medians are compared.
The times are those of a whole `ff.map`, the start of its workers included.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from flights import longest_delay
from pi import split, throw

import fanfold as ff

ROUNDS = 3
GAIN = 1.1  # a smaller speed-up is not told from noise


def compare(name: str, func: Callable[[Any], object], inputs: Sequence[Any]) -> None:
    """Print the medians for one worker and for all, and the speed-up."""
    cores = int(ff.cores())
    times: dict[int, list[float]] = {1: [], cores: []}
    results = []
    for _ in range(ROUNDS):
        for workers, seconds in times.items():
            began = time.perf_counter()
            results.append(ff.map(func, inputs, workers=workers, on="processes", seed=1))
            seconds.append(time.perf_counter() - began)
    if any(result != results[0] for result in results):
        raise SystemExit("The results differ between runs: that is a defect of fanfold.")
    print(f"{name}: {len(inputs)} tasks, {cores} cores, median of {ROUNDS} runs each")
    for workers, seconds in times.items():
        print(f"  {workers:3} worker{'s' * (workers > 1):1}  {statistics.median(seconds):6.2f} s")
    print(f"  {verdict(times, cores)}")


def verdict(times: dict[int, list[float]], cores: int) -> str:
    """What the medians say, in a sentence."""
    if cores == 1:
        return "This machine lends one core: more workers could not be faster."
    one, all_ = (statistics.median(times[workers]) for workers in (1, cores))
    if one / all_ < GAIN:
        return (
            f"No gain ({one / all_:.2f}): the work is too short ({one:.2f} s), "
            "or the cores are busy with something else."
        )
    return f"speed-up {one / all_:.2f} of at most {cores}; the results are the same"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/speedup.py FLIGHTS.csv...")
    compare("flights, the longest delay of each month", longest_delay, sys.argv[1:])
    compare("pi, 200,000,000 points in the circle", throw, split(200_000_000, 20))
