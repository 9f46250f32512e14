"""How tasks do in the place that was chosen for them, when they have run there for a while."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, cast

from fanfold.executors.auto.choice import Choice, Facts
from fanfold.executors.auto.meter import Meter
from fanfold.executors.auto.watch import Window, wanted_time
from fanfold.executors.base import Executor

if TYPE_CHECKING:
    from fanfold.executors.processes import ProcessExecutor

__all__ = ["Later"]

_FIRST, _EVERY = 0.15, 0.5  # seconds until the first thought, and between two later ones
_FEW = 8  # ended tasks from which something can be said


class Later:
    """Compares what the workers of a place did and used since the last time."""

    def __init__(self, executor: Executor, choice: Choice, meter: Meter) -> None:
        self.place, self.workers = choice.place, choice.workers
        self._executor = executor
        self._next = perf_counter() + _FIRST
        self._before: tuple[float, ...] | None = None
        if choice.place == "threads":  # processes must start first, and that is not their pace
            self._before = self._now(meter)

    def due(self) -> bool:
        return perf_counter() >= self._next

    def facts(self, meter: Meter, window: Window) -> Facts | None:
        """None: too little is known."""
        self._next = perf_counter() + _EVERY
        before, now = self._before, self._now(meter)
        self._before = now
        if now is None or before is None:
            return None
        worked, done, cpu = (new - old for new, old in zip(now, before, strict=True))
        if done < _FEW or worked <= 0 or cpu < 0:
            return None
        held = min(1.0, cpu / worked)
        if self.place == "threads":
            held = window.late / max(1, window.looks)
        elif held < 0.5 and self._programs():
            return None  # what the tasks wait for computes
        return meter.facts_of_workers(worked, int(done), cpu, held)

    def _now(self, meter: Meter) -> tuple[float, ...] | None:
        wanted = self._wanted_time()
        return None if wanted is None else (meter.worked, meter.done, wanted)

    def _wanted_time(self) -> float | None:
        """Seconds of cores that the workers have used or queued for so far; None: not known."""
        if self.place == "threads":
            return wanted_time()
        each = [wanted_time(worker) for worker in self._process_ids()]
        return sum(one for one in each if one is not None) if any(each) else None

    def _programs(self) -> bool:
        """Do programs run that tasks have started, and wait for?"""
        import psutil

        with suppress(psutil.Error):
            return any(psutil.Process(worker).children() for worker in self._process_ids())
        return False

    def _process_ids(self) -> list[int]:
        return cast("ProcessExecutor", self._executor).process_ids()
