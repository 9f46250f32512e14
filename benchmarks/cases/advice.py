"""What `fanfold advise` says, checked by running again with it: in simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.cases.base import Case, Entrant, Goal, Metric, Sample, WrongAnswerError

if TYPE_CHECKING:
    from fanfold.reports.next_time import NextTime

GB, MB = 1 << 30, 1 << 20
AGAIN = 200


class Workload(NamedTuple):
    """Tasks of log-normal length (``spread``: of its logarithm) with a mean of a minute, and
    log-normal memory, in elements of so many workers."""

    tasks: int
    elements: int
    workers: int
    spread: float


WORKLOADS = (
    Workload(2000, 20, 4, 1.0), Workload(1000, 20, 4, 1.0), Workload(1000, 20, 1, 1.0),
    Workload(500, 5, 4, 1.0), Workload(200, 1, 4, 1.0), Workload(4000, 40, 4, 1.2),
    Workload(2000, 20, 4, 0.5),
)  # fmt: skip


class Simulated:
    """A run as it could have been on a cluster, again and again: its tasks are the same each time,
    but no node and no task takes just as long as before, or just as much memory."""

    def __init__(self, load: Workload, seed: int) -> None:
        self.load = load
        self._random = random.Random(seed)
        draw = self._random.lognormvariate
        self.lengths = [60 * draw(-(load.spread**2) / 2, load.spread) for _ in range(load.tasks)]
        self.memory = [200 * MB + 400 * MB * draw(0, 0.3) for _ in range(load.tasks)]

    def shares(self, elements: int) -> list[list[int]]:
        """As a run that has learned what its tasks take deals them out."""
        from fanfold.costs import dealt

        found = dealt(self.lengths, [range(self.load.tasks)], elements)
        return [[index for part in share for index in part] for share in found]

    def first_shares(self) -> list[list[int]]:
        """As a run does that knows nothing of them."""
        tasks, elements = self.load.tasks, self.load.elements
        return [
            list(range(number * tasks // elements, (number + 1) * tasks // elements))
            for number in range(elements)
        ]

    def element(self, tasks: Sequence[int], workers: int) -> tuple[float, float, float]:
        """Seconds, bytes and seconds of all cores that an element takes for these tasks."""
        draw = self._random.lognormvariate
        node = draw(0, 0.05)
        ends, peaks, work = [0.0] * workers, [0.0] * workers, 0.0
        for index in tasks:
            length = self.lengths[index] * node * draw(0, 0.05)
            worker = ends.index(min(ends))
            ends[worker] += length
            peaks[worker] = max(peaks[worker], self.memory[index] * draw(0, 0.03))
            work += length
        return max(ends) + 2, sum(peaks), 0.97 * work

    def advise(self, told: Sequence[tuple[float, float, float]], cores: int) -> NextTime:
        """What is said after a run whose elements took so much."""
        from fanfold.history import Element, History
        from fanfold.reports.next_time import next_time

        load = self.load
        history = History("r", "runs/r", "m.py:f", load.tasks, load.workers, 0.0, done=load.tasks)
        history.asked = {"on": "slurm", "workers": load.workers}
        each = -(-load.tasks // len(told))
        history.elements = [
            Element(
                number, "7", number - 1, "n1", "done", each, cores, 64 * GB, 86_400,
                seconds=seconds, peak_memory=int(peak), cpu_time=work,
            )
            for number, (seconds, peak, work) in enumerate(told, 1)
        ]  # fmt: skip
        advised = next_time(history)
        if advised is None:
            raise WrongAnswerError("a run that is over gets no advice")
        return advised


class Again(NamedTuple):
    """A run with what was advised: how many times of it was asked for, of what was used; less than
    1 means that it was ended for that."""

    walltime: float
    memory: float


def simulated(load: Workload, seed: int, again: int = AGAIN) -> Iterator[Again]:
    """Run a first time, and then again and again, each time with the advice of the time before."""
    run = Simulated(load, seed)
    told = [run.element(share, load.workers) for share in run.first_shares()]
    cores = load.workers
    for _ in range(again):
        advised = run.advise(told, cores)
        cores = advised.resources.cores
        told = [run.element(share, advised.workers) for share in run.shares(advised.elements)]
        yield Again(
            (advised.resources.walltime or 0) / max(seconds for seconds, _, _ in told),
            (advised.resources.memory or 0) / max(peak for _, peak, _ in told),
        )


def measure(entrant: Entrant, workers: int, again: int) -> Sample:
    runs = [one for seed, load in enumerate(WORKLOADS) for one in simulated(load, seed, again)]
    return {
        "killed": float(sum(min(one) < 1 for one in runs)),
        "walltime": median(one.walltime for one in runs),
        "memory": median(one.memory for one in runs),
    }


CASE = Case(
    name="advice",
    title="runs again with what fanfold advise says",
    measure=measure,
    entrants=(Entrant("fanfold"),),
    metrics=(
        Metric("walltime", "x"),
        Metric("memory", "x"),
        Metric("killed", " runs"),
    ),
    goals=(
        Goal("no run is ended for its walltime or its memory", "killed", at_most=0),
        Goal("≤ 1.5 times the walltime used is asked for", "walltime", at_most=1.5),
        Goal("≤ 1.5 times the memory used is asked for", "memory", at_most=1.5),
    ),
    sizes={
        "full": {"again": AGAIN},
        "quick": {"again": 50},
        "tiny": {"again": 2},
    },
    note=f"{len(WORKLOADS)} workloads with log-normal times, each run once and then {AGAIN} times "
    "again in simulation, with the advice of the time before. Told is what is asked for over the "
    "most that an element used, at the median of all runs. Nothing real is run: the case "
    "`advice-slurm` does that.",
)
