"""squeue."""

from __future__ import annotations

import getopt
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Site
from fanfold.testing.cluster.slurm.document import as_json
from fanfold.testing.cluster.slurm.records import COMPACT, Record, clock, duration, records

__all__ = ["squeue"]

_SHORT = "hj:lM:n:o:O:p:rt:u:"
_LONG = (
    "array clusters= format= Format= jobs= json long me name= noheader partition= states= "
    "user= users="
)
_SAME = {
    "j": "jobs", "n": "name", "o": "format", "O": "Format", "p": "partition", "r": "array",
    "t": "states", "u": "users", "user": "users", "h": "noheader", "l": "long", "M": "clusters",
}  # fmt: skip
_DEFAULT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
_LONG_FORMAT = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
_NOT_CUT = ("l", "L", "M")
_ACTIVE = ("PENDING", "RUNNING", "COMPLETING")
_OTHER_STATES = (
    "SUSPENDED BOOT_FAIL DEADLINE CONFIGURING RESIZING RESV_DEL_HOLD REQUEUED REQUEUE_FED "
    "REQUEUE_HOLD REVOKED SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED"
)
_VALID = (
    "PENDING,RUNNING,SUSPENDED,COMPLETED,CANCELLED,FAILED,TIMEOUT,NODE_FAIL,PREEMPTED,BOOT_FAIL,"
    "DEADLINE,OUT_OF_MEMORY,COMPLETING,CONFIGURING,RESIZING,RESV_DEL_HOLD,REQUEUED,REQUEUE_FED,"
    "REQUEUE_HOLD,REVOKED,SIGNALING,SPECIAL_EXIT,STAGE_OUT,STOPPED"
)
_UNKNOWN_JOB = "slurm_load_jobs error: Invalid job id specified\n"


class Field(NamedTuple):
    """A field of ``-o`` (its letter) and of ``-O`` (its name)."""

    letter: str
    name: str
    head: str
    show: Callable[[Record], str]


def _dependency(record: Record) -> str:
    parts = []
    for awaited in record.entry.awaited:
        whole = "_*" if awaited.entry.is_array and awaited.index is None else ""
        index = "" if awaited.index is None else f"_{awaited.index}"
        how = "failed" if record.reason == "DependencyNeverSatisfied" else "unfulfilled"
        parts.append(f"{awaited.kind}:{awaited.entry.number}{whole}{index}({how})")
    return ",".join(parts) or "(null)"


def _left(record: Record) -> str:
    limit = record.asked.limit
    return "UNLIMITED" if limit is None else duration(limit * 60 - record.seconds)


def _size(megabytes: int) -> str:
    return f"{megabytes // 1024}G" if megabytes and megabytes % 1024 == 0 else f"{megabytes}M"


FIELDS = (
    Field("i", "JobArrayID", "JOBID", lambda one: one.id),
    Field("A", "JobID", "JOBID", lambda one: str(one.raw)),
    Field("F", "ArrayJobID", "ARRAY_JOB_ID", lambda one: str(one.entry.number)),
    Field("K", "ArrayTaskID", "ARRAY_TASK_ID", lambda one: one.tasks),
    Field("T", "State", "STATE", lambda one: one.state),
    Field("t", "StateCompact", "ST", lambda one: COMPACT[one.state]),
    Field("r", "Reason", "REASON", lambda one: one.reason),
    Field("R", "ReasonList", "NODELIST(REASON)", lambda one: one.node or f"({one.reason})"),
    Field("M", "TimeUsed", "TIME", lambda one: duration(one.seconds)),
    Field("l", "TimeLimit", "TIME_LIMIT", lambda one: clock(one.asked.limit)),
    Field("L", "TimeLeft", "TIME_LEFT", _left),
    Field("S", "StartTime", "START_TIME", lambda one: one.moment(one.begin)),
    Field("e", "EndTime", "END_TIME", lambda one: one.moment(one.end)),
    Field("V", "SubmitTime", "SUBMIT_TIME", lambda one: one.moment(one.submitted)),
    Field("Q", "PriorityLong", "PRIORITY", lambda one: str(one.priority)),
    Field("p", "Priority", "PRIORITY", lambda one: f"{one.priority / (2**32 - 1):.14f}"),
    Field("j", "Name", "NAME", lambda one: one.asked.name),
    Field("u", "UserName", "USER", lambda one: one.site.user),
    Field("U", "UserID", "USER", lambda one: str(one.site.uid)),
    Field("P", "Partition", "PARTITION", lambda one: one.asked.partition),
    Field("D", "NumNodes", "NODES", lambda one: str(one.asked.nodes)),
    Field("C", "NumCPUs", "CPUS", lambda one: str(one.asked.cores)),
    Field("m", "MinMemory", "MIN_MEMORY", lambda one: _size(one.asked.memory)),
    Field("N", "NodeList", "NODELIST", lambda one: one.node),
    Field("E", "Dependency", "DEPENDENCY", _dependency),
    Field("Z", "WorkDir", "WORK_DIR", lambda one: one.asked.folder),
    Field("o", "Command", "COMMAND", lambda one: one.asked.command or "(null)"),
    Field("k", "Comment", "COMMENT", lambda one: one.asked.comment or "(null)"),
    Field("a", "Account", "ACCOUNT", lambda one: one.asked.account or "(null)"),
    Field("q", "QOS", "QOS", lambda one: "normal"),
    Field("", "exit_code", "EXIT_CODE", lambda one: str(one.status[0] << 8 | one.status[1])),
    Field("", "RestartCnt", "RESTART_COUNT", lambda one: str(one.element.restarts)),
    Field("", "Cluster", "CLUSTER", lambda one: one.site.host),
)
_BY_LETTER = {one.letter: one for one in FIELDS if one.letter}
_BY_NAME = {one.name.lower(): one for one in FIELDS}


def squeue(site: Site, request: Request) -> Reply:
    """Tell of the jobs that the controller remembers."""
    chosen = _options(request.argv)
    line = _line(chosen, request.environment)
    wanted = _states(chosen.get("states", ""))
    err = _check_users(site, chosen)
    if "clusters" in chosen:
        raise Refusal(f"squeue: error: No cluster '{chosen['clusters']}' known by database.\n")
    site.contact()
    every = records(site, request.environment, apart="array" in chosen)
    if "json" in chosen:  # which looks at nothing that it is asked for
        return Reply(as_json(site, records(site, request.environment)))
    jobs = _jobs(chosen.get("jobs", ""), every)
    shown = [one for one in every if _matches(one, chosen, wanted, jobs)]
    lines = [] if "noheader" in chosen else [line(None)]
    lines += [line(one) for one in sorted(shown, key=_order)]
    now = f"{time.ctime()}\n" if "long" in chosen and "noheader" not in chosen else ""
    return Reply(now + "".join(f"{text}\n" for text in lines), err)


def _options(argv: Sequence[str]) -> dict[str, str]:
    try:
        found, operands = getopt.gnu_getopt(list(argv), _SHORT, _LONG.split())
    except getopt.GetoptError as problem:
        dashes = "--" if len(problem.opt) > 1 else "-"
        said = f"squeue: unrecognized option '{dashes}{problem.opt}'\n"
        raise Refusal(f'{said}Try "squeue --help" for more information\n') from problem
    if operands:
        raise Refusal(f"squeue: error: Unrecognized option: {operands[0]}\n")
    return {_SAME.get(key.lstrip("-"), key.lstrip("-")): value for key, value in found}


def _states(text: str) -> Sequence[str]:
    """The states asked for, in full."""
    if not text:
        return _ACTIVE
    if text.lower() == "all":
        return tuple(COMPACT)
    full = {short: name for name, short in COMPACT.items()}
    found = []
    for word in text.upper().split(","):
        if word not in COMPACT and word not in full and word not in _OTHER_STATES.split():
            said = f"squeue: error: Invalid job state specified: {text}\n"
            raise Refusal(f"{said}squeue: error: Valid job states include: {_VALID}\n\n")
        found.append(full.get(word, word))
    return found


def _check_users(site: Site, chosen: Mapping[str, str]) -> str:
    names = chosen["users"].split(",") if "users" in chosen else []
    wrong = [name for name in names if not site.has_user(name)]
    return "".join(f"squeue: error: Invalid user: {name}\n\n" for name in wrong)


def _jobs(text: str, every: Iterable[Record]) -> set[tuple[int, int | None]] | None:
    """The jobs asked for, with an index where an element was named; None is all of them."""
    if not text:
        return None
    asked = set()
    for word in text.split(","):
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+))?", word)
        if match is None:
            raise Refusal(f"squeue: error: Invalid job id: {word}\n")
        asked.add((int(match[1]), None if match[2] is None else int(match[2])))
    known = {one.entry.number for one in every} | {one.raw for one in every}
    if len(asked) == 1 and not {number for number, _ in asked} & known:
        raise Refusal(_UNKNOWN_JOB)
    return asked


def _matches(
    record: Record,
    chosen: Mapping[str, str],
    states: Sequence[str],
    jobs: set[tuple[int, int | None]] | None,
) -> bool:
    if record.state not in states:
        return False
    if jobs is not None and not any(_is_named(record, number, index) for number, index in jobs):
        return False
    values = {
        "name": record.asked.name,
        "partition": record.asked.partition,
        "users": record.site.user,
    }
    return all(values[key] in chosen[key].split(",") for key in values if chosen.get(key))


def _is_named(record: Record, number: int, index: int | None) -> bool:
    if index is not None:
        return record.entry.number == number and index in record.indices
    return number in (record.entry.number, record.raw)


def _order(record: Record) -> tuple[str, str, int, int, int]:
    first = record.indices[0] if record.indices else None
    asked, number = record.asked, record.entry.number
    return asked.partition, record.state, -record.priority, number, -1 if first is None else first


# Formats ------------------------------------------------------------------------------------------


def _line(
    chosen: Mapping[str, str], environment: Mapping[str, str]
) -> Callable[[Record | None], str]:
    """How a line is made: of a record, or, of None, the first one."""
    if "Format" in chosen:
        parts = [_long_field(text) for text in chosen["Format"].split(",")]
    else:
        default = _LONG_FORMAT if "long" in chosen else _DEFAULT
        text = chosen.get("format") or environment.get("SQUEUE_FORMAT") or default
        parts = _short_fields(text)
    return lambda record: "".join(part(record) for part in parts)


def _short_fields(text: str) -> list[Callable[[Record | None], str]]:
    parts: list[Callable[[Record | None], str]] = []
    for match in re.finditer(r"%(\.?)([0-9]*)(.)|([^%]+)", text):
        if match[4] is not None:
            parts.append(_constant(match[4]))
        elif match[3] in _BY_LETTER:
            parts.append(_sized(_BY_LETTER[match[3]], bool(match[1]), int(match[2] or 0), ""))
    return parts


def _long_field(text: str) -> Callable[[Record | None], str]:
    name, colon, size = text.partition(":")
    match = re.fullmatch(r"(\.?)([0-9]*)(.*)", size)
    if name.lower() not in _BY_NAME or match is None:
        raise Refusal(f"squeue: error: Invalid job format specification: {name}\n")
    width = int(match[2] or 0) if colon else 20
    return _sized(_BY_NAME[name.lower()], bool(match[1]), width, match[3])


def _constant(text: str) -> Callable[[Record | None], str]:
    return lambda record: text


def _sized(one: Field, right: bool, width: int, suffix: str) -> Callable[[Record | None], str]:
    def show(record: Record | None) -> str:
        text = one.head if record is None else one.show(record)
        if width and (record is None or one.letter not in _NOT_CUT):
            text = text[:width]
        return (text.rjust(width) if right else text.ljust(width)) + suffix

    return show
