"""The pretend clusters under the contract of schedulers: what tests against them show, holds."""

from __future__ import annotations

import pytest

from fanfold.schedulers.registry import scheduler
from fanfold.testing import Cluster, SchedulerTests


class PretendTests(SchedulerTests):
    shortest_walltime = "5s"  # a busy machine needs a while to see that it runs
    interactive = False

    @pytest.fixture
    def cluster(self, tmp_path):
        with Cluster(tmp_path / "cluster", self.scheduler.name, max_array_size=100) as cluster:
            yield cluster

    @pytest.fixture
    def environment(self, cluster):
        home = str(cluster.folder.parent)  # whose profile a job of PBS reads
        return {"PATH": cluster.environment["PATH"], "HOME": home}

    @pytest.fixture
    def stopped(self, cluster):
        cluster.stop()


class TestPretendSlurm(PretendTests):
    scheduler = scheduler("slurm")
    wrong_directive = "--time=soon"


class TestPretendPBS(PretendTests):
    scheduler = scheduler("pbs")
    wrong_directive = "-l walltime=soon"
