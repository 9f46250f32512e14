"""What ``qstat -f -F json`` tells of elements, whether it is JSON or not.

OpenPBS 23.06 prints names such as ``inf`` without quotes, leaves backslashes as they are, and puts
one attribute on each line; so it is read line by line, and what is wrong with one job harms none of
the others. Nothing of ``Variable_List`` is read, where most of the trouble is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from fanfold.errors import SchedulerDown, UsageError
from fanfold.schedulers.base import JobState, Seen
from fanfold.schedulers.scripts.pbs import read_size

__all__ = ["STATES", "parts", "read_elements"]

_ID = re.compile(r"([0-9]{1,18})(\[([0-9]{0,18})\])?((?:\.[\w.-]+)?(?:@[\w.-]+)?)", re.ASCII)
STATES: dict[str, JobState] = {
    "Q": "waiting",
    "T": "waiting",
    "W": "waiting",
    "H": "held",
    "S": "held",
    "U": "held",
    "B": "running",
    "R": "running",
    "E": "ending",
}
_ENDED = ("F", "X")  # the substate tells how
_DELETED, _FINISHED, _FAILED = 91, 92, 93
_ENDED_BY_PBS: dict[int, JobState] = {
    -29: "walltime",
    -27: "memory",
    -26: "memory",  # virtual memory
    -4: "node",  # it was begun anew
    -5: "node",
    -6: "node",
    -20: "node",  # the first node of several was lost
}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(
    r"\w{3} (\w{3}) +([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})", re.ASCII
)

# Seconds: time zones are whole quarters of an hour apart.
_QUARTER = 900
_FARTHEST_ZONES = 26 * 3600
_SOON = 60

_LINE = re.compile(r'([ \t]+)(?:"([^"]*)":[ \t]*(.*)|\},?[ \t\r]*$)')
_JOBS, _ATTRIBUTES, _RESOURCES = 2, 3, 4  # how deep they are


def parts(job: str) -> tuple[str, str, str, str]:
    """The number of a job, its brackets, the index in them, and its server.

    Raises `UsageError` for what is no id.

    >>> parts("12[4].server"), parts("13")
    (('12', '[4]', '4', '.server'), ('13', '', '', ''))
    """
    match = _ID.fullmatch(job)
    if match is None:
        raise UsageError(f"{job!r} is no id of a PBS job: write it as qsub printed it, 12[].server")
    number, brackets, index, server = match.groups(default="")
    return number, brackets, index, server


def read_elements(text: str, asked: Sequence[str]) -> Iterator[Seen]:
    """Every element, and every job without elements, with its id as it was asked for.

    Raises `SchedulerDown` for what is no answer, or not all of it.

    >>> told = '''{
    ...     "timestamp":1795197221,
    ...     "Jobs":{
    ...         "12.server":{
    ...             "Job_Name":inf,
    ...             "job_state":"Q"
    ...         }
    ...     }
    ... }'''
    >>> [(seen.job, seen.state) for seen in read_elements(told, ["12"])]
    [('12', 'waiting')]
    """
    records = _read(text)
    shift = _shift(records)
    numbers = {"".join(parts(job)[:2]): job for job in asked}
    for record in records:
        number, brackets, index, server = parts(record.id)
        if brackets and not index:
            continue  # the array as a whole
        whole = f"{number}[]" if brackets else number
        job = whole + server
        job = job if job in asked else numbers.get(whole, job)  # the server may have other names
        yield _element(record, job, int(index) if index else None, shift)


class _Record:
    """A job, an array or an element with its attributes, those of resources as ``name.resource``.

    It is ``damaged`` where its end is missing, or where something in it cannot be true.
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - the id of a job
        self.id = id
        self.attributes: dict[str, str] = {}
        self.damaged = True  # until its end is seen
        self.spoiled = False

    def add(self, name: str, value: str) -> None:
        """Take an attribute as it was printed."""
        text = value.removesuffix(",")
        if text.startswith('"'):
            self.spoiled |= len(text) < 2 or not text.endswith('"')
            text = text[1:-1].replace('\\"', '"')
        self.spoiled |= name in self.attributes
        self.attributes[name] = text

    def text(self, name: str) -> str:
        """An attribute, "" where there is none."""
        return self.attributes.get(name, "")

    def number(self, name: str) -> int | None:
        """An attribute that is a whole number."""
        text = self.text(name)
        return int(text) if re.fullmatch("-?[0-9]{1,15}", text, re.ASCII) else None


def _read(text: str) -> list[_Record]:
    """The jobs in an answer. Raises `SchedulerDown` for what is no answer, or not all of it."""
    ended = re.search(r"^\}", text, re.MULTILINE)
    records = list(_scan(text)) if ended else []
    if ended and '"timestamp"' in text and (records or '"Jobs"' not in text):
        return records
    return list(_scan(_laid_out(text)))


def _laid_out(text: str) -> str:
    """JSON that another version may print, with the lines that this one has."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, Mapping) or "timestamp" not in told:
        said = " ".join(text[:200].split()) or "nothing"
        raise SchedulerDown(f"qstat's answer is not complete, or cannot be read: it said {said}")
    return json.dumps(told, indent=4)


def _scan(text: str) -> Iterator[_Record]:
    """Every job whose first line is there."""
    record: _Record | None = None
    section = ""
    for depth, name, value in _lines(text):
        opens = value.startswith("{")
        if depth == _JOBS:
            if record is not None:
                record.damaged = record.spoiled or bool(name)
                yield record
            record = _Record(name) if opens and _ID.fullmatch(name) else None
        elif depth == _ATTRIBUTES:
            section = name if opens else ""
        if record is not None and name and not opens:
            if depth == _ATTRIBUTES:
                record.add(name, value)
            elif depth == _RESOURCES and section == "resources_used":
                record.add(f"{section}.{name}", value)
    if record is not None:
        yield record


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """How deep each line is, and what it says: a name and its value, or "" for a closing brace."""
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match is not None:
            blanks, name, value = match.groups(default="")
            yield len(blanks) // (1 if blanks[0] == "\t" else 4), name, value.rstrip(" \t\r")


# Records ------------------------------------------------------------------------------------------


def _element(record: _Record, job: str, index: int | None, shift: float) -> Seen:
    word = record.text("job_state")
    state = _state(record, index)
    seen = Seen(job, index, state, word, _reason(record, state))
    if state == "unknown" or not _has_begun(record):
        return seen
    seen = seen._replace(restarts=max(0, (record.number("run_count") or 0) - 1))
    if state in ("waiting", "held"):
        return seen
    seen = seen._replace(
        node=_nodes(record.text("exec_host")),
        began=_time(record.text("stime"), shift),
        cpu_time=_seconds(record.text("resources_used.cput")),
        peak_memory=_bytes(record.text("resources_used.mem")),
    )
    if word not in _ENDED:
        return seen
    status = record.number("Exit_status")
    return seen._replace(
        exit_status=status if status is not None and status >= 0 else None,
        signal=_signal(status),
        ended=_time(record.text("obittime"), shift),
    )


def _state(record: _Record, index: int | None) -> JobState:
    if record.damaged:
        return "unknown"
    word = record.text("job_state")
    if word in _ENDED:
        return _end(record, index)
    holds = record.text("Hold_Types").strip("n")
    if word == "H" or (word == "Q" and holds):  # elements of a held array are shown as waiting
        return "waiting" if _awaited(record) and holds == "s" else "held"
    return STATES.get(word, "unknown")


def _end(record: _Record, index: int | None) -> JobState:
    """How it ended. Only the substate tells of a deletion: the exit status may be any."""
    substate, status = record.number("substate"), record.number("Exit_status")
    of_its_own = {name for name in ("array_index", "run_count") if name in record.attributes}
    if index is not None and len(of_its_own) < 2:
        return "unknown" if of_its_own else "cancelled"  # all that is told is of its array
    if index is not None and record.number("array_index") != index:
        return "unknown"
    if substate == _DELETED or _was_taken_away(record):
        return "cancelled"
    if substate == _FINISHED and status == 0:
        return "done"
    if substate == _FAILED and status is not None:
        return _ENDED_BY_PBS.get(status, "failed")
    return "unknown"


def _has_begun(record: _Record) -> bool:
    """Before, all that is told of an element is of its array."""
    return record.number("run_count") is not None


def _was_taken_away(record: _Record) -> bool:
    """What waits for a job that cannot end well any more counts as finished, and never began."""
    told = record.attributes
    never = "Exit_status" not in told and "stime" not in told
    return record.number("substate") == _FINISHED and never and _awaited(record)


def _awaited(record: _Record) -> bool:
    return record.text("depend").startswith("after")


def _reason(record: _Record, state: JobState) -> str:
    """Why it waits or how it ended, in PBS's words."""
    if state in ("unknown", "running", "ending"):
        return ""
    if state == "done":
        lost = record.text("Stageout_status") == "0"
        return "Stageout_status = 0: what it printed was left on its node" if lost else ""
    if _was_taken_away(record):
        return f"what it waited for cannot come any more: {record.text('depend')}"
    if state == "waiting" and _awaited(record):
        return record.text("depend")
    own = "Hold_Types" if state == "held" else "Exit_status" if _has_begun(record) else ""
    return record.text("comment") or (f"{own} = {record.text(own)}" if record.text(own) else "")


def _nodes(text: str) -> str:
    """The hosts in ``exec_host``, which is such as ``n1/0*4+n2/1``."""
    return ",".join(dict.fromkeys(part.partition("/")[0] for part in text.split("+") if part))


def _signal(status: int | None) -> int | None:
    """What ended the script (128 more), or the login shell that began it (256 more)."""
    for base in (128, 256):
        if status is not None and base < status <= base + 64:
            return status - base
    return None


def _seconds(text: str) -> float | None:
    """A time such as ``00:01:30``. No time at all means that nobody has looked yet."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{2}):([0-9]{2})", text, re.ASCII)
    if match is None:
        return None
    hours, minutes, seconds = map(int, match.groups())
    return float(hours * 3600 + minutes * 60 + seconds) or None


def _bytes(text: str) -> int | None:
    """A size such as ``7324kb``. No memory at all means that nobody has looked yet."""
    try:
        return read_size(text)
    except ValueError:
        return None


def _time(text: str, shift: float) -> float | None:
    """A time as qstat writes it, in the time zone of where it runs."""
    match = _TIME.fullmatch(text)
    if match is None or match[1] not in _MONTHS:
        return None
    day, hour, minute, second, year = map(int, match.groups()[1:])
    month = _MONTHS.index(match[1]) + 1
    try:
        return time.mktime((year, month, day, hour, minute, second, 0, 0, -1)) + shift
    except (OverflowError, ValueError):
        return None


def _shift(records: Sequence[_Record]) -> float:
    """How many seconds to add, if these times are of another time zone than ours.

    Of what has ended one time is told in seconds, too, soon after it was written as text.
    """
    for record in records:
        told, written = record.number("history_timestamp"), _time(record.text("mtime"), 0.0)
        if told is not None and written is not None and not record.damaged:
            shift = round((told - written) / _QUARTER) * _QUARTER
            if abs(told - written - shift) < _SOON and abs(shift) <= _FARTHEST_ZONES:
                return float(shift)
    return 0.0
