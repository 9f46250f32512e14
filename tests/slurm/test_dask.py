"""Dask on jobs of a real Slurm, asked for with fanfold's own resources."""

import os
import subprocess
import time
from importlib.util import find_spec

import pytest

import fanfold as ff
from fanfold.testing.functions import until

# Not imported: it takes Ctrl-C for itself, and cannot be imported by the threads of a worker.
if find_spec("dask_jobqueue") is None:
    pytest.skip("dask-jobqueue is not installed here", allow_module_level=True)
distributed = pytest.importorskip("distributed", reason="distributed is not installed here")

JOB = ff.Resources(cores=2, memory="1GB", walltime="10m")


def job_of(_):
    time.sleep(0.05)
    return os.environ["SLURM_JOB_ID"], os.getpid()


def in_queue():
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


@pytest.fixture(autouse=True)
def nothing_left(slurm):
    """What Dask's clusters and Slurm's daemons leave is looked at by tests of their own."""
    yield
    until(lambda: not in_queue(), "the queue to be empty", 60)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where what the jobs print goes."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("size", [{"jobs": 2}, {"cores": 4}, {"memory": "2GB"}])
def test_jobs_cores_or_memory(size):
    """So many jobs run as were asked for in jobs, cores or memory; with the cluster they end."""
    with ff.dask_cluster("slurm", JOB, interface="lo", **size) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(4, timeout=120)
            found = ff.map(job_of, range(40), on=client)
        assert len({job for job, _ in found}) == 2
        assert len({pid for _, pid in found}) == 4
        assert in_queue() == ["dask", "dask"]


@pytest.mark.usefixtures("folder")
def test_adaptive():
    """An adaptive cluster has no job until there is work, and then some. (When there seems to be
    none for a moment, it ends them, and begins others.)"""
    with ff.dask_cluster("slurm", JOB, interface="lo", jobs=1, adaptive=True) as cluster:
        assert not in_queue()
        jobs = [job for job, _ in ff.map(job_of, range(10), on=cluster)]
        assert len(jobs) == 10
        assert all(jobs)


@pytest.mark.usefixtures("folder")
def test_dask_array_on_the_same_jobs():
    """dask.array computes on the jobs that ff.map uses."""
    da = pytest.importorskip("dask.array", reason="dask.array is not installed here")
    with (
        ff.dask_cluster("slurm", JOB, interface="lo", jobs=1) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        total = da.ones((400, 400), chunks=200).sum().compute(scheduler=client)
        assert total == 160_000
        assert ff.map(abs, [-1, -2], on=client) == [1, 2]


@pytest.mark.usefixtures("folder")
def test_jobs_that_are_cancelled():
    """When the jobs are gone for good, the map ends with EngineLost: it does not wait for them."""
    with ff.dask_cluster("slurm", JOB, interface="lo", jobs=1) as cluster:
        assert ff.map(abs, [-1], on=cluster) == [1]
        subprocess.run(["scancel", "--name=dask"], check=True)
        until(lambda: not cluster.scheduler_info["workers"], "the workers to go", 60)
        with pytest.raises(ff.EngineLost, match="has had no worker"):
            ff.map(abs, [-1, -2], on=cluster)


@pytest.mark.usefixtures("folder")
def test_jobs_that_are_refused():
    """When Slurm refuses the jobs, nobody waits for them: EngineLost tells its words."""
    large = ff.Resources(cores=12, memory="1GB", walltime="10m")
    with (
        ff.dask_cluster("slurm", large, interface="lo", jobs=2) as cluster,
        pytest.raises(ff.EngineLost, match="refused: sbatch: error: CPU count per node can not be"),
    ):
        ff.map(abs, [-1, -2], on=cluster)
