"""sacct."""

from __future__ import annotations

import getopt
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from fanfold.schedulers.base import ENDED
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Index, Site
from fanfold.testing.cluster.slurm.options import rank
from fanfold.testing.cluster.slurm.records import Record, clock, duration, remembered

__all__ = ["sacct"]

_SHORT = "aDE:hj:no:pPs:S:u:X"
_LONG = (
    "allocations allusers delimiter= duplicates endtime= format= jobs= name= noconvert noheader "
    "parsable parsable2 starttime= state= units= user="
)
_SAME = {
    "a": "allusers", "D": "duplicates", "E": "endtime", "j": "jobs", "n": "noheader",
    "o": "format", "p": "parsable", "P": "parsable2", "s": "state", "S": "starttime",
    "u": "user", "X": "allocations",
}  # fmt: skip
_DISABLED = "Slurm accounting storage is disabled\n"
_DEFAULT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
_EARLIER = {"node": "NODE_FAIL", "preempted": "PREEMPTED"}
_UNITS = {"K": 1, "M": 1024, "G": 1024**2}
_AGO = re.compile(r"now(?:-([0-9]+)([a-z]*))?", re.ASCII)
_SECONDS = {"": 1, "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}

Asked = Mapping[str, str]


class Row(NamedTuple):
    """A line: of a job or element, of an ``earlier`` run of it, or of the step that its script is
    (``batch``). ``chosen`` are the options of sacct."""

    record: Record
    chosen: Asked
    batch: bool = False
    earlier: bool = False

    @property
    def state(self) -> str:
        record = self.record
        if self.earlier:
            return _EARLIER.get(record.element.state, "REQUEUED")
        if record.state in ("RUNNING", "COMPLETING"):
            return "RUNNING"
        if self.batch:
            return self._batch_state()
        if record.state == "CANCELLED" and not record.entry.gone:
            return f"CANCELLED by {record.site.uid}"
        return record.state

    def _batch_state(self) -> str:
        element = self.record.element
        if self.record.state == "OUT_OF_MEMORY":
            return self.record.state
        if element.signal is not None or element.exit_status is None:
            return "CANCELLED"
        return "FAILED" if element.exit_status else "COMPLETED"

    @property
    def exit_code(self) -> str:
        code, signal = self.record.status
        if self.batch:
            code, signal = self.record.element.exit_status or 0, self.record.element.signal or 0
        elif self.earlier or self.record.state == "TIMEOUT":
            code, signal = 0, 0
        return f"{code - 128 if code > 127 else code}:{signal}"

    @property
    def id(self) -> str:
        record, cancelled = self.record, self.record.entry.wiped
        if record.state == "CANCELLED" and record.element.index in cancelled and record.indices:
            indices = rank(sorted(index for index in cancelled if index is not None), None, 64)
            return f"{record.entry.number}_[{indices}]"
        return record.id + (".batch" if self.batch else "")

    def size(self, kilobytes: int) -> str:
        """A size as ``--units`` and ``--noconvert`` want it."""
        unit = self.chosen.get("units", "K")
        return f"{kilobytes // _UNITS.get(unit, 1)}{unit}"


def _of_jobs(show: Callable[[Row], str]) -> Callable[[Row], str]:
    """A field that steps do not have."""
    return lambda row: "" if row.batch else show(row)


def _peak(row: Row) -> str:
    peak = row.record.element.peak_memory
    if not row.batch or peak is None or row.record.element.state not in ENDED:
        return ""
    return str(peak) if "noconvert" in row.chosen else row.size(peak // 1024)


def _asked_memory(row: Row) -> str:
    megabytes = row.record.memory
    return row.size(megabytes * 1024) if "units" in row.chosen else f"{megabytes}M"


def _cpu_time(row: Row) -> str:
    seconds = row.record.element.cpu_time or 0.0
    if row.earlier or seconds == 0 or (not row.batch and "allocations" in row.chosen):
        return "00:00:00"
    if seconds >= 3600:
        return duration(seconds, full=True)
    return f"{int(seconds) // 60:02}:{seconds % 60:06.3f}"


def _start(row: Row) -> str:
    never = row.record.element.state in ENDED
    return row.record.moment(row.record.began, "None" if never else "Unknown")


def _end(row: Row) -> str:
    ended = row.earlier or row.record.element.state in ENDED
    return row.record.moment(row.record.element.ended if ended else None, "Unknown")


# (Name, width: positive to the right, how it is shown.)
_FIELDS: tuple[tuple[str, int, Callable[[Row], str]], ...] = (
    ("Account", 10, _of_jobs(lambda row: row.record.asked.account)),
    ("AllocCPUS", 10, lambda row: str(row.record.asked.cores)),
    ("Cluster", 10, lambda row: row.record.site.host),
    ("Comment", 14, _of_jobs(lambda row: row.record.asked.comment)),
    ("DerivedExitCode", 15, _of_jobs(lambda row: "0:0")),
    ("Elapsed", 10, lambda row: duration(row.record.seconds, full=True)),
    ("ElapsedRaw", 10, lambda row: str(row.record.seconds)),
    ("End", 19, _end),
    ("ExitCode", 8, lambda row: row.exit_code),
    ("JobID", -12, lambda row: row.id),
    ("JobIDRaw", -12, lambda row: f"{row.record.raw}{'.batch' if row.batch else ''}"),
    ("JobName", 10, lambda row: "batch" if row.batch else row.record.asked.name.replace('"', "`")),
    ("MaxRSS", 10, _peak),
    ("NCPUS", 10, lambda row: str(row.record.asked.cores)),
    ("NNodes", 8, lambda row: str(row.record.asked.nodes)),
    ("NodeList", 15, lambda row: row.record.node or "None assigned"),
    ("Partition", 10, _of_jobs(lambda row: row.record.asked.partition)),
    ("Reason", 22, _of_jobs(lambda row: "None")),
    ("ReqMem", 10, _of_jobs(_asked_memory)),
    ("Start", 19, _start),
    ("State", 10, lambda row: row.state),
    ("Submit", 19, lambda row: row.record.moment(row.record.submitted)),
    ("Timelimit", 10, _of_jobs(lambda row: clock(row.record.asked.limit, full=True))),
    ("TotalCPU", 10, _cpu_time),
    ("User", 9, _of_jobs(lambda row: row.record.site.user)),
)
_BY_NAME = {name.lower(): (name, width, show) for name, width, show in _FIELDS}


def sacct(site: Site, request: Request) -> Reply:
    """Tell of the jobs that were, and of those that are."""
    chosen = _options(request.argv)
    columns = [_column(text) for text in chosen.get("format", _DEFAULT).split(",")]
    jobs = _jobs(chosen.get("jobs", ""))
    start, end = _moment(chosen, "starttime"), _moment(chosen, "endtime")
    if start and start > (end or time.time()):
        raise Refusal(
            f"sacct: error: Start time ({_iso(start)}) requested is after end time "
            f"({_iso(end or time.time())}).\n"
        )
    if not site.settings.history:
        raise Refusal(_DISABLED)
    wanted = chosen.get("state", "").upper().split(",") if "state" in chosen else None
    shown = [
        row
        for row in _rows(site, request.environment, chosen)
        if _is_asked_for(row, chosen, jobs)
        and _in_time(row, start, end or time.time())
        and (wanted is None or ("starttime" in chosen and row.state.split()[0] in wanted))
    ]
    return Reply(_print(shown, columns, chosen))


def _options(argv: Sequence[str]) -> Asked:
    try:
        found, operands = getopt.gnu_getopt(list(argv), _SHORT, _LONG.split())
    except getopt.GetoptError as problem:
        dashes = "--" if len(problem.opt) > 1 else "-"
        said = f"sacct: unrecognized option '{dashes}{problem.opt}'\n"
        raise Refusal(f'{said}Try "sacct --help" for more information\n') from problem
    if operands:
        raise Refusal(f"sacct: error: Unknown arguments: {operands[0]}\n")
    return {_SAME.get(key.lstrip("-"), key.lstrip("-")): value for key, value in found}


def _column(text: str) -> tuple[str, int, Callable[[Row], str]]:
    name, _, width = text.partition("%")
    if name.lower() not in _BY_NAME:
        raise Refusal(f'sacct: error: Invalid field requested: "{name}"\n')
    name, usual, show = _BY_NAME[name.lower()]
    return name, int(width or usual), show


def _jobs(text: str) -> list[tuple[int, int | None, str]]:
    """The jobs asked for, each with an index and a step where they were named."""
    asked = []
    for word in filter(None, text.split(",")):
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+))?(?:\.(\w+))?", word)
        if match is None and "[" in word:
            element = word.partition("[")[2].partition("-")[0]
            raise Refusal(f"sacct: fatal: Bad job array element specified: {element}\n")
        if match is None:
            raise Refusal(f"sacct: fatal: Bad job/step specified: {word}\n")
        index = None if match[2] is None else int(match[2])
        asked.append((int(match[1]), index, match[3] or ""))
    return asked


def _moment(chosen: Asked, name: str) -> float | None:
    text = chosen.get(name, "")
    if not text:
        return None
    if match := _AGO.fullmatch(text):
        return time.time() - int(match[1] or 0) * _SECONDS.get((match[2] or "").rstrip("s"), 1)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Refusal(f"Invalid time specification (pos=0): {text}\n") from None


def _iso(when: float) -> str:
    return datetime.fromtimestamp(int(when)).isoformat()


def _rows(site: Site, environment: Mapping[str, str], chosen: Asked) -> Iterator[Row]:
    """Every line that there is, jobs without elements first."""
    for entry in sorted(site.known(), key=lambda entry: (entry.is_array, entry.number)):
        if "duplicates" in chosen:
            for run in entry.earlier:
                record = Record(site, entry, (run.index,), run, environment=environment)
                yield Row(record, chosen, earlier=True)
        records = list(remembered(site, entry, environment))
        for record in sorted(records, key=_place):
            yield Row(record, chosen)
            if "allocations" not in chosen and record.began is not None:
                yield Row(record, chosen, batch=True)


def _place(record: Record) -> tuple[bool, Index]:
    """Elements by their index, and then the rest of an array."""
    return record.together or not record.indices, record.indices[0] if record.indices else None


def _is_asked_for(row: Row, chosen: Asked, jobs: Sequence[tuple[int, int | None, str]]) -> bool:
    record = row.record
    if chosen.get("user", record.site.user) != record.site.user:
        return False
    if "name" in chosen and record.asked.name not in chosen["name"].split(","):
        return False
    return not jobs or any(_is_named(row, *job) for job in jobs)


def _is_named(row: Row, number: int, index: int | None, step: str) -> bool:
    record = row.record
    if step and not row.batch:
        return False
    if index is not None:
        return record.entry.number == number and index in record.indices
    return number in (record.entry.number, record.raw)


def _in_time(row: Row, start: float | None, end: float) -> bool:
    ended = row.record.element.ended or time.time()
    return (start is None or ended >= start) and row.record.submitted <= end


def _print(
    rows: Sequence[Row], columns: Sequence[tuple[str, int, Callable[[Row], str]]], chosen: Asked
) -> str:
    names = [name for name, *_ in columns]
    lines = [] if "noheader" in chosen else [names]
    lines += [[show(row) for _, _, show in columns] for row in rows]
    if "parsable" in chosen or "parsable2" in chosen:
        mark = chosen.get("delimiter", "|")
        end = mark if "parsable" in chosen else ""
        return "".join(f"{mark.join(line)}{end}\n" for line in lines)
    widths = [width for _, width, _ in columns]
    texts = [_justified(line, widths) for line in lines]
    if "noheader" not in chosen:
        texts.insert(1, "".join("-" * abs(width) + " " for width in widths))
    return "".join(f"{text}\n" for text in texts)


def _justified(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for text, width in zip(line, widths, strict=True):
        room = abs(width)
        cut = text if len(text) <= room or text.lower() in _BY_NAME else text[: room - 1] + "+"
        cells.append(cut[:room].ljust(room) if width < 0 else cut[:room].rjust(room))
    return "".join(f"{cell} " for cell in cells)
