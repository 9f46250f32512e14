"""Jobs of this machine as Slurm would have them: what scripts ask for, and what they find."""

from __future__ import annotations

import getpass
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence

from fanfold.errors import UsageError
from fanfold.schedulers.base import JobState
from fanfold.schedulers.local.asked import Asked, login_environment, read_after, read_moment
from fanfold.schedulers.local.dialect import Begin, Dialect, interpreter
from fanfold.schedulers.local.job import LocalJob, Submitted
from fanfold.schedulers.scripts.dialect import Layout
from fanfold.schedulers.scripts.lines import Script
from fanfold.schedulers.scripts.slurm import read_size
from fanfold.units import parse_indices

__all__ = ["SlurmJobs"]

_LARGEST_INDEX = 4_000_000  # Slurm itself allows no more
_ENDLESS = ("0", "-1", "UNLIMITED", "INFINITE")
_SIGNAL = re.compile(r"(?:([BR]{1,2}):)?([A-Za-z0-9]+)(?:@([0-9]{1,5}))?")
_FIELD = re.compile(r"%([0-9]*)(.)")
_NO_INDEX = 4294967294  # what Slurm has for %a outside an array
_OUTER = re.compile("(SLURM|PBS)_(?!CONF$)")  # of a job that this one is submitted in
_PLAIN: tuple[Sequence[int | None], int, int | None] = ((None,), 1, None)  # no array
_LAYOUT = ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "mem", "mem-per-cpu")


def _check_as_sbatch(script: Script) -> None:
    text = script.lines[0].text if script.lines else ""
    if not text.startswith("#!"):
        raise UsageError("line 1: Slurm refuses a script without a #! line: put #!/bin/bash first")
    if any(line.end == "\r\n" for line in script.lines):
        raise UsageError(
            "its lines end as on Windows, and Slurm refuses that: sed -i 's/\\r$//' mends it"
        )


def _read_array(value: str) -> tuple[Sequence[int | None], int, int | None]:
    """Indices, step, and how many at once; overlaps are merged, as Slurm does."""
    listed, percent, limit = value.strip("[]").partition("%")
    if percent and not re.fullmatch("[0-9]{1,9}", limit):
        raise UsageError(f"Slurm drops what stands behind the %: write 1-10:2%3, not %{limit}")
    if not value:
        return _PLAIN
    parts = [part.strip() for part in listed.split(",") if part.strip()] or ["0"]
    ranges = [parse_indices(part) for part in parts]
    if max(part[-1] for part in ranges) > _LARGEST_INDEX:
        raise UsageError(f"Slurm takes indices up to {_LARGEST_INDEX} at most")
    steps = [int(part.partition(":")[2]) for part in parts if ":" in part]
    return sorted(set().union(*ranges)), steps[-1] if steps else 1, int(limit or 0) or None


def _megabytes(value: str) -> str:
    return str(read_size(value) >> 20)


def _read_warning(value: str) -> tuple[int, float, bool]:
    """``--signal``: which, how many seconds before the end, and whether to the script only."""
    match = _SIGNAL.fullmatch(value)
    if match is None:
        raise UsageError("write a signal and seconds before the end, such as B:USR1@60")
    name = match[2].upper()
    try:
        number = int(name) if name.isdigit() else signal.Signals[f"SIG{name.removeprefix('SIG')}"]
        signum = signal.Signals(number)
    except (KeyError, ValueError) as error:
        raise UsageError(f"there is no signal {match[2]}: write B:USR1@60") from error
    return int(signum), float(match[3] or 60), "B" in (match[1] or "")


def _exported(asked: Asked, environ: Mapping[str, str]) -> dict[str, str]:
    """What ``--export`` lets through; by default everything that is not of an outer job."""
    named = [word for word in asked.text("--export").split(",") if word]
    narrow = named or "--export NONE" in asked or "--export NIL" in asked
    whole = "--export ALL" in asked or not narrow
    chosen = dict(environ) if whole else login_environment(environ)
    for word in named:
        name, equals, value = word.partition("=")
        if equals or name in environ:
            chosen[name] = value if equals else environ[name]
    return {name: value for name, value in chosen.items() if not _OUTER.match(name)}


def _sizes(asked: Asked) -> dict[str, str]:
    """Variables that are there only where their option is."""
    variables = {
        "SLURM_CPUS_PER_TASK": asked.text("--cpus-per-task"),
        "SLURM_NTASKS": asked.text("--ntasks"),
        "SLURM_NPROCS": asked.text("--ntasks"),
        "SLURM_NTASKS_PER_NODE": asked.text("--ntasks-per-node"),
        "SLURM_MEM_PER_NODE": asked.read("--mem", _megabytes, ""),
        "SLURM_MEM_PER_CPU": asked.read("--mem-per-cpu", _megabytes, ""),
    }
    return {name: value for name, value in variables.items() if value}


class SlurmJobs(Dialect):
    """Jobs start in the folder of sbatch with its environment, and write where they run."""

    def read(
        self, job: LocalJob, script: Script, asked: Asked, environ: Mapping[str, str]
    ) -> LocalJob:
        _check_as_sbatch(script)
        if asked.text("--mem") == "0":  # all that there is
            del asked.options["--mem"]
        folder = os.path.join(job.submit_folder, asked.text("--chdir", job.submit_folder))
        indices, step, at_once = asked.read("--array", _read_array, _PLAIN)
        walltime = None
        if asked.text("--time").upper() not in _ENDLESS:
            walltime = asked.value("--time", None)
        return job._replace(
            name=asked.text("--job-name", job.name),
            folder=folder,
            indices=indices,
            step=step,
            at_once=at_once,
            walltime=walltime,
            warning=asked.read("--signal", _read_warning, None),
            output=asked.text("--output"),
            error=asked.text("--error"),
            append=asked.text("--open-mode").startswith("a"),
            input=os.path.join(folder, asked.text("--input", os.devnull)),
            environment={**_exported(asked, environ), **_sizes(asked)},
            after=asked.read("--dependency", read_after, ()),
            held="--hold" in asked,
            begin=asked.read("--begin", read_moment, 0.0),
            queue=asked.text("--partition", job.queue),
            account=asked.text("--account"),
            layout=self._layout(asked),
        )

    def _layout(self, asked: Asked) -> Layout:
        values = {f"--{name}": asked.text(f"--{name}") for name in _LAYOUT if f"--{name}" in asked}
        if "--nodes" in values:
            values["--nodes"] = values["--nodes"].partition("-")[0]  # of 1-4 the least
        return asked.layout(values)

    def id(self, submitted: Submitted, index: int | None, host: str) -> str:
        return str(submitted.number) if index is None else f"{submitted.number}_{index}"

    def prepare(self, begin: Begin) -> None:
        pass  # nothing but its script is made for a job

    def variables(self, begin: Begin) -> dict[str, str]:
        (_, job, *_), element = begin.submitted, begin.element
        cores = job.layout.ncpus
        name = {
            "SLURM_CLUSTER_NAME": begin.host,
            "SLURM_CPUS_ON_NODE": cores,
            "SLURM_GTIDS": 0,
            "SLURM_JOBID": element.raw,
            "SLURM_JOB_CPUS_PER_NODE": cores,
            "SLURM_JOB_GID": os.getgid(),
            "SLURM_JOB_ID": element.raw,
            "SLURM_JOB_NAME": job.name,
            "SLURM_JOB_NODELIST": element.node,
            "SLURM_JOB_NUM_NODES": 1,
            "SLURM_JOB_PARTITION": job.queue,
            "SLURM_JOB_UID": os.getuid(),
            "SLURM_JOB_USER": getpass.getuser(),
            "SLURM_LOCALID": 0,
            "SLURM_NNODES": 1,
            "SLURM_NODEID": 0,
            "SLURM_NODELIST": element.node,
            "SLURM_PROCID": 0,
            "SLURM_SUBMIT_DIR": job.submit_folder,
            "SLURM_SUBMIT_HOST": os.uname().nodename,
            "SLURM_TASKS_PER_NODE": job.layout.mpiprocs,
            "SLURMD_NODENAME": element.node,
            "ENVIRONMENT": "BATCH",
            "HOSTNAME": element.node,
            **self._array(begin),
        }
        if job.account:
            name["SLURM_JOB_ACCOUNT"] = job.account
        if element.restarts:
            name["SLURM_RESTART_COUNT"] = element.restarts
        return {key: str(value) for key, value in name.items()}

    def _array(self, begin: Begin) -> dict[str, object]:
        if begin.element.index is None:
            return {}
        indices = begin.submitted.job.indices
        return {
            "SLURM_ARRAY_JOB_ID": begin.submitted.number,
            "SLURM_ARRAY_TASK_COUNT": len(indices),
            "SLURM_ARRAY_TASK_ID": begin.element.index,
            "SLURM_ARRAY_TASK_MAX": indices[-1],
            "SLURM_ARRAY_TASK_MIN": indices[0],
            "SLURM_ARRAY_TASK_STEP": begin.submitted.job.step,
        }

    def paths(self, begin: Begin) -> tuple[str, str]:
        job = begin.submitted.job
        default = "slurm-%A_%a.out" if job.is_array else "slurm-%j.out"
        output = self._path(begin, job.output or default)
        return output, self._path(begin, job.error) if job.error else output

    def _path(self, begin: Begin, pattern: str) -> str:
        (number, job, *_), element = begin.submitted, begin.element
        index = _NO_INDEX if element.index is None else element.index
        numbers = {"A": number, "a": index, "j": element.raw, "J": element.raw, "n": 0, "t": 0}
        words = {
            "N": os.uname().nodename.split(".")[0],
            "s": "batch",
            "u": getpass.getuser(),
            "x": job.name,
            "%": "%",
        }

        def field(match: re.Match[str]) -> str:
            width, letter = match.groups()
            if letter in numbers:
                return str(numbers[letter]).zfill(min(int(width or 0), 10))
            return words.get(letter, match[0])

        if "\\" in pattern:  # it switches the fields off
            return os.path.join(job.folder, re.sub(r"\\(.)", r"\1", pattern))
        return os.path.join(job.folder, _FIELD.sub(field, pattern))

    def spools(self, job: LocalJob, stream: str) -> bool:
        return False

    def command(self, job: LocalJob, script: str) -> list[str]:
        return [*interpreter(job.script), script, *job.arguments]

    def farewell(self, begin: Begin, state: JobState | None, seconds: float) -> str:
        why = {
            None: "DUE TO JOB REQUEUE ",
            "walltime": "DUE TO TIME LIMIT ",
            "preempted": "DUE TO PREEMPTION ",
            "node": "DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ",
        }.get(state, "")
        node, now = begin.element.node, time.strftime("%Y-%m-%dT%H:%M:%S")
        raw = begin.element.raw
        return f"slurmstepd-{node}: error: *** JOB {raw} ON {node} CANCELLED AT {now} {why}***\n"
