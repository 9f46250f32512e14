"""The dialects that jobs of this machine may have."""

from __future__ import annotations

from fanfold.schedulers.local.dialect import Dialect
from fanfold.schedulers.local.pbs import PBSJobs
from fanfold.schedulers.local.slurm import SlurmJobs

__all__ = ["DIALECTS"]

DIALECTS: dict[str, Dialect] = {"slurm": SlurmJobs(), "pbs": PBSJobs()}
