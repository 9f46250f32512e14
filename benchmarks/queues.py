"""Those who run Python on a Slurm: contenders of the case about job arrays.

The Slurm is a private one of the tests, real daemons on this machine, started for each measurement.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.machine import ROOT

sys.path.append(str(ROOT))
from tests.slurm.cluster import PrivateSlurm, missing_packages

__all__ = ["QUEUES", "OnSlurm", "empty_array"]

NODES, CORES = 4, 4  # of the private Slurm, as it says


class OnSlurm(Contender):
    """``spread`` runs a function over inputs on Slurm, from nothing to all results.

    ``share`` is the part of the tasks that it is given: one whose every task is a job of its own
    would take an hour; its rate is the same.
    """

    share: ClassVar[float] = 1.0

    def start(self) -> None:
        """There is no pool before there is work."""

    def close(self) -> None:
        """Nothing is left."""

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and not missing_packages()

    @abstractmethod
    def spread(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> list[Any]: ...


class FanfoldArray(OnSlurm):
    """An element for each node, with all its cores."""

    name = "fanfold on Slurm"
    module = "fanfold"

    def spread(self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path) -> list[Any]:
        node = self.library.Resources(cores=CORES)
        run = self.library.run(
            func, items, name="r", folder=folder, on="slurm", elements=NODES, resources=node,
            progress=False,
        )  # fmt: skip
        found: list[Any] = run.wait().results()
        return found


class SubmititArray(OnSlurm):
    """submitit's ``map_array``: every task is an element of the array."""

    name = "submitit map_array"
    module = "submitit"
    share = 0.02

    def spread(self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path) -> list[Any]:
        executor = self.library.SlurmExecutor(folder=folder)
        executor.update_parameters(time=10, array_parallelism=NODES * CORES, use_srun=False)
        jobs = executor.map_array(func, items)
        return [job.result() for job in jobs]


class DaskJobqueue(OnSlurm):
    """dask-jobqueue: a job for each node, with a worker for each of its cores."""

    name = "dask-jobqueue"
    module = "dask_jobqueue"

    def spread(self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path) -> list[Any]:
        from distributed import Client

        folder.mkdir(exist_ok=True)
        with (
            self.library.SLURMCluster(
                cores=CORES, processes=CORES, memory="3GB", log_directory=str(folder)
            ) as cluster,
            Client(cluster) as client,
        ):
            cluster.scale(jobs=NODES)
            found: list[Any] = client.gather(client.map(func, items, pure=False))
        return found


def empty_array(elements: int, folder: Path) -> float:
    """The seconds that an array of elements takes that do nothing."""
    array = ["sbatch", f"--array=0-{elements - 1}", "--output=/dev/null", "--wrap=true"]
    began = time.perf_counter()
    subprocess.run(array, stdout=subprocess.DEVNULL, check=True, cwd=folder)
    while subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout:
        time.sleep(0.05)
    return time.perf_counter() - began


def private_slurm(folder: Path) -> PrivateSlurm:
    """A Slurm that the commands of this process find, once it is started."""
    slurm = PrivateSlurm(folder)
    os.environ |= slurm.environment
    return slurm


QUEUES: tuple[type[OnSlurm], ...] = (FanfoldArray, SubmititArray, DaskJobqueue)
CONTENDERS.update({kind.name: kind for kind in QUEUES})
