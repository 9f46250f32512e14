"""From a script, and the words of qsub or sbatch, to a job for this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from fanfold.schedulers.local.asked import Asked
from fanfold.schedulers.local.dialects import DIALECTS
from fanfold.schedulers.local.job import LocalJob
from fanfold.schedulers.scripts.lines import parse

__all__ = ["read_job"]


def read_job(
    text: str,
    dialect: Literal["slurm", "pbs"],
    *,
    file_name: str,
    folder: str,
    environ: Mapping[str, str],
    words: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> LocalJob:
    """The job that a script asks for; ``words`` are the options of qsub or sbatch, and win.

    ``file_name`` is the default name of the job, ``folder`` the one it is submitted in,
    ``environ`` the environment of qsub or sbatch. Nothing of the script is run. What means nothing
    on one machine is passed over: mail, GPUs, names of nodes. Raises `UsageError` for what the
    scheduler refuses, with the line.

    >>> job = read_job("#!/bin/sh\\n#PBS -J 1-9:4\\n#PBS -l walltime=60\\ntrue\\n", "pbs",
    ...                file_name="a.sh", folder="/tmp", environ={"HOME": "/home/me"})
    >>> job.name, list(job.indices), job.walltime, job.folder
    ('a.sh', [1, 5, 9], 60, '/home/me')
    """
    script = parse(text)
    asked = Asked(script, dialect, words)
    job = LocalJob(text, file_name, dialect, folder, folder, arguments=tuple(arguments))
    return DIALECTS[dialect].read(job, script, asked, environ)
