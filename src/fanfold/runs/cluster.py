"""A run as job arrays: which tasks are missing is planned, written down, and submitted.

The plan of an array is on disk before the array is submitted, under a name that it can be found
again by; see docs/design/arrays.md.
"""

from __future__ import annotations

import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fanfold.devices import gpus_each
from fanfold.errors import FanfoldError, RunBusy, SubmitUnknown
from fanfold.resources import Resources
from fanfold.runs.arrays import Array, arrays, close_array, is_closed, keep_job
from fanfold.runs.driver import Work
from fanfold.runs.elements import Watch, is_over, open_arrays, queue_of
from fanfold.runs.frames import forget_damaged
from fanfold.runs.inputs import check_generation
from fanfold.runs.jobscript import job_script
from fanfold.runs.plan import common, element_count, plan
from fanfold.runs.recorder import Tally, journal_header
from fanfold.runs.state import State, read_state
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import scheduler
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease

__all__ = ["Cluster", "Submission", "plan_arrays", "script_of", "settle"]

Tell = Callable[[str], None]

_NOW = 0.0  # seconds: what a scheduler said before that is asked again


class Cluster(NamedTuple):
    """How a run is spread over a scheduler.

    ``elements`` of job arrays (None: as many as are worth it), ``at_once`` of them at a time;
    ``setup`` are lines of shell for the begin of each, ``python`` runs them; ``after`` are the
    folders of runs that must have ended well.
    """

    scheduler: str
    resources: Resources
    elements: int | None = None
    at_once: int | None = None
    setup: Sequence[str] = ()
    python: str = sys.executable
    after: Sequence[str] = ()

    def told(self) -> dict[str, Any]:
        """As it is kept, in JSON."""
        return {**self._asdict(), "resources": self.resources._asdict()}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Cluster:
        """What was kept."""
        return cls(**{**told, "resources": Resources(**told["resources"])})


def settle(directory: RunDirectory, *, steal: bool = False) -> None:
    """Close the arrays of a run that were submitted earlier: from now on they have no say.

    Raises `RunBusy` when elements of them are at work, or may be; with ``steal`` they are ended.
    """
    opened = {array.number: array for array in open_arrays(directory)}
    for number in directory.arrays():
        if is_closed(directory, number):
            continue
        array = opened.get(number)  # of one that cannot be read nothing can be waited for
        if array is not None and not steal:
            _check_over(directory, array)
        with suppress(FileExistsError):  # another was faster
            close_array(directory, number)
        if array is not None and steal:
            _end(directory, array)


def _check_over(directory: RunDirectory, array: Array) -> None:
    queue = queue_of(directory, array.scheduler)
    for one in Watch(directory, queue, [array]).look(_NOW):
        if not is_over(one.state):
            raise _ElementsBusy(directory.path, array.scheduler, one.job, array.at)


def _end(directory: RunDirectory, array: Array) -> None:
    """Spare its elements what counts for nothing any more, as far as that can be had at once."""
    queue = queue_of(directory, array.scheduler)
    seen = Watch(directory, queue, [array]).look(_NOW)
    for job in {one.job for one in seen if one.job is not None and not is_over(one.state)}:
        with suppress(FanfoldError):
            queue.cancel(job, patience=0.0)


class _ElementsBusy(RunBusy):
    """Elements of a job array work on the run, or may: no process can be named, or be killed."""

    def __init__(self, path: Path, scheduler: str, job: str | None, since: float) -> None:
        super().__init__(path, scheduler, 0, since)
        self._job = job

    def __str__(self) -> str:
        job = "a job whose number is not known" if self._job is None else f"job {self._job}"
        return (
            f"{job} on {self.host} works on the run in {self.path}, or may: wait for it, end it "
            "(fanfold cancel), or take the run over with --steal (steal=True)"
        )


def plan_arrays(
    directory: RunDirectory,
    todo: Sequence[range],
    cluster: Cluster,
    options: dict[str, Any],
    *,
    name: str,
    session: int = 0,
    inputs: int = 1,
    code: dict[str, str] | None = None,
    costs: Sequence[float] | None = None,
) -> Iterator[Array]:
    """The arrays for the tasks ``todo`` of a run, as many as the limits of the site make it.

    ``costs`` are what the tasks cost, where that is known: elements get about the same then.
    Raises `UsageError` where an element has more workers than GPUs to give them.
    """
    tasks = sum(map(len, todo))
    if not tasks:
        return
    options = {key: value for key, value in options.items() if key != "cluster"}
    workers = options["workers"] or cluster.resources.workers
    if cluster.resources.gpus:
        gpus_each(workers, cluster.resources.gpus)
    elements = element_count(
        tasks,
        workers=workers,
        seconds=_seconds(directory) if cluster.elements is None else None,
        walltime=cluster.resources.walltime,
        asked=cluster.elements,
    )
    number = max(directory.arrays(), default=0) + 1
    begun = max(directory.all_attempts(), default=0)  # of an array, too, that cannot be read
    first = max((one.elements[-1] for one in arrays(directory)), default=0)
    first = max(begun, first) + 1
    limits = queue_of(directory, cluster.scheduler).limits()
    elements = min(elements, limits.jobs or elements)
    for shares in plan(todo, elements, limits, costs):
        yield Array(
            number=number,
            session=session,
            scheduler=cluster.scheduler,
            name=_job_name(name),
            first=first,
            shares=shares,
            inputs=inputs,
            code=code or {},
            options=options,
            resources=cluster.resources,
            python=platform.python_version(),
            after=list(cluster.after),
        )
        number, first = number + 1, first + len(shares)


def script_of(directory: RunDirectory, array: Array, cluster: Cluster, folder: str) -> str:
    """What is submitted of one of the arrays; its tasks run in ``folder``."""
    runs = [RunDirectory.open(Path(path)) for path in cluster.after]
    return job_script(
        directory,
        array,
        scheduler(cluster.scheduler),
        folder=folder,
        python=cluster.python,
        setup=cluster.setup,
        at_once=cluster.at_once,
        after=[job for run in runs for job in _jobs_of(run)],
    )


@dataclass
class Submission:
    """What is missing of a run, planned as job arrays; made with the lease of the run."""

    work: Work
    cluster: Cluster
    lease: Lease
    state: State
    lost: list[range]
    arrays: list[Array]
    everything: bool

    @classmethod
    def plan(
        cls,
        work: Work,
        cluster: Cluster,
        *,
        everything: bool = False,
        steal: bool = False,
        only: Sequence[range] | None = None,
    ) -> Submission:
        """Plan it; of the tasks without a result ``only`` those at these indices.

        Raises `RunBusy`, and what the run directory does.
        """
        directory = work.directory
        lease = work.lease or Lease.take(directory, 0, steal=steal)
        try:
            settle(directory, steal=steal)
            check_generation(directory, work.generation)
            state = read_state(directory)
            lost: list[range] = []
            if not everything:
                lost, _ = forget_damaged(directory, state, work.asked.id)
            todo = [range(state.total)] if everything else state.without_result()
            planned = plan_arrays(
                directory,
                todo if only is None else common(only, todo),
                cluster,
                work.options,
                name=work.asked.name,
                session=lease.attempt,
                inputs=work.generation.number,
                code=work.code,
                costs=work.costs,
            )
            submission = cls(work, cluster, lease, state, lost, list(planned), everything)
        except BaseException:
            lease.release()
            raise
        return submission

    def submit(self, tell: Tell | None = None) -> list[str]:
        """Submit the arrays; returns the ids of the jobs.

        Raises `SubmitRefused` when the scheduler does not take one: then none of them is left.
        """
        directory = self.work.directory
        queue = queue_of(directory, self.cluster.scheduler)
        jobs: list[str] = []
        why = "error"
        try:
            with JournalWriter(directory.journal(0, self.lease.attempt), self._header()) as journal:
                journal.append(
                    {"is": "lost", "first": tasks.start, "count": len(tasks)} for tasks in self.lost
                )
                try:
                    for array in self.arrays:
                        job = self._submit(queue, array, tell)
                        jobs.append(job)  # those before an error are taken back
                    why = "submitted"
                except SubmitUnknown:  # it may be at work: the next call finds it by its name
                    raise
                except FanfoldError:
                    self._take_back(queue, jobs)
                    raise
                finally:
                    journal.append([{"is": "end", "why": why, "at": time.time()}])
                    journal.sync()
        finally:
            self.lease.release()
        return jobs

    def _header(self) -> dict[str, Any]:
        work = self.work
        about = {
            "run": work.asked.id, "inputs": work.generation.number, "code": work.code,
            "anew": self.everything,
        }  # fmt: skip
        done = 0 if self.everything else self.state.done
        return journal_header(work.directory, self.lease, about, Tally(done, 0))

    def _submit(self, queue: Queue, array: Array, tell: Tell | None) -> str:
        directory = self.work.directory
        array.write(directory)
        script = directory.array(array.number, "sh")
        text = script_of(directory, array, self.cluster, self.work.asked.folder)
        directory.write_text(f"arrays/{script.name}", text)
        job = queue.submit(script, array.name, array.resources, tell=tell)
        keep_job(directory, array.number, job)
        return job

    def _take_back(self, queue: Queue, jobs: Sequence[str]) -> None:
        """Nothing is half submitted."""
        for job in jobs:
            with suppress(FanfoldError):
                queue.cancel(job)
        for array in self.arrays:
            if self.work.directory.array(array.number, "json").exists():
                close_array(self.work.directory, array.number)


def _seconds(directory: RunDirectory) -> float | None:
    """What a task has taken so far in this run, in the mean; None before the first."""
    if not directory.path.exists():
        return None
    from fanfold.runs.telling import read_history

    pieces = [piece for piece in read_history(directory).pieces if piece.ok]
    tasks = sum(piece.count for piece in pieces)
    return sum(piece.seconds for piece in pieces) / tasks if tasks else None


def _job_name(name: str) -> str:
    """A name that any scheduler takes, and no other job has."""
    plain = "".join(mark if mark.isalnum() and mark.isascii() else "-" for mark in name)
    return f"{plain.strip('-')[:40] or 'run'}-{secrets.token_hex(6)}"


def _jobs_of(directory: RunDirectory) -> Iterator[str]:
    """The jobs of a run that may still be at work: a scheduler may refuse to wait for others."""
    for array in open_arrays(directory):
        seen = Watch(directory, queue_of(directory, array.scheduler), [array]).look()
        yield from {one.job for one in seen if one.job is not None and not is_over(one.state)}
