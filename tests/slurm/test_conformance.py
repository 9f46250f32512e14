"""The real Slurm under the contract of schedulers, with records of ended jobs and without."""

from __future__ import annotations

import pytest

from fanfold.schedulers.registry import scheduler
from fanfold.testing import SchedulerTests

# Far from here, so that a time read as of this place would be hours away.
ELSEWHERE = {"TZ": "Asia/Kathmandu"}


class SlurmTests(SchedulerTests):
    scheduler = scheduler("slurm")
    wrong_directive = "--time=soon"

    @pytest.fixture
    def cluster(self):
        raise NotImplementedError

    @pytest.fixture
    def environment(self, cluster):
        return {**cluster.environment, **ELSEWHERE}

    @pytest.fixture
    def expire(self, cluster):
        return cluster.expire

    @pytest.fixture
    def stopped(self, cluster):
        cluster.stop_controller()


class TestSlurm(SlurmTests):
    @pytest.fixture
    def cluster(self, slurm_with_records):
        return slurm_with_records


class TestSlurmWithoutRecords(SlurmTests):
    records = False

    # These take long, and have nothing to do with records.
    test_walltime = None
    test_nobody_answers = None

    @pytest.fixture
    def cluster(self, slurm):
        return slurm
