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


def measure(entrant: Entrant, workers: int, tasks: int, milliseconds: int) -> Sample:
    work = lengths(tasks, milliseconds / 1000)
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

CASE = Case(
    name="makespan",
    title="64 CPU tasks, log-normal lengths, in the worst order",
    measure=measure,
    entrants=(
        *entrants("bare processes"),
        *tuned("multiprocessing.Pool", 1),
        *tuned("joblib", 1),
        *tuned("mpire", 1),
    ),
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
