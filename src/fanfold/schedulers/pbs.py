"""PBS: what to ask it, and how to read what it says.

It says so little of how an array ended that nothing is read from the array itself: its exit status
is that of the element that ended last. And it takes some jobs away without a word: those that wait
for one that can never end well, or that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from fanfold.errors import (
    SchedulerDown,
    SchedulerError,
    SchedulerFull,
    SubmitRefused,
    SubmitUnknown,
    UsageError,
)
from fanfold.resources import Resources
from fanfold.schedulers.base import Answer, Job, Limits, Scheduler, Seen
from fanfold.schedulers.qstat import STATES, parts, read_elements
from fanfold.schedulers.scripts.directives import quote_pbs, split_words
from fanfold.schedulers.scripts.pbs import options
from fanfold.schedulers.scripts.writing import directives

__all__ = ["PBS"]

_PRINTED_ID = re.compile(r"^([0-9]+(?:\[\])?\.[\w.-]+)[ \t]*\r?\n", re.ASCII | re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,230}")
_LARGEST_INDEX = 2_147_483_647
_RANGES_AT_ONCE = 100  # in one command to delete

# A shell, for there are two commands: without job history the second says nothing, and ends well.
_SEARCH = 'u=$(id -un) && qselect -u "$u" -N "$1" && exec qselect -x -u "$u" -N "$1"'

# A directive with one of these would take away what an array is found and read by.
_NOT_FOR_USERS = ("-C", "-I", "-J", "-W block", "-e", "-z")

_DOWN = re.compile(
    r"cannot connect to server|[Cc]ouldn't connect to|Connection refused|Unknown Host"
    r"|pbsconf error|[Nn]o (?:free connections|server to connect)|Server is shutting down"
)
_DOWN_STATUSES = (160, 162, 255)
_FULL = re.compile(r"would exceed|[Mm]aximum number of jobs")
_FULL_STATUSES = (38, 39)
_LOST = re.compile(
    r"Error \((?!15014\))[0-9]+\) submitting|End of [Ff]ile|[Tt]imed out|[Pp]rotocol|[Bb]roken pipe"
    r"|reset by peer|[Pp]remature end"
)
_REFUSED = re.compile(r"^(?:qsub: |usage: qsub )", re.MULTILINE)
_SLURM = re.compile(r"^Unknown option: f$|Slurm\.pm", re.MULTILINE | re.IGNORECASE)
_GONE_STATUSES = (35, 55, 153, 156)

_REMEDIES = {
    r"Unknown queue": "name a queue that qstat -Q lists (--queue)",
    r"Queue is not enabled": "name another queue that qstat -Q lists (--queue), or wait",
    r"Unauthorized Request": "name a queue that is yours (--queue): qstat -Qf tells whose they are",
    r"Bad UID": "submit it as yourself: root may not, nor who has no account on the nodes",
    r"Array job exceeds": "share the tasks among fewer elements (--elements): max_array_size in "
    "qstat -Bf and qstat -Qf tells the most",
    r"illegal -J value": "write X-Y, X-Y:STEP or X-Y:STEP%MAX, with Y over X",
    r"resource limits": "ask for less (--walltime, --cores, --memory), or name another queue "
    "(--queue): resources_max and resources_min in qstat -Qf tell the limits",
    r"Unknown resource:? *(?:Resource_List\.)?n?gpus": "ask for GPUs as this site does, with a "
    "directive such as -l select=1:NAME=1: the names are in pbsnodes -a",
    r"Unknown resource": "name a resource of this site: pbsnodes -a lists them",
    r"Resource_List\.walltime": "write the walltime as HH:MM:SS",
    r"(?:select|Resource_List)\.(?:mem|vmem|pmem)": "write the memory as 4gb or 500mb, without "
    "fractions",
    r"(?:select|Resource_List)\.ncpus": "write a whole number of cores",
    r"resource value project": 'name a project without / [ ] " ; : | < > + , ? * (--account)',
    r"Illegal attribute or resource value": "correct the directive that has a value PBS lacks",
    r'cannot be used with "select"': "put it into the select: -l select=1:ncpus=4:mem=8gb",
    r"illegal -N value|Job name is too long": "name it with letters, digits, - _ + and . only, 230 "
    "at most",
    r"illegal -[oe] value": "name a file with ASCII letters only, and its folder before any :",
    r"illegal -M value": "write addresses with commas between, without blanks",
    r"illegal -m value|mail option": "write n, or some of a, b and e",
    r"illegal -p value": "write a whole number from -1024 to 1023",
    r"illegal -W value": "write depend=afterok:ID of whole jobs, not of elements",
    r"illegal -a value": "write the time as [[CC]YY]MMDDhhmm",
    r"illegal -(?:k|j|r|R|S|c|u|P|A|l|q) value": "man qsub tells which there are",
    r"cannot send environment": "set the variables in the script: qsub -v takes none that is not "
    "set, nor a lone quote or comma",
    r"non-rerunable Array": "leave -r n out: an array can always begin again",
    r"directive error": "correct this directive, without a comment behind it",
    r"invalid option": "write an option that qsub has: man qsub lists them",
    r"script file": "name a script that is there and can be read",
    r"script not a file": "name a script, not a folder",
    r"must be a terminal": "run it at a terminal",
}


class PBS(Scheduler):
    """OpenPBS, and PBS Professional since 14.

    An id is what qsub prints: ``"12.server"``, or ``"12[].server"`` of an array.

    >>> PBS().cancel("12[].server", [4, 5, 6, 7, 9])
    [['qdel', '12[4-7].server', '12[9].server']]
    """

    name = "pbs"
    command = "qsub"
    states = STATES
    variables: ClassVar[Mapping[str, str]] = {"index": "PBS_ARRAY_INDEX", "job": "PBS_ARRAY_ID"}

    def header(self, job: Job) -> list[str]:
        """The directives of a script for this job.

        There is no ``-k``: with it a node that cannot write the log holds the whole array, and only
        an operator can let it go. So what PBS keeps of the output is there when an element has
        ended. The folder of ``output`` has to exist.

        Of arrays nobody but their elements knows whether they ended well: after these it begins
        however they ended, and has to look itself. After plain jobs it begins when they ended well.
        Name none that has ended: where no history is kept PBS does not know it any more, and takes
        away who waits for it.

        Raises `UsageError` for directives that would take away what the job is found and read by,
        for a name that qsub does not take, and for a path that PBS cannot write to.
        """
        own = dict(_own(job))
        _check_extra(job.resources, {*(name.rstrip(" =") for name in own), *_NOT_FOR_USERS})
        asked = directives(job.resources, "pbs")
        mine = [f"#PBS {name}{quote_pbs(value)}" for name, value in own.items()]
        return ["#PBS -r y", *asked, *mine]  # who wants no second run has the last word

    def submission(self, script: str, resources: Resources | None = None) -> list[str]:
        """It leaves no process behind (``-f``), and no PBS_DPREFIX changes what a directive is."""
        return ["qsub", "-f", "-C", "#PBS", script]

    def submitted(self, answer: Answer) -> str:
        printed = set(_PRINTED_ID.findall(answer.out))
        if len(printed) == 1:
            return str(printed.pop())
        said = _words(answer)
        if answer.code is None or answer.code < 0:
            raise SubmitUnknown(f"qsub did not come to its end: {said or 'it said nothing'}")
        _check_whose(answer)
        if _is_down(answer):
            raise SchedulerDown(f"PBS takes no job now: {said}")
        if answer.code in _FULL_STATUSES or (answer.code and _FULL.search(said)):
            raise SchedulerFull(
                f"PBS takes no more jobs now ({said}): wait until some have ended, or share the "
                "tasks among fewer elements (--elements)"
            )
        if not answer.code or _LOST.search(said) or not _REFUSED.search(answer.err):
            raise SubmitUnknown(f"PBS may have taken the job, or not: {said or 'no answer'}")
        remedy = next((text for mark, text in _REMEDIES.items() if re.search(mark, said)), "")
        raise SubmitRefused(f"PBS refuses the job ({said})" + (f": {remedy}" if remedy else ""))

    def search(self, name: str) -> list[str]:
        return ["sh", "-c", _SEARCH, "sh", name]

    def found(self, answer: Answer) -> list[str]:
        """The ids, those of jobs that have not ended first.

        Raises `UsageError` where there is no qselect, and `SchedulerDown`.
        """
        if answer.code == 127:
            raise UsageError(
                f"there is no qselect here ({_words(answer)}): run this on a login node of the "
                "cluster, and if it is one, load the module that has qselect first"
            )
        jobs = list(dict.fromkeys(_PRINTED_ID.findall(answer.out)))
        unread = answer.out.strip() and not jobs
        if answer.code != 0 or unread or not f"\n{answer.out}".endswith("\n"):
            raise SchedulerDown(f"qselect failed: {_words(answer) or 'no answer'}")
        return jobs

    def watch(self, jobs: Sequence[str]) -> list[str]:
        return ["qstat", "-t", "-f", "-F", "json", *map(_checked, jobs)]

    def seen(self, answer: Answer) -> list[Seen]:
        """What it told. A record that is damaged tells that there is an element, and no more."""
        return _told(answer)

    def history(self, jobs: Sequence[str]) -> list[str]:
        return ["qstat", "-x", "-t", "-f", "-F", "json", *map(_checked, jobs)]

    def recorded(self, answer: Answer) -> list[Seen]:
        """What it told of these jobs, those that have not ended among them.

        An element that never began, or that had ended when its whole array was deleted, has no
        record of its own: it counts as cancelled.
        """
        return _told(answer)

    def limits(self) -> list[str]:
        return ["qstat", "-B", "-f"]

    def read_limits(self, answer: Answer) -> Limits:
        """Those of the server: a queue may have narrower ones."""
        told = answer.out.replace("\n\t", "")  # long lines are folded
        size = re.search(r"^ *max_array_size = ([0-9]{1,9})$", told, re.MULTILINE)
        queued = re.search(r"^ *max_queued = (.*)$", told, re.MULTILINE)
        most = re.findall(r"\[[ou]:PBS_(?:ALL|GENERIC)=([0-9]{1,9})\]", queued[1] if queued else "")
        return Limits(
            elements=max(1, int(size[1])) if size else Limits().elements,
            highest_index=_LARGEST_INDEX,
            jobs=min(map(int, most), default=None),
        )

    def cancel(self, job: str, indices: Sequence[int] | None = None) -> list[list[str]]:
        """The commands that end a job, or some elements of it.

        Name the elements that have not ended: with the whole of an array PBS forgets how the others
        ended.
        """
        number, brackets, _, server = parts(job)
        if indices is None or not brackets:
            return [["qdel", job]]
        ranges = [f"{number}[{piece}]{server}" for piece in _ranges(indices)]
        pieces = range(0, len(ranges), _RANGES_AT_ONCE)
        return [["qdel", *ranges[first : first + _RANGES_AT_ONCE]] for first in pieces]

    def cancelled(self, answer: Answer) -> None:
        if answer.code == 0 or answer.code in _GONE_STATUSES:
            return
        said = _words(answer)
        if answer.code is None or answer.code < 0 or _is_down(answer):
            raise SchedulerDown(f"qdel failed: {said or 'no answer in time'}")
        if "Unauthorized" in said:
            raise SchedulerError(f"it is somebody else's job: {said}")
        raise SchedulerError(f"qdel failed: {said or f'exit status {answer.code}'}")

    def shell(self, resources: Resources) -> list[str]:
        lines = (line.removeprefix("#PBS") for line in directives(resources, "pbs"))
        asked = [word for line in lines for word in split_words(line, escapes=False)[0]]
        return ["qsub", "-I", *asked]


# Ids and indices ----------------------------------------------------------------------------------


def _checked(job: str) -> str:
    parts(job)
    return job


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    """Indices as qdel takes them: ``"4"``, ``"4-9"`` and ``"5-9:2"``, but no lists."""
    wanted = sorted(set(indices))
    while wanted:
        first, step = wanted[0], wanted[1] - wanted[0] if len(wanted) > 1 else 1
        count = 1
        while count < len(wanted) and wanted[count] - wanted[count - 1] == step:
            count += 1
        if count == 1 or (count == 2 and step > 1):
            yield str(first)
            count = 1
        else:
            yield f"{first}-{wanted[count - 1]}" + (f":{step}" if step > 1 else "")
        del wanted[:count]


# The header ---------------------------------------------------------------------------------------


def _own(job: Job) -> Iterator[tuple[str, str]]:
    """The options that fanfold itself sets, and their values."""
    if _NAME.fullmatch(job.name) is None:
        raise UsageError(
            f"{job.name!r} is no name of a PBS job: write letters, digits, - _ + and ."
        )
    yield "-N ", job.name
    if job.last > job.first:
        at_once = f"%{job.at_once}" if job.at_once else ""
        yield "-J ", f"{job.first}-{job.last}{at_once}"
    yield "-j ", "oe"
    yield "-o ", _log(job)
    if job.after:
        yield "-W depend=", _dependency(job.after)


def _log(job: Job) -> str:
    """The file for the output; PBS takes an index for itself, and reads paths in its own way."""
    array = job.last > job.first
    wrong = [
        mark for mark in ("\\", "^array_index^" if array else "") if mark and mark in job.output
    ]
    if not (job.output.isascii() and job.output.isprintable()):
        wrong.append("characters outside printable ASCII")
    if "'" in job.output and '"' in job.output:
        wrong.append("both kinds of quotes")
    if wrong:
        raise UsageError(
            f"{job.output!r} has {' and '.join(wrong)} in it, and PBS cannot write there: choose a "
            "folder without"
        )
    return f"{job.output}.^array_index^" if array else f"{job.output}.{job.first}"


def _dependency(jobs: Sequence[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for job in jobs:
        _, brackets, index, _ = parts(job)
        if index:
            raise UsageError(f"{job} is an element, and PBS waits for whole arrays: write 12[]")
        kinds.setdefault("afterany" if brackets else "afterok", []).append(job)
    return ",".join(":".join([kind, *ids]) for kind, ids in kinds.items())


def _check_extra(resources: Resources, own: set[str]) -> None:
    for line in resources.extra:
        for option in options(split_words(line, escapes=False)[0], 0):
            if option.key in own:
                raise UsageError(
                    f"the directive {line!r} is for fanfold to say: leave {option.key} out"
                )


# Answers ------------------------------------------------------------------------------------------


def _words(answer: Answer) -> str:
    """The scheduler's own words, without what it says of how it is called."""
    said = re.split(r"^usage: |^Usage:", answer.err, maxsplit=1, flags=re.MULTILINE)[0]
    said = said.strip() or (answer.err.strip() or answer.out.strip())[:200]
    return "; ".join(line.strip() for line in said.splitlines() if line.strip())


def _is_down(answer: Answer) -> bool:
    return answer.code in _DOWN_STATUSES or bool(answer.code and _DOWN.search(answer.err))


def _check_whose(answer: Answer) -> None:
    """Slurm comes with a qsub of its own, that knows no ``-f``, and prints a bare number."""
    taken = re.search(r"^([0-9]+)\r?\n", answer.out, re.MULTILINE) if answer.code == 0 else None
    if taken is not None:
        raise SubmitRefused(
            f"this qsub is Slurm's own, and has made it Slurm's job {taken[1]}: end that with "
            f"scancel {taken[1]}, and use --on slurm"
        )
    if answer.code and _SLURM.search(answer.err):
        raise SubmitRefused(f"this qsub is Slurm's own ({_words(answer)}): use --on slurm")


def _told(answer: Answer) -> list[Seen]:
    if answer.code not in (0, 35, 153):  # these say that some of the jobs are not in it
        raise SchedulerDown(f"qstat failed: {_words(answer) or 'no answer in time'}")
    if answer.code and not answer.out.strip():
        return []
    asked = [word for word in answer.argv if word[:1].isdigit()]
    return list(read_elements(answer.out, asked))
