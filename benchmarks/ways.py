"""Ways to the same end that pages of the course put side by side: contenders of its cases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.machine import ROOT
from benchmarks.queues import NODES, missing_packages

__all__ = ["WAYS", "Dask", "HandIn", "Ranks"]

PORT = {"dashboard_address": ":0"}  # any that is free


class Way(Contender):
    """Part of one ``case``, which asks it for more than a pool can do."""

    case: ClassVar[str]
    module = "fanfold"

    def start(self) -> None:
        """Nothing is started before it is asked for."""

    def close(self) -> None:
        """Nothing is left."""


class HandIn(Way):
    """``hand_in`` gives so many jobs that do nothing to Slurm, ``wait`` waits for their end."""

    case = "hand-in"

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and not missing_packages()

    @abstractmethod
    def hand_in(self, jobs: int, folder: Path) -> None: ...

    def wait(self) -> None:
        while subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout:
            time.sleep(0.05)

    def _sbatch(self, folder: Path, *options: str) -> None:
        command = ["sbatch", "--output=/dev/null", *options, "--wrap=true"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder)


class JobByJob(HandIn):
    name = "sbatch, job by job"

    def hand_in(self, jobs: int, folder: Path) -> None:
        for _ in range(jobs):
            self._sbatch(folder)


class OneArray(HandIn):
    name = "sbatch --array"

    def hand_in(self, jobs: int, folder: Path) -> None:
        self._sbatch(folder, f"--array=0-{jobs - 1}")


class FanfoldElements(HandIn):
    """As many tasks, in an element for each node; it has ended when the results are here."""

    name = "fanfold run, an element a node"

    def hand_in(self, jobs: int, folder: Path) -> None:
        self.run = self.library.run(
            abs, range(jobs), folder=folder, on="slurm", elements=min(jobs, NODES), progress=False
        )

    def wait(self) -> None:
        self.run.wait().results()


class Ranks(Way):
    """``run`` starts benchmarks/ranks.py on so many ranks; what rank 0 has printed."""

    case = "ranks"
    launcher: ClassVar[tuple[str, ...]]
    interpreter: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def installed(cls) -> bool:
        return shutil.which("mpiexec", path=_path()) is not None

    def run(self, ranks: int, messages: int) -> dict[str, float]:
        script = [*self.interpreter, str(ROOT / "benchmarks" / "ranks.py"), str(messages)]
        done = subprocess.run(
            [*self.launcher, "-n", str(ranks), *script],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PATH": _path()},
        )
        told: dict[str, float] = json.loads(done.stdout)
        return told


class Mpiexec(Ranks):
    name = "mpiexec"
    launcher = ("mpiexec",)
    interpreter = (sys.executable,)


class FanfoldMpi(Ranks):
    name = "fanfold mpi"
    launcher = (sys.executable, "-m", "fanfold", "mpi")


def _path() -> str:
    """With the programs of this Python's environment first."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


class Dask(Way):
    """``first`` makes a cluster of two jobs of two cores each on Slurm; its first result."""

    case = "dask-jobs"
    module = "dask_jobqueue"

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and not missing_packages()

    @abstractmethod
    def first(self, folder: Path) -> Any: ...


class SlurmCluster(Dask):
    name = "dask_jobqueue.SLURMCluster"

    def first(self, folder: Path) -> Any:
        from distributed import Client

        asked = {"cores": 2, "processes": 2, "memory": "1GB", "walltime": "00:10:00"}
        with (
            self.library.SLURMCluster(
                **asked, interface="lo", scheduler_options=PORT, log_directory=str(folder)
            ) as cluster,
            Client(cluster) as client,
        ):
            cluster.scale(jobs=2)
            return client.submit(abs, -1).result()


class FanfoldDask(Dask):
    name = "ff.dask_cluster"

    def first(self, folder: Path) -> Any:
        import fanfold as ff

        asked = ff.Resources(cores=2, memory="1GB", walltime="10m")
        options = {"interface": "lo", "log_directory": str(folder)}
        with ff.dask_cluster("slurm", asked, jobs=2, **options) as cluster:
            [found] = ff.map(abs, [-1], on=cluster, progress=False)
        return found


WAYS: tuple[type[Way], ...] = (
    JobByJob, OneArray, FanfoldElements, Mpiexec, FanfoldMpi, SlurmCluster, FanfoldDask,
)  # fmt: skip
CONTENDERS.update({kind.name: kind for kind in WAYS})
