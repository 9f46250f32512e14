"""The books of a pretend cluster: what its scheduler says of the jobs that a queue runs."""

from __future__ import annotations

import getpass
import os
import pwd
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.base import ENDED, JobState
from fanfold.schedulers.local import LocalElement, LocalJob, Submitted
from fanfold.testing.cluster.faults import Fault
from fanfold.testing.cluster.nodes import NodeQueue
from fanfold.testing.cluster.requests import Down

__all__ = ["Awaited", "Entry", "Index", "Settings", "Site"]

Index = int | None


@dataclass(frozen=True)
class Settings:
    """How a site is set up. ``None`` is no limit, or the dialect's own default.

    ``nodes`` (a number, or names) of ``cores`` cores and ``memory`` megabytes; ``max_array_size``
    as the scheduler counts it, ``max_jobs`` that it knows at a time, ``max_queued`` of a user,
    elements counted, ``max_walltime`` in seconds. ``history`` says whether ended jobs are kept: the
    accounting of Slurm, the job history of PBS. ``min_job_age`` is for how many seconds Slurm's
    controller itself remembers them. ``json`` is the version whose JSON qstat prints:
    ``"23.06.06"``, which spoils it, or ``"later"``. ``queues`` are the names of queues, the default
    first. ``host`` is the name of the server, or of the cluster, and ``first`` the number of the
    first job. ``grace`` is how many seconds there are between TERM and KILL.
    """

    nodes: int | Sequence[str] = 4
    cores: int = 4
    memory: int = 4000
    max_array_size: int | None = None
    max_jobs: int = 10_000
    max_queued: int | None = None
    max_walltime: int | None = None
    history: bool = True
    min_job_age: float = 300.0
    json: str = "23.06.06"
    queues: tuple[str, ...] = ()
    host: str = "pretend"
    first: int = 1
    grace: float = 5.0

    @property
    def node_names(self) -> list[str]:
        if isinstance(self.nodes, int):
            return [f"n{number}" for number in range(1, self.nodes + 1)]
        return list(self.nodes)

    @property
    def all_cores(self) -> int:
        """Of all nodes."""
        return len(self.node_names) * self.cores


class Awaited(NamedTuple):
    """A job, or an element of one, that another waits for, and how it must have ended."""

    kind: str
    entry: Entry
    index: Index = None  # type: ignore[assignment]  # of an element, as everywhere

    def elements(self) -> list[LocalElement]:
        elements = self.entry.elements
        return list(elements.values()) if self.index is None else [elements[self.index]]


@dataclass
class Entry:
    """A job in the books. ``asked`` is what the dialect keeps of its submission, for printing.

    It waits until what is ``awaited`` has come true. ``never`` says why it can never start, in the
    scheduler's words. ``held`` are the indices that its user held, the last time at ``held_at``.
    It is ``gone`` when the scheduler took it away before it started, and ``hidden`` when nobody
    knows of it any more. ``deleted`` says that it was deleted as a whole; the elements in ``wiped``
    have lost their records with that, or never had any. ``earlier`` are runs that were begun again.
    What is in ``frozen`` is shown instead of what is.
    """

    submitted: Submitted
    asked: Any
    awaited: list[Awaited] = field(default_factory=list)
    never: str = ""
    requeue: bool = True
    held: set[Index] = field(default_factory=set)
    held_at: float | None = None
    gone: bool = False
    hidden: bool = False
    deleted: bool = False
    wiped: set[Index] = field(default_factory=set)
    earlier: list[LocalElement] = field(default_factory=list)
    frozen: dict[Index, LocalElement] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.submitted.number

    @property
    def job(self) -> LocalJob:
        return self.submitted.job

    @property
    def since(self) -> float:
        return self.submitted.since

    @property
    def is_array(self) -> bool:
        return self.job.is_array

    @property
    def elements(self) -> dict[Index, LocalElement]:
        """By index, as the scheduler shows them."""
        return {**self.submitted.elements, **self.frozen}

    @property
    def ended(self) -> bool:
        return all(element.state in ENDED for element in self.elements.values())

    @property
    def last_ended(self) -> LocalElement | None:
        """Of the elements that ran, the one that ended last."""
        ran = [one for one in self.elements.values() if one.ended and one.began]
        return max(ran, key=lambda one: one.ended or 0.0, default=None)


class Site:
    """A scheduler's books over a queue. All its methods run in one thread, that of the server."""

    def __init__(self, dialect: str, settings: Settings, queue: NodeQueue) -> None:
        self.dialect = dialect
        self.settings = settings
        self.queue = queue
        self.host = settings.host
        self.user = getpass.getuser()
        self.uid = os.getuid()
        self.entries: dict[int, Entry] = {}
        self.down = False
        self.faults: list[Fault] = []
        self.calls: Counter[str] = Counter()

    @property
    def nodes(self) -> list[str]:
        return self.settings.node_names

    def contact(self) -> None:
        """What every command does before it asks the scheduler. Raises `Down`."""
        if self.down:
            raise Down

    def has_user(self, name: str) -> bool:
        """Whether there is somebody of that name."""
        try:
            pwd.getpwnam(name)
        except KeyError:
            return name == self.user or name.isdigit()
        return True

    # Jobs ----------------------------------------------------------------------------------------

    def submit(self, job: LocalJob, asked: Any, *, hold: bool = False, **details: Any) -> Entry:
        """Take a job; the queue holds it as long as the scheduler lets it wait."""
        number = self.queue.submit(job._replace(after=(), held=True))
        entry = Entry(self.queue.jobs[number], asked, **details)
        self.entries[number] = entry
        if hold:
            entry.held.update(entry.elements)
        self.let_go(entry)
        return entry

    def known(self) -> Iterator[Entry]:
        """The jobs that the scheduler knows, in the order they came in."""
        return (entry for entry in self.entries.values() if not entry.hidden)

    def find(self, number: int) -> Entry:
        """A job by its number, for those who script what becomes of it."""
        if number not in self.entries:
            raise UsageError(f"the pretend cluster has no job {number}")
        return self.entries[number]

    def queued(self) -> int:
        """How many elements have not ended."""
        elements = (one for entry in self.known() for one in entry.elements.values())
        return sum(element.state not in ENDED for element in elements)

    def why(self, entry: Entry, index: Index) -> str:
        """Why an element waits: "held", "never" (what it waits for cannot come true),
        "dependency", "impossible", "begin", "at once" or "workers"."""
        if index in entry.held:
            return "held"
        if entry.awaited:
            states = [self._fulfilled(one) for one in entry.awaited]
            return "never" if False in states else "dependency"
        return "impossible" if entry.never else self.queue.why(entry.number, index)

    def _fulfilled(self, awaited: Awaited) -> bool | None:
        """Whether it has come true; None when it still may."""
        elements = awaited.elements()
        if awaited.kind == "after":
            return True if all(one.began or one.state in ENDED for one in elements) else None
        if not all(one.state in ENDED for one in elements):
            return None
        if awaited.kind == "afterany":
            return True
        good = all(one.state == "done" for one in elements)
        if self.dialect == "pbs":  # which looks at the one that ended last
            last = awaited.entry.last_ended
            good = last is not None and last.exit_status == 0
        return good == (awaited.kind == "afterok")

    # Doing ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let the queue go on, and jobs that wait for others."""
        self.queue.step()
        for entry in self.entries.values():
            if not entry.awaited or entry.ended:
                continue
            states = [self._fulfilled(one) for one in entry.awaited]
            if all(states):
                entry.awaited.clear()
                self.let_go(entry)
            elif False in states and (self.dialect == "pbs" or entry.asked.kill_on_invalid):
                self.take_away(entry)

    def let_go(self, entry: Entry) -> None:
        """Let those elements wait for their turn that nothing else keeps."""
        if not entry.awaited and not entry.never:
            free = [index for index in entry.submitted.elements if index not in entry.held]
            self.queue.release(entry.number, free)

    def hold(self, entry: Entry, indices: Iterable[Index]) -> None:
        """Keep elements from starting, for their user."""
        entry.held.update(indices)
        entry.held_at = time.time()
        self.queue.hold(entry.number, list(entry.held))

    def release(self, entry: Entry, indices: Iterable[Index]) -> None:
        """Let held elements wait for their turn again."""
        entry.held.difference_update(indices)
        self.let_go(entry)

    def take_away(self, entry: Entry) -> None:
        """End a job that waits for what cannot come true."""
        entry.gone = True
        self.queue.cancel(entry.number)

    def end(self, entry: Entry, indices: Sequence[Index], state: JobState) -> None:
        """End elements as if the scheduler had done it."""
        self.queue.cancel(entry.number, indices, state)

    def requeue(self, entry: Entry, index: Index, why: JobState, *, leave: bool = False) -> None:
        """End an element that runs, note the run, and let it wait again under the same id.

        With ``leave`` its processes are left to themselves.
        """
        element = entry.submitted.elements[index]
        entry.earlier.append(replace(element, state=why, ended=time.time()))
        if leave:
            self.queue.leave(entry.number, index)
        else:
            self.queue.requeue(entry.number, index)

    def freeze(self, entry: Entry, indices: Iterable[Index]) -> None:
        """Let elements look for ever as they look now."""
        elements = entry.submitted.elements
        entry.frozen.update((index, replace(elements[index])) for index in indices)

    def on_node(self, node: str) -> list[tuple[Entry, Index]]:
        """What runs on a node."""
        return [
            (entry, index)
            for entry in self.entries.values()
            for index, element in entry.submitted.elements.items()
            if element.node == node and element.state in ("running", "ending")
        ]

    def forget(self, numbers: Iterable[int]) -> None:
        """Let jobs that were accepted never have been."""
        for number in numbers:
            self.entries[number].hidden = True
            self.queue.cancel(number)
