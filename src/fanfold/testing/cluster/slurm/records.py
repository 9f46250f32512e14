"""What slurmctld knows of a job: a record of each element that has started, one of the rest."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fanfold.schedulers.base import ENDED, JobState
from fanfold.schedulers.local import LocalElement
from fanfold.testing.cluster.site import Entry, Index, Site
from fanfold.testing.cluster.slurm.options import rank
from fanfold.testing.cluster.slurm.submit import Asked

__all__ = [
    "COMPACT",
    "WORDS",
    "Record",
    "clock",
    "duration",
    "forgotten",
    "node_list",
    "records",
    "remembered",
]

WORDS: Mapping[JobState, str] = {
    "waiting": "PENDING",
    "held": "PENDING",
    "running": "RUNNING",
    "ending": "COMPLETING",
    "done": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "walltime": "TIMEOUT",
    "memory": "OUT_OF_MEMORY",
    "node": "NODE_FAIL",
    "preempted": "PREEMPTED",
}
COMPACT = {
    "PENDING": "PD",
    "RUNNING": "R",
    "COMPLETING": "CG",
    "COMPLETED": "CD",
    "FAILED": "F",
    "CANCELLED": "CA",
    "TIMEOUT": "TO",
    "OUT_OF_MEMORY": "OOM",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
}
_WAITING_FOR = {
    "held": "JobHeldUser",
    "dependency": "Dependency",
    "never": "DependencyNeverSatisfied",
    "begin": "BeginTime",
    "at once": "JobArrayTaskLimit",
    "workers": "Resources",
}
_ENDED_BY = {"walltime": "TimeLimit", "memory": "OutOfMemory", "node": "NodeDown"}
_LAUNCH_FAILURE = 53
_OUT_OF_MEMORY = 125
_HIGHEST_PRIORITY = 4_294_901_760
_CYCLE = 0.1  # seconds until the scheduler has looked at a job


@dataclass(frozen=True)
class Record:
    """An element that has started or is alone (``element``), or those that wait together.

    ``environment`` is that of the command which prints it: it says how times are written.
    """

    site: Site
    entry: Entry
    indices: tuple[Index, ...]
    element: LocalElement
    together: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> Asked:
        asked: Asked = self.entry.asked
        return asked

    # Ids -----------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """``12``, ``12_3``, ``12_[1-3,7%2]``."""
        if not self.entry.is_array or not self.indices:
            return str(self.entry.number)
        tasks = self.tasks
        return f"{self.entry.number}_[{tasks}]" if self.together else f"{self.entry.number}_{tasks}"

    @property
    def tasks(self) -> str:
        """The indices of the elements, ``N/A`` where there are none."""
        if not self.entry.is_array or not self.indices:
            return "N/A"
        if not self.together:
            return str(self.indices[0])
        longest = int(self.environment.get("SLURM_BITSTR_LEN") or 64)
        indices = [index for index in self.indices if index is not None]
        return rank(indices, self.entry.job.at_once, longest)

    @property
    def raw(self) -> int:
        return self.element.raw or self.entry.number

    # State ---------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return WORDS[self.element.state]

    @property
    def waits(self) -> bool:
        return self.element.state in ("waiting", "held")

    @property
    def began(self) -> float | None:
        return None if self.waits else self.element.began

    @property
    def reason(self) -> str:
        element = self.element
        if self.waits or (element.state == "cancelled" and not element.began):
            return self._why()
        if element.state == "failed":
            launched = element.signal is None and not element.reason
            return "NonZeroExitCode" if launched else "JobLaunchFailure"
        return _ENDED_BY.get(element.state, "None")

    def _why(self) -> str:
        if self.entry.gone:
            return "DependencyNeverSatisfied"
        if not self.waits:
            return "None"
        why = self.site.why(self.entry, self.element.index)
        if why == "held" and self.element.restarts:
            return "job requeued in held state"
        if why == "impossible":
            return self.entry.never
        if why == "workers" and time.time() - self.entry.since < _CYCLE:
            return "None"
        return _WAITING_FOR[why]

    @property
    def priority(self) -> int:
        return 0 if self.reason == "JobHeldUser" else _HIGHEST_PRIORITY - self.entry.number

    @property
    def status(self) -> tuple[int, int]:
        """Exit code and signal, as scontrol shows them."""
        element = self.element
        if element.state == "memory":
            return 0, _OUT_OF_MEMORY
        if element.state in ("cancelled", "node", "preempted") or element.state not in ENDED:
            return 0, 0
        if element.reason and element.exit_status is None:
            return 0, _LAUNCH_FAILURE
        return element.exit_status or 0, element.signal or 0

    # Times ---------------------------------------------------------------------------------------

    @property
    def seconds(self) -> int:
        """How long it has run so far."""
        if self.began is None:
            return 0
        return int((self.element.ended or time.time()) - self.began)

    @property
    def begin(self) -> float | None:
        """When it has begun, or is to begin."""
        return self.element.not_before if self.reason == "BeginTime" else self.began

    @property
    def end(self) -> float | None:
        """When it has ended, or will have to."""
        if self.element.ended is not None and self.element.state in ENDED:
            return self.element.ended
        begin = self.begin
        if begin is None or self.asked.limit is None:
            return None
        return begin + self.asked.limit * 60

    @property
    def submitted(self) -> float:
        """When it was submitted, or began to wait again."""
        runs = [run for run in self.entry.earlier if run.index == self.element.index]
        return (runs[-1].ended or 0.0) if runs else self.entry.since

    def moment(self, when: float | None, unknown: str = "N/A") -> str:
        """A time, as the environment wants it written."""
        if when is None:
            return unknown
        wanted = self.environment.get("SLURM_TIME_FORMAT", "standard")
        form = "%Y-%m-%dT%H:%M:%S" if wanted == "standard" else wanted
        return time.strftime(form, time.localtime(when))

    # Size ----------------------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Of all its cores, in MB."""
        return self.asked.memory * (self.asked.cores if self.asked.per_core else self.asked.nodes)

    @property
    def node(self) -> str:
        return "" if self.waits or self.element.began is None else self.element.node


def records(site: Site, environment: Mapping[str, str], *, apart: bool = False) -> list[Record]:
    """What the controller remembers; with ``apart``, elements that wait have records, too."""
    return [
        record
        for entry in site.known()
        for record in remembered(site, entry, environment, apart=apart)
        if not forgotten(site, record.element)
    ]


def forgotten(site: Site, element: LocalElement) -> bool:
    """Whether it ended so long ago that the controller does not know it any more."""
    ended = element.ended if element.state in ENDED else None
    return ended is not None and time.time() - ended >= site.settings.min_job_age


def remembered(
    site: Site, entry: Entry, environment: Mapping[str, str], *, apart: bool = False
) -> Iterator[Record]:
    """The records of a job: first of those that wait together, then of each that has started."""
    elements = entry.elements
    if not entry.is_array:
        yield Record(site, entry, (None,), elements[None], False, environment)
        return
    alone = [one for one in elements.values() if one.raw]
    for indices in _waiting(site, entry):
        together = not apart and (len(indices) > 1 or not alone)
        for some in [(index,) for index in indices] if apart else [indices]:
            yield Record(site, entry, some, elements[some[0]], together, environment)
    for element in alone:
        yield Record(site, entry, (element.index,), element, False, environment)
    yield from _cancelled(site, entry, environment)


def _waiting(site: Site, entry: Entry) -> list[tuple[Index, ...]]:
    """Those that have never started, by what they wait for."""
    groups: dict[str, list[Index]] = {}
    for index, element in entry.elements.items():
        if not element.raw and element.state not in ENDED:
            groups.setdefault(site.why(entry, index), []).append(index)
    return [tuple(indices) for indices in groups.values()]


def _cancelled(site: Site, entry: Entry, environment: Mapping[str, str]) -> Iterator[Record]:
    """Those cancelled before they started have one record, and only when they were the last."""
    if not entry.wiped or any(
        one.state not in ENDED and not one.raw for one in entry.elements.values()
    ):
        return
    indices = sorted(index for index in entry.wiped if index is not None)
    last = entry.elements[indices[-1]]
    yield Record(site, entry, () if entry.deleted else (last.index,), last, False, environment)


def duration(seconds: float, *, full: bool = False) -> str:
    """``1-02:03:04``, ``2:03:04``, ``3:04``; with ``full`` always with hours of two digits."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, minutes, second = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{second:02}"
    if full:
        return f"{hours:02}:{minutes:02}:{second:02}"
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def clock(limit: int | None, *, full: bool = False) -> str:
    """A limit in minutes."""
    return "UNLIMITED" if limit is None else duration(limit * 60, full=full)


def node_list(names: Sequence[str]) -> str:
    """``n1``, ``n[1-4]``."""
    numbers = sorted(int(name[1:]) for name in names if re.fullmatch("n[0-9]+", name))
    if len(numbers) < 2 or len(numbers) < len(names):
        return ",".join(names)
    return f"n[{rank(numbers, None, 0)}]"
