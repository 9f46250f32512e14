"""What a scheduler is to fanfold: a few questions with pure answers. One file a scheduler.

Commands come out as lists of words, and what they print goes in as text; only
`fanfold.schedulers.queue` runs anything. "Unknown" is an answer: what a scheduler does not say is
never guessed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from fanfold.resources import Resources

__all__ = ["ENDED", "Answer", "Job", "JobState", "Limits", "Scheduler", "Seen"]

JobState = Literal[
    "waiting",  # for its turn, or for another job
    "held",
    "running",
    "ending",  # its script has ended, or is being ended
    "done",  # ended with exit status 0
    "failed",
    "cancelled",
    "walltime",  # ended for running longer than it asked for
    "memory",  # ended for using more than it asked for
    "node",  # the node was lost
    "preempted",
    "vanished",  # the scheduler knows it no more, and its records do not either
    "stalled",  # should have been ended long ago, and gives no sign of life; said by fanfold alone
    "unknown",
]
ENDED = frozenset({"done", "failed", "cancelled", "walltime", "memory", "node", "preempted"})


class Answer(NamedTuple):
    """What a command said: its exit status (None: it was ended, for it took too long), stdout and
    stderr."""

    argv: Sequence[str]
    code: int | None
    out: str
    err: str


class Job(NamedTuple):
    """A job array to submit, of the elements ``first`` ... ``last``.

    ``name`` is safe as it is, and holds the token that the job is found again by. ``at_once`` is
    how many elements may run at a time. What they print goes to ``output``, an absolute path to
    which a dot and the index are added. It begins after the jobs ``after`` have ended well.
    """

    name: str
    first: int
    last: int
    resources: Resources
    output: str
    at_once: int | None = None
    after: Sequence[str] = ()


class Seen(NamedTuple):
    """What a scheduler says of one element of a job, or of a job without elements (index None).

    ``word`` is the state as the scheduler calls it, ``reason`` why it waits or how it ended, in its
    own words. Times are in seconds (``began``, ``ended``: since 1970), ``peak_memory`` in bytes.
    """

    job: str
    index: int | None  # type: ignore[assignment]  # of the element, as everywhere
    state: JobState
    word: str
    reason: str = ""
    node: str = ""
    exit_status: int | None = None
    signal: int | None = None
    began: float | None = None
    ended: float | None = None
    cpu_time: float | None = None
    peak_memory: int | None = None
    restarts: int = 0


class Limits(NamedTuple):
    """Of one array: how many elements, and the highest index; and how many jobs there may be, each
    element counted (None: not known)."""

    elements: int = 1000
    highest_index: int = 999
    jobs: int | None = None


class Scheduler(ABC):
    """Answers, without state. ``command`` is what submits, and tells that the scheduler is here.

    ``variables`` are the names of the environment variables that hold, in a job, the ``"index"`` of
    the element, the id of the ``"job"`` (of the array), and how often it was begun again
    (``"restarts"``), where there is one.
    """

    name: ClassVar[str]
    command: ClassVar[str]
    states: ClassVar[Mapping[str, JobState]]
    variables: ClassVar[Mapping[str, str]]

    @abstractmethod
    def header(self, job: Job) -> list[str]:
        """The directives of a script for this job."""

    @abstractmethod
    def submission(self, script: str, resources: Resources | None = None) -> list[str]:
        """The command that submits a script; no variable here changes the ``resources`` in it."""

    @abstractmethod
    def submitted(self, answer: Answer) -> str:
        """The id of the job, as the other commands take it: an opaque text.

        Raises `SubmitRefused` with the scheduler's own words and the remedy, `SchedulerFull` when
        it may be taken later, `SchedulerDown`, and `SubmitUnknown` when it may have been taken.
        """

    @abstractmethod
    def search(self, name: str) -> list[str]:
        """The command that lists the jobs of this user with this name."""

    @abstractmethod
    def found(self, answer: Answer) -> list[str]:
        """Their ids. Raises `SchedulerDown`."""

    @abstractmethod
    def watch(self, jobs: Sequence[str]) -> list[str]:
        """The command that tells of these jobs and their elements, all at once."""

    @abstractmethod
    def seen(self, answer: Answer) -> list[Seen]:
        """What it told; nothing of jobs that it does not know any more. Raises `SchedulerDown`."""

    @abstractmethod
    def history(self, jobs: Sequence[str]) -> list[str]:
        """The command that tells how these jobs ended."""

    @abstractmethod
    def recorded(self, answer: Answer) -> list[Seen]:
        """What it told, the newest of each element; nothing where no records are kept.

        Raises `SchedulerDown`.
        """

    @abstractmethod
    def limits(self) -> list[str]:
        """The command that tells the limits of this site."""

    @abstractmethod
    def read_limits(self, answer: Answer) -> Limits:
        """The limits, the usual ones where they were not told."""

    @abstractmethod
    def cancel(self, job: str, indices: Sequence[int] | None = None) -> list[list[str]]:
        """The commands that end a job, or some elements of it."""

    @abstractmethod
    def cancelled(self, answer: Answer) -> None:
        """Nothing, when it is gone or going. Raises `SchedulerDown` and `SchedulerError`."""

    @abstractmethod
    def shell(self, resources: Resources) -> list[str]:
        """The command that gives a shell on a node."""
