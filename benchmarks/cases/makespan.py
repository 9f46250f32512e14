"""Tasks of very different lengths, the longest last: who keeps all workers busy to the end."""

from __future__ import annotations

import math
from statistics import NormalDist

from benchmarks.cases.base import (
    Case,
    Clock,
    Entrant,
    Goal,
    Metric,
    Sample,
    check,
    entrants,
    tuned,
)
from benchmarks.tasks import spin

SIGMA = 0.75


def lengths(tasks: int, total: float) -> list[float]:
    """Log-normal lengths in seconds, ascending: the worst order. Quantiles, so nothing is drawn."""
    normal = NormalDist(0, SIGMA)
    relative = [math.exp(normal.inv_cdf((task + 0.5) / tasks)) for task in range(tasks)]
    return [total * length / sum(relative) for length in relative]


def lower_bound(work: list[float], workers: int) -> float:
    """No scheduler can end earlier, not even one that knows the lengths."""
    return max(sum(work) / workers, max(work))


def greedy(work: list[float], workers: int) -> float:
    """The makespan in the given order when a free worker takes the next task at no cost."""
    free_at = [0.0] * workers
    for length in work:
        free_at[free_at.index(min(free_at))] += length
    return max(free_at)


def skewed(tasks: int, total: float) -> list[float]:
    """Many short tasks, and at the end a few that take half of the time together."""
    long = max(1, tasks // 16)
    each = total / 2 / long
    short = total / 2 / (tasks - long)
    return [short] * (tasks - long) + [each] * long


def measure(entrant: Entrant, workers: int, tasks: int, milliseconds: int) -> Sample:
    return _measured(entrant, workers, lengths(tasks, milliseconds / 1000))


def measure_skewed(entrant: Entrant, workers: int, tasks: int, milliseconds: int) -> Sample:
    return _measured(entrant, workers, skewed(tasks, milliseconds / 1000))


def _measured(entrant: Entrant, workers: int, work: list[float]) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            results = pool.map(spin, work, chunk=entrant.chunk)
    check(results, work)
    return {
        "over_bound": clock.seconds / lower_bound(work, workers),
        "over_greedy": clock.seconds / greedy(work, workers),
    }


IDEAL = greedy(lengths(64, 1), 2) / lower_bound(lengths(64, 1), 2)

ENTRANTS = (
    *entrants("bare processes", "fanfold longest first"),
    *tuned("multiprocessing.Pool", 1),
    *tuned("joblib", 1),
    *tuned("mpire", 1),
)

CASE = Case(
    name="makespan",
    title="64 CPU tasks, log-normal lengths, in the worst order",
    measure=measure,
    entrants=ENTRANTS,
    metrics=(Metric("over_bound", "x"), Metric("over_greedy", "x")),
    goals=(Goal("makespan ≤ 1.05 times the lower bound", "over_bound", at_most=1.05),),
    sizes={
        "full": {"tasks": 64, "milliseconds": 8_000},
        "quick": {"tasks": 64, "milliseconds": 1_000},
        "tiny": {"tasks": 8, "milliseconds": 40},
    },
    note=f"Sigma {SIGMA}, ascending, 8 s of CPU in all; a task is over when it has used its "
    "seconds of a core, so the bound max(sum / workers, longest) is exact. Greedy: a free worker "
    "takes the next task at no cost, which is the best without knowing the lengths beforehand; on "
    f"2 workers it ends at {IDEAL:.3f} times the bound. bare processes: forked, the work dealt out "
    "beforehand as greedy would: what the machine gives.",
)

SKEWED_IDEAL = greedy(skewed(51, 1), 2) / lower_bound(skewed(51, 1), 2)

SKEWED = Case(
    name="longest-first",
    title="48 short and 3 long CPU tasks, the long ones last, of known cost",
    measure=measure_skewed,
    entrants=ENTRANTS,
    metrics=(Metric("over_bound", "x"), Metric("over_greedy", "x")),
    goals=(
        Goal("no slower than a dynamic order at no cost", "over_greedy", at_most=1.0),
        Goal("no slower than fanfold without costs", "over_bound", at_most=1.0, against="fanfold"),
    ),
    sizes={
        "full": {"tasks": 51, "milliseconds": 8_000},
        "quick": {"tasks": 51, "milliseconds": 1_000},
        "tiny": {"tasks": 8, "milliseconds": 40},
    },
    note="Three tasks take half of 8 s together, and come last. Greedy: a free worker takes the "
    f"next task at no cost, in the order given; on 2 workers it ends at {SKEWED_IDEAL:.3f} times "
    "the bound max(sum / workers, longest). fanfold longest first is told the length of each task.",
    subject="fanfold longest first",
)
