"""The elements of the job arrays of a run, watched: what they wrote, and what the scheduler says.

What an element has written wins over what the scheduler says of it; what neither says is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from fanfold.errors import FanfoldError, RunDamaged, SchedulerError, UsageError
from fanfold.runs.arrays import Array, arrays, is_closed, job_of, keep_job
from fanfold.schedulers.base import ENDED, JobState, Seen
from fanfold.schedulers.pace import Clock
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import scheduler
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import newest
from fanfold.tasks import Activity

__all__ = ["Watch", "Watched", "find_job", "is_over", "open_arrays", "queue_of"]

_MAX_AGE = 2.0  # seconds
_GRACE = 300.0  # seconds beyond its walltime, in which a scheduler ends a job
_WORDS: dict[str, JobState] = {
    "done": "done",
    "failed": "failed",
    "error": "failed",
    "cancelled": "cancelled",
    "superseded": "cancelled",
    "interrupted": "cancelled",
}


def queue_of(directory: RunDirectory, name: str) -> Queue:
    """The scheduler, for whoever watches this run: they share what it told."""
    return Queue(scheduler(name), cache=directory.path / "arrays" / "seen.json")


class Watched(NamedTuple):
    """What is known of an element. Times are in seconds since 1970.

    ``why`` and ``message`` tell how its last attempt ended, as its journal says ("": it has not);
    ``beat`` is when it last said that it lives, ``seen`` what the scheduler says of it;
    ``overdue``: it should have been ended long ago, and says nothing any more.
    """

    number: int
    array: int
    index: int  # type: ignore[assignment]  # of the element, as everywhere
    job: str | None
    tasks: int
    attempt: int = 0
    done: int = 0
    failed: int = 0
    why: str = ""
    message: str = ""
    running: tuple[int, ...] = ()
    host: str = ""
    began: float | None = None
    beat: float | None = None
    workers: tuple[Activity, ...] = ()
    usage: dict[str, Any] | None = None
    seen: Seen | None = None
    overdue: bool = False

    @property
    def state(self) -> JobState:
        if self.why in _WORDS:
            return _WORDS[self.why]
        said = "unknown" if self.seen is None else self.seen.state
        if self.why == "walltime" and said not in ("waiting", "held"):
            return "walltime"
        if said == "unknown" and self.beat is not None and self.seen is None:
            return "running"
        if self.overdue and said in ("running", "ending"):
            return "stalled"
        return said

    @property
    def late(self) -> bool:
        """Has it ended well, as the scheduler says, and what it wrote is not to be seen here yet?

        A shared file system may show it seconds later.
        """
        return self.state == "done" and not self.why


def is_over(state: str) -> bool:
    """Will nothing come of an element in this `JobState` any more?"""
    return state in ENDED or state in ("vanished", "stalled")


def open_arrays(directory: RunDirectory, damage: list[str] | None = None) -> list[Array]:
    """Those that were submitted last: the others have no say any more.

    What of them cannot be read is told in ``damage``, in sentences.
    """
    last = max((attempt for element, attempt in directory.writers() if not element), default=0)
    return [
        one
        for one in arrays(directory, damage)
        if one.session >= last and not is_closed(directory, one.number)
    ]


def find_job(directory: RunDirectory, array: Array, queue: Queue | None) -> str | None:
    """The id of its job; where it is not known that it was submitted the ``queue`` is asked.

    Raises `SchedulerDown`, and `UsageError` where there is none to be asked.
    """
    job = job_of(directory, array.number)
    if job is None and queue is not None:
        job = queue.find(array.name)
        if job is not None:
            with suppress(FanfoldError):  # who may only read looks it up each time
                keep_job(directory, array.number, job)
    return job


class Watch:
    """Looks at the elements of a run; what is over is not looked at again.

    They are those that were submitted last, or those ``of`` some arrays.
    Without a ``queue`` only what they wrote is told. ``trouble`` is what keeps the scheduler from
    being asked, in a sentence.
    """

    def __init__(
        self,
        directory: RunDirectory,
        queue: Queue | None = None,
        of: Sequence[Array] | None = None,
    ) -> None:
        self.trouble = ""
        self._directory = directory
        self._queue = queue
        self._arrays = open_arrays(directory) if of is None else of
        self._large = {array.number for array in self._arrays if len(array.shares) > 1}
        self._walltimes = {array.number: array.resources.walltime for array in self._arrays}
        self._jobs: dict[int, str | None] = {}
        self._seen: dict[tuple[str, int | None], Seen] = {}
        self._over: dict[int, Watched] = {}

    def look(self, max_age: float | None = _MAX_AGE) -> list[Watched]:
        """All of them as they are now, with what the scheduler said, ``max_age`` seconds ago or
        less; None does not ask it."""
        queue = None if max_age is None else self._queue
        self.trouble = self.trouble if queue is None else ""
        attempts = self._directory.all_attempts()
        found = []
        for array in self._arrays:
            self._find_job(array, queue)
            for number in array.elements:
                one = self._over.get(number)
                found.append(one or self._read(array, number, attempts.get(number, [])))
        if max_age is not None and queue is not None:
            self._ask(queue, found, max_age)
        found = [self._with_seen(one) for one in found]
        self._over |= {one.number: one for one in found if is_over(one.state) and not one.late}
        return found

    def _find_job(self, array: Array, queue: Queue | None) -> None:
        """The id of its job, for which its name is looked up where no reply ever told it."""
        if array.number in self._jobs:
            return
        try:
            job = find_job(self._directory, array, queue)
        except (SchedulerError, UsageError) as error:
            self.trouble = str(error)
        else:
            if job is not None or queue is not None:
                self._jobs[array.number] = job

    def _read(self, array: Array, number: int, attempts: list[int]) -> Watched:
        index = number - array.first
        job = self._jobs.get(array.number)
        one = Watched(number, array.number, index, job, sum(map(len, array.shares[index])))
        if attempts:
            one = _with_journal(self._directory, one, attempts)
            return _with_beat(self._directory, one)
        if array.number in self._jobs and job is None:  # no scheduler has ever known it
            return one._replace(seen=Seen("", index, "vanished", ""))
        return one

    def _ask(self, queue: Queue, found: list[Watched], max_age: float) -> None:
        """Have the scheduler tell of those that are not known to be over, all at once."""
        jobs: dict[str, list[int | None]] = {}
        for one in found:
            if one.job is not None and not is_over(one.state):
                jobs.setdefault(one.job, []).append(self._in_job(one))
        if jobs:
            look = queue.look(jobs, max_age=max_age)
            self.trouble = look.trouble or self.trouble
            self._seen |= look.seen

    def _with_seen(self, one: Watched) -> Watched:
        if one.job is None or is_over(one.state):
            return one
        one = one._replace(seen=self._seen.get((one.job, self._in_job(one))))
        return one._replace(overdue=_is_overdue(one, self._walltimes[one.array]))

    def indices(self, one: Watched) -> list[int] | None:
        """What `Queue.cancel` takes for this element: None where the job has no other."""
        return [one.index] if one.array in self._large else None

    def _in_job(self, one: Watched) -> int | None:
        """Its index in the job; None where the job is no array, as it has one element."""
        return one.index if one.array in self._large else None


def _is_overdue(one: Watched, walltime: float | None) -> bool:
    """Has its time been over for long, and has it been silent as long: does its node hang?"""
    scheduled = None if one.seen is None else one.seen.began
    began = max(filter(None, (one.began, scheduled)), default=None)  # the last, of a requeued one
    if walltime is None or began is None:
        return False
    return Clock().time() > max(began + walltime, one.beat or 0.0) + _GRACE


def _with_journal(directory: RunDirectory, one: Watched, attempts: list[int]) -> Watched:
    """What its last attempt has written; until that has begun to write, what was done before."""
    last = one._replace(attempt=attempts[-1])
    try:
        records = newest(directory.journal(one.number, last.attempt))
    except (RunDamaged, OSError):
        if len(attempts) == 1:
            return last
        before = _with_journal(directory, one, attempts[:-1])
        return last._replace(done=before.done, failed=before.failed)
    one = last
    for record in records:
        with suppress(KeyError, TypeError):  # what it does not say is not known
            one = _told(one, record)
    return one


def _told(one: Watched, record: dict[str, Any]) -> Watched:
    kind = record["is"]
    if kind == "journal":
        return one._replace(
            done=record["before"]["done"], failed=0, host=record["host"], began=record["at"]
        )
    if kind == "tally":
        return one._replace(done=record["done"], failed=record["failed"])
    if kind == "done":
        return one._replace(done=one.done + record["count"])
    if kind == "failed":
        return one._replace(failed=one.failed + bool(record["final"]))
    if kind == "usage":
        return one._replace(usage=record)
    if kind == "running":
        return one._replace(running=tuple(record["tasks"]))
    if kind == "end":
        return one._replace(why=record["why"], message=record.get("message", ""))
    return one


def _with_beat(directory: RunDirectory, one: Watched) -> Watched:
    """What it last said; the files of the lease tell more than a long journal's end does."""
    stem = f"leases/e{one.number}-a{one.attempt}"
    with suppress(FanfoldError, OSError, KeyError, TypeError, ValueError):
        lease = directory.read_json(f"{stem}.json")
        one = one._replace(host=lease["host"], began=lease["at"])
        if one.why:
            return one
        told = directory.read_json(f"{stem}.beat")
        since = max(0.0, time.time() - told["at"])
        one = one._replace(
            beat=told["at"], usage=told.get("usage"),
            workers=tuple(_activities(told["workers"], since)),
        )  # fmt: skip
    return one


def _activities(workers: list[dict[str, Any]], since: float) -> Iterator[Activity]:
    for worker in workers:
        yield Activity(worker["worker"], worker["task"], worker["seconds"] + since)
