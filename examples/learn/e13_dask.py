"""Dask on Slurm: jobs that hold workers, how many of them, and a computation that runs there.

python examples/learn/e13_dask.py --script                 the job script, and no job
python examples/learn/e13_dask.py --jobs 2
python examples/learn/e13_dask.py --total-memory "200 GB"
"""

import argparse

import dask.array as da
from distributed import Client

import fanfold as ff


def hits(_: int) -> int:
    """How many of a hundred thousand darts hit the circle in the square."""
    darts = ff.rng().random((100_000, 2))
    return int(((darts**2).sum(axis=1) <= 1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="A Dask cluster whose workers are jobs of Slurm.")
    parser.add_argument("--cores", type=int, default=12, help="of a job")
    parser.add_argument("--memory", default="16GB", help="of a job")
    parser.add_argument("--script", action="store_true", help="print the job script, and stop")
    parser.add_argument("--interface", help="the network that nodes reach this machine by")
    parser.add_argument("--jobs", type=int, help="how many jobs,")
    parser.add_argument("--total-cores", type=int, help="or as many as have so many cores,")
    parser.add_argument("--total-memory", help="or so much memory")
    options = parser.parse_args()
    asked = ff.Resources(cores=options.cores, memory=options.memory, walltime="10m")
    size = {"jobs": options.jobs, "cores": options.total_cores, "memory": options.total_memory}
    with ff.dask_cluster("slurm", asked, interface=options.interface, **size) as cluster:
        if options.script:
            print(cluster.job_script())
            return
        print(f"{len(cluster.worker_spec)} jobs of {options.cores} cores")
        inside = sum(ff.map(hits, range(20), on=cluster, seed=1))
        print(f"by ff.map, pi is about {4 * inside / 2_000_000:.3f}")
        with Client(cluster) as client:
            client.wait_for_workers(options.cores * len(cluster.worker_spec))
            darts = da.random.default_rng(1).random((2_000_000, 2), chunks=(100_000, 2))
            mean = ((darts**2).sum(axis=1) <= 1).mean().compute(scheduler=client)
            print(f"by dask.array, pi is about {4 * mean:.2f}")
            sizes = [worker["nthreads"] for worker in cluster.scheduler_info["workers"].values()]
            print(f"at work are {len(sizes)} workers with {sum(sizes)} threads in all")


if __name__ == "__main__":
    main()
