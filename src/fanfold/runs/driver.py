"""One process's work on a run: it takes the lease, runs what is missing, and records it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fanfold.api import executor, reports
from fanfold.dispatch import Event, Listener
from fanfold.errors import RunCancelled
from fanfold.executors.base import Executor
from fanfold.executors.standard import fill_standard_descriptors
from fanfold.runs.asked import Asked
from fanfold.runs.frames import forget_damaged
from fanfold.runs.inputs import Generation, check_generation
from fanfold.runs.recorder import Recorder, Tally
from fanfold.runs.state import read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease
from fanfold.tasks import short_repr

__all__ = ["Driver", "Work"]


@dataclass(frozen=True)
class Work:
    """A run in memory, for whoever drives it: ``options`` are those of `fanfold.api.reports`, with
    ``on``, ``workers`` and ``errors``; ``code`` is the fingerprint of the function as it is now.
    ``lease`` is the right to do it, where it was taken already."""

    directory: RunDirectory
    asked: Asked
    generation: Generation
    function: Callable[..., Any]
    inputs: Sequence[Any]
    code: dict[str, str]
    options: dict[str, Any]
    lease: Lease | None = None


class Driver:
    """Does the work of a run, once.

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
    ) -> None:
        self._work = work
        self._everything = everything
        self._progress = progress
        self._listeners = listeners
        self._stopped: BaseException | None = None
        fill_standard_descriptors()  # what is printed there must not go into a file of the run
        self._lease = work.lease or Lease.take(work.directory, 0, steal=steal)
        try:
            check_generation(work.directory, work.generation)
            self.state = read_state(work.directory)  # now that nobody else writes
            self._lost, damage = self._forget_damaged()
        except BaseException:
            self._lease.release()
            raise
        self.notes = [*self.state.damage, *(f"{what}: its tasks run again" for what in damage)]
        self.todo = [range(self.state.total)] if everything else self.state.without_result()

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
        options = dict(self._work.options)
        stop_at_failure = options.pop("errors") == "raise"
        with executor(options.pop("on"), options.pop("workers")) as place:
            recorder = self._recorder(place)
            why = "error"
            try:
                failed = self._run(place, recorder, stop_at_failure, options)
                why = "failed" if failed else "done"
            except KeyboardInterrupt:
                why = "interrupted"
                raise
            except RunCancelled:
                why = "cancelled"
                raise
            finally:
                recorder.close(why)
        return why

    def _recorder(self, place: Executor) -> Recorder:
        work = self._work
        about = {
            "run": work.asked.id,
            "inputs": work.generation.number,
            "code": work.code,
            "anew": self._everything,
        }
        return Recorder(
            work.directory,
            self._lease,
            about,
            Tally(0 if self._everything else self.state.done, 0),
            lost=self._lost,
            shown=lambda index: short_repr(work.inputs[index]),
            workers=place.activity,
        )

    def _run(
        self, place: Executor, recorder: Recorder, stop_at_failure: bool, options: dict[str, Any]
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
            evidence=str(logs),
            listeners=[self._check, recorder, *self._listeners],
            **options,
        )
        failed = 0
        with closing(arriving):
            for report in arriving:
                failed += len(report.failed)
                if failed and stop_at_failure:
                    break
        return failed

    def _check(self, event: Event) -> None:
        if self._stopped is not None:
            raise self._stopped
