"""A job that asks for far too much, and is told so in its own log.

    fanfold run examples/learn/e07_summary.py:work --range 1-4 --on pbs --elements 2 \
        --cores 2 --memory 2GB --walltime 1h --account physics --name used
    fanfold logs used --element 1
"""

import time

import numpy as np

import fanfold as ff


def work(megabytes: int) -> float:
    """A tenth of a second of work on so much memory."""
    data = np.ones(megabytes * 1_000_000 // 8)
    end = time.perf_counter() + 0.1
    while time.perf_counter() < end:
        data += 1
    return float(data[0] > 1)


def main() -> None:
    run = ff.run(work, [10, 20, 30, 40], name="measured")
    print(run.wait().report())


if __name__ == "__main__":
    main()
