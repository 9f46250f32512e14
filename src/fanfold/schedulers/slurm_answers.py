"""What the commands of Slurm print, as records and errors.

A record is a line that is one from end to end, and every field ends with a bar: what was cut off,
or stands between them, is none. In the accounting records an element is late, and an exit status is
kept without its highest bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from fanfold.errors import (
    SchedulerDown,
    SchedulerError,
    SchedulerFull,
    SubmitRefused,
    SubmitUnknown,
    UsageError,
)
from fanfold.schedulers.base import ENDED, Answer, JobState, Seen
from fanfold.units import parse_indices

__all__ = [
    "FOUND",
    "LARGEST_INDEX",
    "QUEUE",
    "RECORDS",
    "STATES",
    "check",
    "not_cancelled",
    "not_submitted",
    "queued",
    "recorded",
    "records",
]

LARGEST_INDEX = 999_999  # that is read; Slurm allows some more, sites do not
_LAUNCH_FAILURE = 53  # in the place of a signal

STATES: dict[str, JobState] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "REQUEUE_HOLD": "held",
    "RESV_DEL_HOLD": "held",
    "SPECIAL_EXIT": "held",
    "STOPPED": "held",
    "SUSPENDED": "held",
    "RESIZING": "running",
    "RUNNING": "running",
    "SIGNALING": "running",
    "COMPLETING": "ending",
    "STAGE_OUT": "ending",
    "COMPLETED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "DEADLINE": "cancelled",
    "TIMEOUT": "walltime",
    "OUT_OF_MEMORY": "memory",
    "BOOT_FAIL": "node",
    "NODE_FAIL": "node",
    "PREEMPTED": "preempted",
}
_HOLD = (
    r"(?:JobHeldUser|JobHeldAdmin|JobHoldMaxRequeue|job requeued in held state"
    r"|launch failed requeued held)"
)
_HELD = re.compile(rf"{_HOLD}(?:,{_HOLD})*")  # several where elements share a row

# Errors -------------------------------------------------------------------------------------------

# Nothing was sent to the controller; of what else keeps it from being asked nobody knows.
_NOT_SENT = (
    r"\(connect failure\)|auth_g_create|standby mode|[Pp]roblem talking to (?:the )?database"
    r"|Could not establish a configuration source|Unable to process configuration file"
)
_DOWN = (
    rf"{_NOT_SENT}|Unable to contact slurm controller|[Aa]uthentication error|timed out"
    r"|Connection refused|Connection reset|not connected|Zero Bytes|Unexpected message"
    r"|(?:connection|receive|send|shutdown) failure"
)
_FULL = r"\w*Submit\w*Limit|submission failed: Resource temporarily unavailable"
_ERROR = re.compile(r"^sbatch: (?:error|fatal|unrecognized option)", re.MULTILINE)
_REMEDIES = {
    r"invalid partition": "name a queue that sinfo lists (--queue)",
    r"Invalid account": "name an account that you have (--account): "
    'sacctmgr show assoc user="$USER" format=account,partition lists them',
    r"Invalid qos": "name one that you have with the directive --qos=NAME",
    r"Memory specification": "ask for less memory (--memory): "
    "sinfo -o '%P %m' tells the megabytes of nodes",
    r"CPU count per node": "ask for fewer cores (--cores): sinfo -o '%P %c' tells those of nodes",
    r"node configuration is not available": "no node has all this: ask for less, or for another "
    "queue (--queue); sinfo -o '%P %c %m %G' tells the cores, megabytes and GPUs of nodes",
    r"\(gres\)": "ask for GPUs that there are (--gpus, --queue): sinfo -o '%P %G' lists them",
    r"Invalid feature": "name a constraint that sinfo -o '%P %f' lists",
    r"Invalid node name": "name nodes that sinfo -N lists",
    r"Invalid license": "name a license that scontrol show licenses lists",
    r"reservation is invalid": "name a reservation that scontrol show reservations lists",
    r"time limit is invalid": "ask for less time (--walltime), or for a queue that allows so much "
    "(--queue): sinfo -o '%P %l' tells",
    r"[Nn]ode count": "ask for fewer nodes: sinfo -o '%P %D' tells how many there are",
    r"job array specification": "share the tasks among fewer elements (--elements): "
    "scontrol show config | grep MaxArraySize tells how many there may be",
    r"dependency problem": "name jobs that there are",
    r"accounting/QOS policy": "ask for less: sacctmgr show qos, and sacctmgr show assoc "
    'user="$USER", tell the limits',
    r"too long": "make the script, its paths or its comment shorter",
    r"does not look like a batch script": "begin it with #!/bin/sh",
    r"DOS line breaks": r"write it with UNIX line ends: sed -i 's/\r$//' SCRIPT makes them",
    r"script is empty": "write the commands to run into it",
    r"Unable to open file": "name a script that is there and can be read",
    r"Invalid --time": "write the time as HH:MM:SS or D-HH:MM:SS",
    r"Invalid --mem": "write the memory as 4G or 500M, without fractions",
    r"mutually exclusive": "ask for memory once, in one way",
    r"Invalid numeric value": "write a whole number of at least 1",
    r"Invalid --nice|permitted by root": "leave it out, only an administrator may ask for this",
    r"unrecognized option": "write an option that sbatch --help lists",
    r"Invalid --": "man sbatch tells what it takes",
    r"No cluster ": "name a cluster that sacctmgr show clusters lists",
}


def _words(answer: Answer) -> str:
    """What a command said, without the name of the program, in one line."""
    lines = (answer.err.strip() or answer.out.strip()).splitlines()
    bare = [re.sub(r"^(?:s\w+: )?(?:error|fatal): ", "", line.strip()) for line in lines]
    return "; ".join(dict.fromkeys(line for line in bare if line))[:2000]


def not_submitted(answer: Answer) -> SchedulerError:
    """The error that an answer of sbatch without an id is."""
    said = _words(answer) or "it said nothing"
    if answer.code is None or answer.code < 0:
        return SubmitUnknown(f"sbatch was ended, and may have submitted the job: {said}")
    if answer.code and re.search(_NOT_SENT, said):
        return SchedulerDown(f"Slurm takes no jobs now: {said}")
    if answer.code and re.search(_FULL, said):
        return SchedulerFull(f"Slurm takes no more jobs now: {said}")
    known = answer.code and _ERROR.search(answer.err)
    if not known or re.search(rf"{_DOWN}|sleeping and retrying$", said):
        return SubmitUnknown(f"Slurm may have taken the job, or not: {said}")
    remedy = next((text for mark, text in _REMEDIES.items() if re.search(mark, said)), "")
    return SubmitRefused(f"Slurm refuses the job ({said})" + (remedy and f": {remedy}"))


def not_cancelled(answer: Answer) -> SchedulerError | None:
    """The error that an answer of scancel is; None when the job is gone or going."""
    said = _words(answer)
    if answer.code == 0 or re.search("already complet|Invalid job id specified", said):
        return None
    if "Access/permission denied" in said:
        return SchedulerError(f"only who submitted the job may cancel it: {said}")
    if answer.code is None or re.search(_DOWN, said):
        return SchedulerDown(f"scancel failed: {said or 'no answer in time'}")
    return SchedulerError(f"scancel failed: {said or f'exit status {answer.code}'}")


def check(answer: Answer, header: str) -> None:
    """Raises `SchedulerDown` unless it is a whole answer: there is a header, even where there is
    nothing to tell, and a line end at its end."""
    if answer.code is None:
        raise SchedulerDown("Slurm gave no answer in time")
    if answer.code:
        raise SchedulerDown(_words(answer) or f"Slurm did not answer, exit status {answer.code}")
    if f"{header}|" not in answer.out or not answer.out.endswith("\n"):
        raise SchedulerDown(f"Slurm gave no whole answer: {_words(answer) or 'nothing'}")


# Records ------------------------------------------------------------------------------------------


_TIME = r"[0-9]{1,12}|[0-9-]{10}T[0-9:]{8}|[A-Za-z/]*"
_NUMBER = r"[0-9]{1,10}"
FOUND = {"ArrayJobID": _NUMBER, "Cluster": r"[\w.-]+", "State": r"[A-Z_]+"}
QUEUE = {
    "ArrayJobID": _NUMBER,
    "ArrayTaskID": r"N/A|[0-9,:%.-]+",
    "State": r"[A-Z_]+",
    "exit_code": _NUMBER,  # as wait(2) has it
    "RestartCnt": _NUMBER,
    "StartTime": _TIME,
    "EndTime": _TIME,
    "NodeList": r"[^|]*",
    "Reason": r".*",  # free text, so it is the last
}
RECORDS = {
    "JobID": r"[0-9]{1,10}(?:_(?:[0-9]{1,7}|\[[0-9,:%.-]+\]))?(?:\.\w+)?",
    "Partition": r"[^|]*",
    "State": r"[A-Z_]+(?: by \w+)?",
    "ExitCode": r"(?:[0-9]{1,3}:[0-9]{1,3})?",
    "Submit": _TIME,
    "Start": _TIME,
    "End": _TIME,
    "TotalCPU": r"[0-9:.-]*",
    "MaxRSS": r"[0-9.]*[KMGTP]?",
    "NodeList": r"[^|]*",
}


def records(answer: Answer, fields: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The lines that are records, whatever stands between them."""
    pattern = "".join(rf"({field})\|" for field in fields.values())
    line = re.compile(pattern, re.ASCII)
    matches = (line.fullmatch(text.rstrip("\r")) for text in answer.out.split("\n"))
    return (match.groups() for match in matches if match)


def queued(fields: tuple[str, ...]) -> list[Seen]:
    """The elements that a row of the queue is of; those that wait share one."""
    job, indices, word, code, restarts, start, end, nodes, reason = fields
    state, node = _state(word, reason), _node(nodes)
    status, signal = int(code) >> 8 & 0xFF, int(code) & 0x7F
    seen = Seen(
        job=job,
        index=None,
        state=state,
        word=word,
        reason=_reason(reason, state, signal),
        node=node,
        began=_time(start) if node else None,  # until then this is a guess
        ended=_time(end) if state in ENDED else None,
        restarts=int(restarts),
        **_end(state, status, signal),
    )
    return [seen._replace(index=index) for index in _indices(indices)]


class _Record(NamedTuple):
    """A row of the accounting records: of a job, an element, ``several`` elements that never
    began, or a ``step`` of them."""

    job: str
    indices: Sequence[int | None]
    several: bool
    step: str
    partition: str
    word: str
    by: str
    status: int
    signal: int
    submitted: float | None
    began: float | None
    ended: float | None
    cpu_time: float | None
    peak_memory: int | None
    node: str

    @classmethod
    def read(cls, fields: tuple[str, ...]) -> _Record:
        name, partition, state, code, submit, start, end, cpu, peak, nodes = fields
        step = name[name.rfind("]") + 1 :].partition(".")[2]
        job, _, index = name.removesuffix(f".{step}").partition("_")
        word, _, by = state.partition(" ")
        status, _, signal = code.partition(":")
        return cls(
            job, _indices(index.strip("[]") or "N/A"), index.startswith("["), step, partition,
            word, by, int(status or 0), int(signal or 0), _time(submit), _time(start), _time(end),
            _seconds(cpu), _bytes(peak), _node(nodes),
        )  # fmt: skip

    @property
    def age(self) -> tuple[float, bool, bool, float]:
        """The newest has the greatest: to begin a job again is to submit it again."""
        began = math.inf if self.began is None else self.began
        return self.submitted or 0.0, not self.several, self.word != "REQUEUED", began


def recorded(rows: Iterable[tuple[str, ...]]) -> list[Seen]:
    """The newest record of each element, with what its steps used.

    A row without a partition is not complete yet, and may be of the last element alone. One without
    an index, of a job that has elements, counts when it tells that those that never began were
    cancelled.
    """
    jobs: dict[tuple[str, int | None], list[_Record]] = {}
    steps: dict[tuple[str, int | None], list[_Record]] = {}
    for record in map(_Record.read, rows):
        if record.step or record.partition:
            for index in record.indices:
                (steps if record.step else jobs).setdefault((record.job, index), []).append(record)
    found = [_newest(key, tries, steps.get(key, [])) for key, tries in jobs.items()]
    arrays = {seen.job for seen in found if seen.index is not None}
    return [
        seen
        for seen in found
        if seen.index is not None or seen.job not in arrays or seen.state == "cancelled"
    ]


def _newest(key: tuple[str, int | None], tries: list[_Record], steps: list[_Record]) -> Seen:
    row = max(reversed(tries), key=lambda record: record.age)
    submissions = {record.submitted for record in tries if not record.several}
    if len(submissions) > 1:
        since = math.inf if row.began is None else row.began
        steps = [step for step in steps if step.began is not None and step.began >= since]
    state = _state(row.word)
    reason = _reason(row.by, state, row.signal)
    if state == "failed" and row.status:
        reason = f"exit status {row.status} or {row.status + 128}"
    over = state in ENDED
    times = [step.cpu_time for step in steps if step.cpu_time is not None]
    return Seen(
        *key,
        state=state,
        word=row.word,
        reason=reason,
        node=row.node,
        began=row.began if row.node else None,
        ended=row.ended if over else None,
        cpu_time=sum(times) if over and times else None,
        peak_memory=max((step.peak_memory or 0 for step in steps), default=0) or None,
        restarts=max(0, len(submissions) - 1),
        **_end(state, row.status, row.signal),
    )


# Fields -------------------------------------------------------------------------------------------


def _state(word: str, reason: str = "") -> JobState:
    if word == "PENDING" and _HELD.fullmatch(reason):
        return "held"
    return STATES.get(word, "unknown")


def _end(state: JobState, status: int, signal: int) -> dict[str, Any]:
    """How an element ended; what stands for a signal may be a mark of Slurm's own."""
    if state not in ENDED:
        return {}
    if signal:
        return {"signal": signal if signal <= 64 and signal != _LAUNCH_FAILURE else None}
    return {"exit_status": 0 if state == "done" else status or None}


def _reason(text: str, state: JobState, signal: int) -> str:
    if state == "failed" and signal == _LAUNCH_FAILURE:
        return "JobLaunchFailure: its output could not be opened, or its folder entered"
    return ",".join(part for part in text.split(",") if part != "None")


def _indices(text: str) -> Sequence[int | None]:
    """The elements that ``"2-4,8-9%2"`` names; [None] for ``"N/A"``, nothing for nonsense."""
    if text == "N/A":
        return [None]
    named = text.partition("%")[0]
    if named.endswith("..."):  # it was cut off there, perhaps within a number
        named = named.rpartition(",")[0]
    if any(int(number) > LARGEST_INDEX for number in re.findall("[0-9]+", named)):
        return []
    try:
        return parse_indices(named)
    except UsageError:
        return []


def _time(text: str) -> float | None:
    """Seconds since 1970; a time that is not told in seconds is of this place."""
    if text.isdigit():
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)", "N/A") else text


def _seconds(text: str) -> float | None:
    """The seconds in ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS.mmm``."""
    match = re.fullmatch(r"(?:(?:([0-9]+)-)?([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]+)?)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = match.groups()
    return ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + float(seconds)


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGTP]?)", text)
    return int(float(match[1]) * (1 << 10 * " KMGTP".index(match[2] or " "))) if match else None
