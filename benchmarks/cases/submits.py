"""Many submits of nothing: what a task costs."""

from __future__ import annotations

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.tasks import same


def measure(entrant: Entrant, workers: int, tasks: int) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            results = pool.submit_many(same, range(tasks))
    check(results, range(tasks))
    return {"rate": tasks / clock.seconds}


CASE = Case(
    name="submits",
    title="20 000 no-op `submit`, all results",
    measure=measure,
    entrants=entrants(),
    metrics=(Metric("rate", " tasks/s", more=True),),
    goals=(
        Goal(
            "≥ 10 times the rate of ProcessPoolExecutor",
            "rate",
            at_least=10,
            against="ProcessPoolExecutor",
        ),
        Goal("≥ 10 times the rate of loky", "rate", at_least=10, against="loky"),
    ),
    sizes={"full": {"tasks": 20_000}, "quick": {"tasks": 2_000}, "tiny": {"tasks": 50}},
)
