"""One Dask cluster for two kinds of work: many functions by fanfold, one large array by Dask.

    python examples/dask_array.py --workers 4
    python examples/dask_array.py --on slurm --cores 4 --memory 8GB --jobs 2

Both find pi by throwing darts: a function for each handful, and an array with all of them.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
from distributed import Client

import fanfold as ff

HANDFUL = 1_000_000


def hits(_: int) -> int:
    """How many of a handful of darts hit the circle in the square."""
    darts = ff.rng().random((HANDFUL, 2))
    return int(((darts**2).sum(axis=1) <= 1).sum())


def pi_by_array(client: Client, handfuls: int) -> float:
    darts = da.random.default_rng(1).random((handfuls * HANDFUL, 2), chunks=(HANDFUL, 2))
    return float(4 * ((darts**2).sum(axis=1) <= 1).mean().compute(scheduler=client))


@contextlib.contextmanager
def cluster(options: argparse.Namespace) -> Iterator[Client]:
    """A client of workers on this machine, or of jobs."""
    if options.on == "local":
        with ff.DaskExecutor(options.workers) as pool:
            yield pool.client
        return
    asked = ff.Resources(cores=options.cores, memory=options.memory, walltime="30m")
    with ff.dask_cluster(options.on, asked, jobs=options.jobs) as jobs, Client(jobs) as client:
        yield client


def timed(name: str, work: Callable[[], Any]) -> None:
    began = time.perf_counter()
    print(f"{name:12} pi is about {work():.3f}, in {time.perf_counter() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Darts, by ff.map and by dask.array.")
    parser.add_argument("--on", choices=["local", "slurm", "pbs"], default="local")
    parser.add_argument("--workers", type=int, default=None, help="of this machine")
    parser.add_argument("--cores", type=int, default=4, help="of a job")
    parser.add_argument("--memory", default="4GB", help="of a job")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--handfuls", type=int, default=20, help="a million darts each")
    options = parser.parse_args()
    count = options.handfuls
    with cluster(options) as client:
        darts = count * HANDFUL
        timed("ff.map", lambda: 4 * sum(ff.map(hits, range(count), on=client, seed=1)) / darts)
        timed("dask.array", lambda: pi_by_array(client, count))


if __name__ == "__main__":
    main()
