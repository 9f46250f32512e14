"""Pure Python work: what a second worker is worth."""

from __future__ import annotations

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.tasks import count


def measure(entrant: Entrant, workers: int, tasks: int, steps: int) -> Sample:
    alone = _seconds(entrant, 1, tasks, steps)
    together = _seconds(entrant, workers, tasks, steps)
    return {"speedup": alone / together, "time": together}


def _seconds(entrant: Entrant, workers: int, tasks: int, steps: int) -> float:
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            results = pool.map(count, [steps] * tasks)
    check(results, [count(steps)] * tasks)
    return clock.seconds


CASE = Case(
    name="scaling",
    title="pure-Python CPU work, 2 workers",
    measure=measure,
    entrants=entrants("bare processes"),
    metrics=(Metric("speedup", "x", more=True), Metric("time", "s")),
    goals=(Goal("≥ 1.95 times one worker", "speedup", at_least=1.95),),
    sizes={
        "full": {"tasks": 200, "steps": 400_000},
        "quick": {"tasks": 40, "steps": 200_000},
        "tiny": {"tasks": 4, "steps": 100},
    },
    note="Each contender against itself with one worker, in the same process. bare processes: "
    "forked, the work dealt out beforehand; what the machine gives.",
)
