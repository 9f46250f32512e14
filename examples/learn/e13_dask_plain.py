"""Plain dask-jobqueue: a cluster on Slurm, and the script of its jobs.

    python examples/learn/e13_dask_plain.py

Nothing is submitted: `cluster.scale(jobs=2)` would do that.
"""

from dask_jobqueue import SLURMCluster


def main() -> None:
    port = {"dashboard_address": ":0"}  # any that is free; 8787 is somebody else's, on a login node
    job = {"cores": 12, "memory": "16 GB", "walltime": "00:10:00"}
    with SLURMCluster(**job, scheduler_options=port) as cluster:
        print(cluster.job_script())


if __name__ == "__main__":
    main()
