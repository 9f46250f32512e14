"""Job scripts and their arrays as processes of this machine: what a scheduler does, without one."""

from fanfold.schedulers.local.job import LocalElement, LocalJob, Submitted
from fanfold.schedulers.local.queue import LocalQueue
from fanfold.schedulers.local.script import read_job

__all__ = ["LocalElement", "LocalJob", "LocalQueue", "Submitted", "read_job"]
