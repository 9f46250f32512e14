"""The variables and commands of each scheduler, and what they are called on the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["in_line", "renamed"]

# Both ways, PBS first.
_TWINS = (
    ("PBS_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID"),
    ("PBS_ARRAY_ID", "SLURM_ARRAY_JOB_ID"),
    ("PBS_JOBID", "SLURM_JOB_ID"),
    ("PBS_JOBNAME", "SLURM_JOB_NAME"),
    ("PBS_O_WORKDIR", "SLURM_SUBMIT_DIR"),
    ("PBS_O_HOST", "SLURM_SUBMIT_HOST"),
    ("PBS_QUEUE", "SLURM_JOB_PARTITION"),
    ("PBS_NODENUM", "SLURM_NODEID"),
    ("NCPUS", "SLURM_CPUS_PER_TASK"),
)
_RENAMED = {
    "slurm": dict(_TWINS)
    | {
        "PBS_O_HOME": "HOME",
        "PBS_O_LANG": "LANG",
        "PBS_O_LOGNAME": "LOGNAME",
        "PBS_O_PATH": "PATH",
        "PBS_O_QUEUE": "SLURM_JOB_PARTITION",
        "PBS_O_SHELL": "SHELL",
    },
    "pbs": {slurm: pbs for pbs, slurm in _TWINS} | {"SLURM_JOBID": "PBS_JOBID"},
}
# NCPUS is a common name: it is PBS's own only where it is read.
_NAMES = {
    "slurm": re.compile(r"\bPBS_[A-Z0-9_]+\b|(?<=\$)NCPUS\b|(?<=\$\{)NCPUS\b"),
    "pbs": re.compile(r"\bSLURM_[A-Z0-9_]+\b"),
}

_MEANS = {
    "PBS_ARRAY_ID": "a number alone on Slurm, where PBS has 12[].server",
    "PBS_JOBID": "a number alone on Slurm, and another in each element; PBS has 12[4].server",
    "PBS_O_QUEUE": "the queue that the job runs in, on Slurm",
    "NCPUS": "on Slurm the cores of one process, and only where --cpus-per-task is asked for",
    "SLURM_ARRAY_JOB_ID": "12[].server on PBS, where Slurm has a number alone",
    "SLURM_JOB_ID": "12.server on PBS, and 12[4].server in an element",
    "SLURM_JOBID": "12.server on PBS, and 12[4].server in an element",
    "TMPDIR": "a folder of the job's own on PBS; on Slurm mostly /tmp, which all jobs share",
}
_LOST = {
    "PBS_NODEFILE": 'write one: scontrol show hostnames "$SLURM_JOB_NODELIST" > nodes.txt',
    "PBS_ENVIRONMENT": "SLURM_JOB_ID is set in every job of Slurm",
    "PBS_JOBDIR": "Slurm starts in the folder of sbatch, SLURM_SUBMIT_DIR",
    "SLURM_JOB_NODELIST": "the file PBS_NODEFILE has a line for each process",
    "SLURM_NODELIST": "the file PBS_NODEFILE has a line for each process",
    "SLURM_NTASKS": 'count the processes: $(wc -l < "$PBS_NODEFILE")',
    "SLURM_NPROCS": 'count the processes: $(wc -l < "$PBS_NODEFILE")',
    "SLURM_JOB_NUM_NODES": 'count the nodes: $(sort -u "$PBS_NODEFILE" | wc -l)',
    "SLURM_NNODES": 'count the nodes: $(sort -u "$PBS_NODEFILE" | wc -l)',
    "SLURM_ARRAY_TASK_COUNT": "write the number of elements",
    "SLURM_ARRAY_TASK_MIN": "write the first index",
    "SLURM_ARRAY_TASK_MAX": "write the last index",
    "SLURM_ARRAY_TASK_STEP": "write the step",
    "SLURM_PROCID": "the MPI library tells a process its rank",
}
_COMMANDS = {
    "slurm": {
        "pbsdsh": "use srun",
        "pbs_tmrsh": "use srun",
        "qsub": "use sbatch",
        "qstat": "use squeue",
        "qdel": "use scancel",
        "qalter": "use scontrol update",
    },
    "pbs": {
        "srun": "use mpiexec, or the command alone for one process",
        "sbcast": "copy the file in the script",
        "sbatch": "use qsub",
        "squeue": "use qstat",
        "scancel": "use qdel",
        "scontrol": "use qstat -f or qalter",
    },
}
_CALLS = {
    target: re.compile(rf"(?:^|[;&|(`])\s*({'|'.join(commands)})(?=\s|$)")
    for target, commands in _COMMANDS.items()
}


class Remark(NamedTuple):
    """What there is to say about a line of the body; ``lost`` when it has no twin."""

    text: str
    lost: bool


def renamed(line: str, target: str) -> str:
    """A line of the body with the variables of the other scheduler.

    >>> renamed("echo $PBS_ARRAY_INDEX ${MY_PBS_JOBID}", "slurm")
    'echo $SLURM_ARRAY_TASK_ID ${MY_PBS_JOBID}'
    """
    names = _RENAMED[target]
    pattern = _NAMES[target]
    return pattern.sub(lambda match: names.get(match[0], match[0]), line)


def in_line(line: str, target: str) -> Iterator[tuple[str, Remark]]:
    """The names in a line of the body that there is something to say about, and what."""
    for match in _NAMES[target].finditer(line):
        name = match[0]
        if name not in _RENAMED[target]:
            hint = f": {_LOST[name]}" if name in _LOST else ""
            yield name, Remark(f"variable {name}{hint}", lost=True)
        elif name in _MEANS:
            yield name, Remark(f"variable {name}: {_MEANS[name]}", lost=False)
    if target == "slurm" and re.search(r"\bTMPDIR\b", line):
        yield "TMPDIR", Remark(f"variable TMPDIR: {_MEANS['TMPDIR']}", lost=False)
    for match in _CALLS[target].finditer(line):
        yield match[1], Remark(f"command {match[1]}: {_COMMANDS[target][match[1]]}", lost=True)
