"""One process's work on a run: it takes the lease, runs what is missing, and records it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fanfold.api import executor, reports
from fanfold.devices import gpus_each
from fanfold.dispatch import Event, Listener
from fanfold.errors import FanfoldError, RunCancelled, TaskLost, WorkerDied
from fanfold.executors.base import Executor, StartupFailed
from fanfold.executors.work.standard import fill_standard_descriptors
from fanfold.runs.asked import Asked
from fanfold.runs.frames import forget_damaged
from fanfold.runs.inputs import Generation, check_generation
from fanfold.runs.plan import common
from fanfold.runs.recorder import Recorder, Tally
from fanfold.runs.state import read_state
from fanfold.runs.usage import Spent, write_summary
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease
from fanfold.tasks import Report, TaskRetried, short_repr

__all__ = ["Driver", "DriverStopped", "Part", "Work"]

_MOMENT = 1.0  # seconds in which a scheduler ends all processes of a job
_EXITS = {"done": 0, "interrupted": 130}  # the exit status of fanfold run; 1 is the other


@dataclass(frozen=True)
class Work:
    """A run in memory, for whoever drives it: ``options`` are those of `fanfold.api.reports`, with
    ``on``, ``workers``, the ``gpus`` that these share, and ``errors``; ``code`` is the fingerprint
    of the function as it is now. ``costs`` are what its tasks cost, where that is known: they begin
    longest first. ``lease`` is the right to do it, where it was taken already."""

    directory: RunDirectory
    asked: Asked
    generation: Generation
    function: Callable[..., Any]
    inputs: Sequence[Any]
    code: dict[str, str]
    options: dict[str, Any]
    costs: Sequence[float] | None = None
    lease: Lease | None = None


class Part(NamedTuple):
    """What an element of a job array does of a run: its ``tasks``, in the order to begin them.

    ``about`` goes into the header of its journal. The lease is lost when ``fence`` is there.
    ``meter`` tells what the element uses, for its heartbeat and for its journal.
    """

    element: int
    tasks: Sequence[range]
    about: dict[str, Any]
    fence: Path
    meter: Callable[[], dict[str, Any]]


class DriverStopped(KeyboardInterrupt):
    """Somebody ends this driver: ``why`` is what its journal says then."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Driver:
    """Does the work of a run, or a ``part`` of it, once.

    It runs the tasks without a result, and those whose result is damaged; with ``everything`` all
    of them. ``listeners`` get the events. ``notes`` are sentences about what is damaged.
    """

    def __init__(
        self,
        work: Work,
        *,
        everything: bool = False,
        steal: bool = False,
        progress: bool | None = None,
        listeners: Sequence[Listener] = (),
        part: Part | None = None,
    ) -> None:
        self._work = work
        self._part = part
        self._everything = everything
        self._progress = progress
        self._listeners = listeners
        self._stopped: BaseException | None = None
        fill_standard_descriptors()  # what is printed there must not go into a file of the run
        element = None if part is None else part.element
        self._lease = work.lease or Lease.take(
            work.directory, element or 0, steal=steal, fence=part and part.fence
        )
        try:
            check_generation(work.directory, work.generation)
            self.state = read_state(work.directory, element=element)  # now that nobody else writes
            self._lost, damage = self._forget_damaged()
        except BaseException:
            self._lease.release()
            raise
        self.notes = [*self.state.damage, *(f"{what}: its tasks run again" for what in damage)]
        self.todo = [range(self.state.total)] if everything else self.state.without_result()
        if part is not None:
            self.todo = common(part.tasks, self.todo)

    def _forget_damaged(self) -> tuple[list[range], list[str]]:
        if self._everything:
            return [], []
        return forget_damaged(self._work.directory, self.state, self._work.asked.id)

    def stop(self, reason: BaseException) -> None:
        """End the work soon, from another thread; `drive` raises the reason."""
        self._stopped = reason

    def drive(self) -> str:
        """Work until all is tried; returns how it ended: "done" or "failed"."""
        try:
            return self._drive()
        finally:
            self._lease.release()

    def _drive(self) -> str:
        options = {name: value for name, value in self._work.options.items() if name != "cluster"}
        stop_at_failure = options.pop("errors") == "raise"
        with _place(options) as place:
            recorder, spent = self._recorder(place), self._spent(place)
            why, message = "error", ""
            try:
                failed = self._run(place, [recorder, spent], stop_at_failure, options)
                why = "failed" if failed else "done"
            except BaseException as error:
                why = _why(error)
                message = str(error) if why == "error" else ""
                raise
            finally:
                recorder.close(why, message)
                self._sum_up(spent, why)
        return why

    def _spent(self, place: Executor) -> Spent:
        """Counts what the tasks use."""
        limit = self._work.options.get("max_memory_per_worker")
        return Spent(place.workers, limit and limit * place.workers)

    def _sum_up(self, spent: Spent, why: str) -> None:
        """Beside the logs, what a run on this machine used; elements tell it in their own logs. A
        folder that cannot be written goes without."""
        work = self._work
        if self._part is None:
            with suppress(FanfoldError, OSError):
                logs, status = work.directory.path / "logs", _EXITS.get(why, 1)
                write_summary(logs, spent.element(why), work.asked.name, status)

    def _recorder(self, place: Executor) -> Recorder:
        work = self._work
        about = {
            "run": work.asked.id,
            "inputs": work.generation.number,
            "code": work.code,
            "anew": self._everything,
            **(self._part.about if self._part else {}),
        }
        return Recorder(
            work.directory,
            self._lease,
            about,
            Tally(0 if self._everything else self.state.done, 0),
            lost=self._lost,
            shown=lambda index: short_repr(work.inputs[index]),
            workers=place.activity,
            meter=self._part and self._part.meter,
        )

    def _run(
        self,
        place: Executor,
        counting: Sequence[Listener],
        stop_at_failure: bool,
        options: dict[str, Any],
    ) -> int:
        """Run the tasks; how many failed."""
        work = self._work
        logs = work.directory.path / "logs" / f"{self._lease.writer}-"
        arriving = reports(
            work.function,
            work.inputs,
            style=work.generation.style,  # type: ignore[arg-type]
            on=place,
            seed=work.asked.entropy,
            progress=self._progress,
            only=self.todo,
            cost=work.costs,
            evidence=str(logs),
            listeners=[self._doubt, *counting, *self._listeners, self._obey],
            **options,
        )
        failed = 0
        with closing(arriving):
            for report in arriving:
                failed += len(report.failed)
                if failed and stop_at_failure:
                    break
        return failed

    def _doubt(self, event: Event) -> None:
        """Where workers end from outside it may be that all of us are ended: then no task is to
        blame, and nothing is recorded."""
        failures = _failures(event)
        if self._part is not None and any(map(_from_outside, failures)):
            time.sleep(_MOMENT)
        if failures:
            self._obey(event)

    def _obey(self, _: Event) -> None:
        if self._stopped is not None:
            raise self._stopped


def _place(options: dict[str, Any]) -> Executor:
    """Where the tasks run; takes the options out that say it."""
    on, workers, gpus = options.pop("on"), options.pop("workers"), options.pop("gpus", 0)
    memory = options.pop("max_memory_per_worker", None)
    limits = {} if memory is None else {"max_memory_per_worker": memory}
    if not gpus:
        return executor(on, workers, **limits)
    workers = workers or gpus
    return executor(on, workers, gpus=gpus_each(workers, gpus), **limits)


def _why(error: BaseException) -> str:
    if isinstance(error, DriverStopped):
        return error.why
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "cancelled" if isinstance(error, RunCancelled) else "error"


def _failures(event: Event) -> list[BaseException]:
    report = event.report if isinstance(event, TaskRetried) else event
    if not isinstance(report, Report):
        return []
    return [report.values[index - report.first] for index in report.failed]


def _from_outside(error: BaseException) -> bool:
    """Did a worker end as those do that a scheduler ends, or nobody knows how?"""
    if isinstance(error, WorkerDied):
        return error.exitcode is None or error.signal in (signal.SIGTERM, signal.SIGKILL)
    return isinstance(error, (StartupFailed, TaskLost))
