"""IPython engines as elements of a job array: on a real Slurm, and on a pretend PBS."""

import os
import subprocess
import time
from functools import partial

import pytest
from tests.slurm.conftest import session_slurm, slurm  # noqa: F401 - fixtures

import fanfold as ff
from fanfold.testing import Cluster
from fanfold.testing.functions import mark, until

pytest.importorskip("ipyparallel", reason="ipyparallel is not installed here")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the driver runs; all nodes see it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def element(variable):
    return os.environ[variable]


def meet(there, _):
    """Wait until both engines are here; which one this is."""
    here = os.environ["SLURM_ARRAY_TASK_ID"]
    mark(there, here)
    until(lambda: len(list(there.iterdir())) == 2, "both engines to have a task")
    return here


def jobs():
    asked = subprocess.run(["squeue", "-h", "-t", "PD,R"], capture_output=True, text=True)
    return asked.stdout.splitlines()


def test_engines_on_slurm(slurm, folder, tmp_path_factory):  # noqa: F811
    """Engines are elements with the resources asked for; they join as they begin, do tasks, and
    are gone from the queue after shutdown, with their folder."""
    resources = ff.Resources(memory="300MB", walltime="10m")
    with ff.EngineExecutor(2, scheduler="slurm", resources=resources) as engines:
        until(lambda: len(engines.client.ids) == 2, "both engines", 100)
        engines.submit(abs, -1).result(timeout=100)
        until(lambda: engines.site.check() or engines.site.workers == 2, "both to be used")
        there = tmp_path_factory.mktemp("there")
        found = ff.map(partial(meet, there), range(30), on=engines, chunk=1)
        assert set(found) == {"0", "1"}
        slurm.kill_node("n1")  # Slurm begins its elements again, on another node
        assert ff.map(abs, range(-20, 0), on=engines) == list(range(20, 0, -1))
    until(lambda: not jobs(), "the queue to be empty")
    assert list(folder.iterdir()) == []


def test_engines_that_slurm_ends(slurm, folder):  # noqa: F811
    """When the jobs of all engines are ended, what waits fails with EngineLost and the reason."""
    with ff.EngineExecutor(1, scheduler="slurm") as engines:
        waiting = engines.submit(time.sleep, 600)
        engines.submit(abs, -1)
        slurm.ask("scancel", "--me")
        with pytest.raises(ff.EngineLost, match=r"has ended \(cancelled"):
            waiting.result(timeout=60)


def test_engines_on_pbs(folder, monkeypatch):
    """The same with the script for PBS, where one engine is a job without elements."""
    with Cluster(folder / "cluster", "pbs") as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(folder))
        with ff.EngineExecutor(1, scheduler="pbs") as engines:
            assert engines.submit(element, "PBS_JOBID").result(timeout=100) == "1.pretend"
