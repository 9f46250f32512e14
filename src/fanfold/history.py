"""What happened in a run: the records that everything told of it is made from.

`fanfold.runs.state` folds the journals into these; reports and summaries only read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Death", "Element", "Failure", "History", "Piece", "Session"]


class Piece(NamedTuple):
    """Consecutive tasks that one worker ran and that were timed together: one, unless tiny.

    ``writer`` is the journal it is from (``"e0-a1"``), ``attempt`` counts the tries at the tasks.
    Times are in seconds (``began`` since 1970), ``cpu_time`` of one core, ``peak_memory`` in bytes;
    None is not known. ``ok`` says whether the tasks ended with results.
    """

    first: int
    count: int  # type: ignore[assignment]  # of tasks, as everywhere
    writer: str
    worker: str
    attempt: int
    began: float | None
    seconds: float
    cpu_time: float | None
    peak_memory: int | None
    ok: bool


class Death(NamedTuple):
    """How a worker ended with a task: ``phase`` is "load", "run" or "send"."""

    pid: int | None
    signal: str | None
    exitcode: int | None
    phase: str
    peak_memory: int | None
    out_of_memory: bool | None


@dataclass(frozen=True, slots=True)
class Failure:
    """One try at a task that failed; ``final`` when it was the last word.

    ``shown`` is the input in one line, ``kind`` the name of the exception's class, ``traceback``
    the traceback as text, ``log`` the last lines that the task printed.
    """

    index: int
    shown: str
    kind: str
    message: str
    traceback: str
    final: bool
    attempt: int
    writer: str
    worker: str
    death: Death | None = None
    log: tuple[str, ...] = ()


class Session(NamedTuple):
    """One driver's work on a run: from when to when (None: not known, it died), and how it ended.

    ``why`` is "done", "failed", "interrupted", "cancelled", "superseded" or "error" as the journal
    says, "running" while it lives, "died" when it ended without a word. One that submitted job
    arrays lasts until their elements have ended; "unfinished" when some of them were ended.
    """

    writer: str
    host: str
    pid: int
    began: float
    ended: float | None
    why: str


class Element(NamedTuple):
    """One element of a job array: what it asked for, and what it used of it.

    ``number`` is its own in the run, ``index`` its index in the job. ``state`` is a word of
    `fanfold.schedulers.base.JobState`. ``cores``, ``memory`` (bytes) and ``walltime`` (seconds) are
    what was asked for; ``seconds`` how long it ran, ``cpu_time`` seconds of one core, and
    ``peak_memory`` the most bytes that all its processes had together. ``recorded_cpu_time`` and
    ``recorded_memory`` are what the scheduler says of the same. None is not known.
    """

    number: int
    job: str
    index: int  # type: ignore[assignment]  # of the element, as everywhere
    node: str
    state: str
    tasks: int
    cores: int
    memory: int | None
    walltime: int | None
    began: float | None = None
    seconds: float | None = None
    cpu_time: float | None = None
    peak_memory: int | None = None
    recorded_cpu_time: float | None = None
    recorded_memory: int | None = None


@dataclass(slots=True)
class History:
    """A run as it is now.

    ``asked`` is what ``run.json`` holds. A task is ``done``, ``failed`` (its last try), or missing:
    it has not been tried to the end. ``damage`` are sentences about what could not be read.
    ``shared`` and ``spilled`` are the most bytes that one driver and its workers had in shared
    memory, and in files because that was full.
    """

    name: str
    path: str
    target: str
    total: int
    workers: int
    created: float
    done: int = 0
    failed: int = 0
    duplicates: int = 0
    asked: dict[str, Any] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)
    shared: int = 0
    spilled: int = 0

    @property
    def missing(self) -> int:
        return self.total - self.done - self.failed

    @property
    def state(self) -> str:
        """ "running", "done", "failed" (all tried, some failed) or "unfinished"."""
        if self.sessions and self.sessions[-1].why == "running":
            return "running"
        if self.missing:
            return "unfinished"
        return "failed" if self.failed else "done"

    def last_failures(self) -> Iterator[Failure]:
        """The failures of the tasks that have no result."""
        return (failure for failure in self.failures if failure.final)
