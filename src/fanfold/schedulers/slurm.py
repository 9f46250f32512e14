"""Slurm: what to ask it. What it answers is read by `fanfold.schedulers.slurm_answers`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from fanfold.errors import UsageError
from fanfold.resources import Resources
from fanfold.schedulers import slurm_answers as answers
from fanfold.schedulers.base import Answer, Job, JobState, Limits, Scheduler, Seen
from fanfold.schedulers.scripts.directives import quote_slurm, split_words
from fanfold.schedulers.scripts.slurm import options
from fanfold.schedulers.scripts.writing import directives

__all__ = ["Slurm"]

_ID = re.compile(r"([0-9]+(?:_[0-9]+)?)(?:;([\w.-]+))?", re.ASCII)
_RANGES_AT_ONCE = 1000  # in one command: the kernel limits the length of a word

# What of the environment stands above the directives, hides jobs, or is read by a job as its own.
_SUBMITTER = (
    "SBATCH_ARRAY_INX SBATCH_ERROR SBATCH_JOB_NAME SBATCH_OPEN_MODE SBATCH_OUTPUT SBATCH_WAIT "
    "SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT"
)
# Where sbatch looks for resources before it looks into the script (sbatch(1), Input environment).
_SAID_TOO = {
    "walltime": "SBATCH_TIMELIMIT",
    "memory": "SBATCH_MEM_PER_CPU SBATCH_MEM_PER_GPU SBATCH_MEM_PER_NODE",
    "gpus": "SBATCH_GPUS SBATCH_GPUS_PER_NODE SBATCH_GPUS_PER_TASK SBATCH_GRES",
    "queue": "SBATCH_PARTITION",
    "account": "SBATCH_ACCOUNT",
    "constraint": "SBATCH_CONSTRAINT",
}
_WATCHER = "SQUEUE_ACCOUNT SQUEUE_LICENSES SQUEUE_NAMES SQUEUE_PARTITION SQUEUE_QOS SQUEUE_USERS"
_CANCELLER = (
    "SCANCEL_ACCOUNT SCANCEL_BATCH SCANCEL_INTERACTIVE SCANCEL_NAME SCANCEL_PARTITION SCANCEL_QOS "
    "SCANCEL_STATE SCANCEL_USER SCANCEL_WCKEY"
)
_PLAINLY = ("LC_ALL=C", "SLURM_TIME_FORMAT=%s", "SLURM_BITSTR_LEN=0")

# Directives that would take away what a job is found, read and waited for by.
_NOT_FOR_USERS = ("--array", "--clusters", "--error", "--quiet", "--test-only", "--wait")


class Slurm(Scheduler):
    """Slurm, from 20.11 on.

    An id is ``"12"``, or ``"12;cluster"`` for a job on another cluster than the one of this node.

    >>> Slurm().cancel("12", [0, 1, 2, 7])[0][-2:]
    ['scancel', '12_[0-2,7]']
    """

    name = "slurm"
    command = "sbatch"
    states: ClassVar[Mapping[str, JobState]] = answers.STATES
    variables: ClassVar[Mapping[str, str]] = {
        "index": "SLURM_ARRAY_TASK_ID",
        "job": "SLURM_ARRAY_JOB_ID",
        "restarts": "SLURM_RESTART_COUNT",
    }

    def header(self, job: Job) -> list[str]:
        """The directives of a script for this job.

        A job in ``after`` that Slurm knows no more counts as one that ended well, whatever became
        of it. Raises `UsageError` for directives that are fanfold's own to say, and for a path that
        Slurm cannot write to.
        """
        own = dict(_own(job))
        _check_extra(job.resources, {*own, *_NOT_FOR_USERS})
        asked = directives(job.resources, "slurm")
        mine = [f"#SBATCH {name}={quote_slurm(value)}" for name, value in own.items()]
        return ["#SBATCH --requeue", *asked, *mine]  # the last one counts: users may forbid it

    def submission(self, script: str, resources: Resources | None = None) -> list[str]:
        """Where a resource is not asked for, what the environment says of it is left to count."""
        asked = [names for field, names in _SAID_TOO.items() if getattr(resources, field, None)]
        return [*_env(" ".join([_SUBMITTER, *asked])), "sbatch", "--parsable", "--", script]

    def submitted(self, answer: Answer) -> str:
        printed = re.findall(r"^([0-9]+(?:;[\w.-]+)?)\r?\n", answer.out, re.ASCII | re.MULTILINE)
        if len(printed) != 1:
            raise answers.not_submitted(answer)
        return str(printed[0])

    def search(self, name: str) -> list[str]:
        """It looks where sbatch submits: on another cluster when SLURM_CLUSTERS names one."""
        asked = ["--me", f"--name={name}", "--states=all", _fields(answers.FOUND)]
        return [*_env(_WATCHER), *_PLAINLY, "squeue", *asked]

    def found(self, answer: Answer) -> list[str]:
        """Their ids, oldest first, and those that were cancelled last. Raises `SchedulerDown`."""
        answers.check(answer, "ARRAY_JOB_ID")
        elsewhere = re.search(r"^CLUSTER: ", answer.out, re.MULTILINE)
        cancelled: dict[tuple[int, str], bool] = {}
        for number, cluster, word in answers.records(answer, answers.FOUND):
            key = int(number), f"{number};{cluster}" if elsewhere else number
            cancelled[key] = cancelled.get(key, True) and word == "CANCELLED"
        return [job for _, job in sorted(cancelled, key=lambda key: (cancelled[key], key))]

    def watch(self, jobs: Sequence[str]) -> list[str]:
        """The command that tells of these jobs and their elements, all at once.

        It is no ``--json``, which lists every job of everybody, whatever is asked for; and no
        ``--array``, which leaves out the last element of some arrays that wait. Raises `UsageError`
        for jobs of several clusters.
        """
        asked = [*_selected(jobs), "--states=all", _fields(answers.QUEUE)]
        return [*_env(f"{_WATCHER} SLURM_CLUSTERS"), *_PLAINLY, "squeue", *asked]

    def seen(self, answer: Answer) -> list[Seen]:
        if answer.code and "Invalid job id specified" in answer.err:
            return []  # that is what it says of a single job, where it leaves others out
        answers.check(answer, "ARRAY_JOB_ID")
        rows = map(answers.queued, answers.records(answer, answers.QUEUE))
        return _on_cluster(answer, [seen for row in rows for seen in row])

    def history(self, jobs: Sequence[str]) -> list[str]:
        """The command that tells how these jobs ended. Raises `UsageError` as `watch` does."""
        asked = [*_selected(jobs), "--duplicates", "--starttime=now-365days"]
        shown = ["--parsable", "--noconvert", f"--format={','.join(answers.RECORDS)}"]
        return [*_env("SLURM_CLUSTERS"), *_PLAINLY, "sacct", *asked, *shown]

    def recorded(self, answer: Answer) -> list[Seen]:
        """What it told, the newest of each element; nothing where no records are kept.

        Beside those with an index an array may have one without: it is of the elements that never
        began and have no other. An exit status may be 128 less than it was. Raises `SchedulerDown`.
        """
        if answer.code and "accounting storage is disabled" in answer.err:
            return []
        answers.check(answer, "JobID")
        rows = answers.records(answer, answers.RECORDS)
        return _on_cluster(answer, answers.recorded(rows))

    def limits(self) -> list[str]:
        return ["scontrol", "show", "config"]

    def read_limits(self, answer: Answer) -> Limits:
        told = {
            name: int(number)
            for name, number in re.findall(
                r"\b(MaxArraySize|MaxJobCount|max_array_tasks) *= *([0-9]{1,10})\b", answer.out
            )
        }
        size = told.get("MaxArraySize", Limits().elements)
        return Limits(
            elements=max(1, min(size, told.get("max_array_tasks", size))),
            highest_index=max(0, min(size - 1, answers.LARGEST_INDEX)),
            jobs=told.get("MaxJobCount"),
        )

    def cancel(self, job: str, indices: Sequence[int] | None = None) -> list[list[str]]:
        number, cluster = _parts(job)
        command = [*_env(f"{_CANCELLER} SLURM_CLUSTERS"), "scancel"]
        command += [f"--clusters={cluster}"] if cluster else []
        if indices is None:
            return [[*command, number]]
        ranges = list(_ranges(indices))
        pieces = (
            ",".join(ranges[first : first + _RANGES_AT_ONCE])
            for first in range(0, len(ranges), _RANGES_AT_ONCE)
        )
        return [[*command, f"{number}_[{piece}]"] for piece in pieces]

    def cancelled(self, answer: Answer) -> None:
        error = answers.not_cancelled(answer)
        if error is not None:
            raise error

    def shell(self, resources: Resources) -> list[str]:
        """The command that gives a shell on a node: a step that leaves room for others, so that
        srun works in it."""
        lines = (line.removeprefix("#SBATCH") for line in directives(resources, "slurm"))
        asked = [word for line in lines for word in split_words(line, escapes=True)[0]]
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1"]
        step += [f"--cpus-per-task={resources.cores}", "--pty"]
        return ["salloc", *asked, *step, "/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" -i']


def _env(unset: str) -> list[str]:
    return ["env", *(word for name in unset.split() for word in ("-u", name))]


def _fields(fields: Mapping[str, object]) -> str:
    return "--Format=" + ",".join(f"{name}:|" for name in fields)


# Ids and indices ----------------------------------------------------------------------------------


def _parts(job: str) -> tuple[str, str]:
    """The number of a job, and the cluster that it is on ("": the one of this node)."""
    match = _ID.fullmatch(job)
    if match is None:
        raise UsageError(f"{job!r} is no id of a Slurm job: write a number, such as 1234")
    return match[1], match[2] or ""


def _selected(jobs: Sequence[str]) -> list[str]:
    parts = [_parts(job) for job in jobs]
    clusters = {cluster for _, cluster in parts}
    if len(clusters) > 1:
        named = " and ".join(sorted(cluster or "this one" for cluster in clusters))
        raise UsageError(f"these are jobs of several clusters ({named}): ask for one at a time")
    only = [f"--clusters={cluster}" for cluster in clusters if cluster]
    return [*only, f"--jobs={','.join(number for number, _ in parts)}"]


def _on_cluster(answer: Answer, told: list[Seen]) -> list[Seen]:
    """With the ids that were asked for."""
    asked = [word.removeprefix("--clusters=") for word in answer.argv if "--clusters=" in word]
    return [seen._replace(job=f"{seen.job};{asked[0]}") for seen in told] if asked else told


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    """Indices as scancel takes them, such as ``"1-3"`` and ``"7"``."""
    wanted = set(indices)
    starts = sorted(index for index in wanted if index - 1 not in wanted)
    ends = sorted(index for index in wanted if index + 1 not in wanted)
    for start, end in zip(starts, ends, strict=True):
        yield f"{start}-{end}" if end > start else str(start)


# The header ---------------------------------------------------------------------------------------


def _own(job: Job) -> Iterator[tuple[str, str]]:
    """The options that fanfold itself sets."""
    yield "--job-name", job.name
    if job.last > job.first:
        at_once = f"%{job.at_once}" if job.at_once else ""
        yield "--array", f"{job.first}-{job.last}{at_once}"
    yield "--output", _pattern(job)
    yield "--open-mode", "append"  # what begins again must not wipe out what it printed before
    if job.after:
        yield "--dependency", "afterok:" + ":".join(_parts(after)[0] for after in job.after)
        yield "--kill-on-invalid-dep", "yes"  # or it would wait for ever


def _pattern(job: Job) -> str:
    """The file for the output: ``%a`` is a senseless number outside of an array."""
    if re.search(r"[\n\r\0]", job.output):
        raise UsageError(f"{job.output!r} has a line end in it: choose a folder without one")
    array = job.last > job.first
    if "\\" not in job.output:
        return job.output.replace("%", "%%") + (".%a" if array else f".{job.first}")
    if array:
        raise UsageError(
            f"{job.output} has a backslash, and then Slurm has no file for each element: choose a "
            "folder without one"
        )
    return f"{job.output}.{job.first}".replace("\\", "\\\\")  # and a % is a plain one


def _check_extra(resources: Resources, own: set[str]) -> None:
    for line in resources.extra:
        for option in options(split_words(line, escapes=True)[0], 0):
            key = option.key.partition(" ")[0]
            if key in own:
                instead = ", and set SLURM_CLUSTERS" if key == "--clusters" else ""
                raise UsageError(f"{line!r}: {key} is for fanfold to say: leave it out{instead}")
