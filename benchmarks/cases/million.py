"""A map of nothing over very many inputs, with nothing tuned."""

from __future__ import annotations

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
from benchmarks.tasks import same

ONE_BY_ONE = {
    Entrant("ProcessPoolExecutor"),
    Entrant("loky"),
    Entrant("dask.distributed"),
    Entrant("ray"),
}
PART = 50


def measure(entrant: Entrant, workers: int, tasks: int) -> Sample:
    count = tasks // PART if entrant in ONE_BY_ONE else tasks
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            results = pool.map(same, range(count), chunk=entrant.chunk)
    check(results, range(count))
    return {"rate": count / clock.seconds}


CASE = Case(
    name="million",
    title="`map` of a no-op over 1 000 000 ints, nothing tuned",
    measure=measure,
    entrants=(
        *entrants(),
        *tuned("multiprocessing.Pool", 1_000, 5_000, 25_000, 250_000),
        *tuned("ProcessPoolExecutor", 5_000),
        *tuned("loky", 5_000),
        *tuned("joblib", 5_000),
        *tuned("mpire", 5_000),
    ),
    metrics=(Metric("rate", " tasks/s", more=True),),
    goals=(
        Goal(
            "≥ Pool.map with its best chunk size",
            "rate",
            at_least=1,
            against="multiprocessing.Pool",
            tuned=True,
        ),
        Goal("≥ 20 times joblib", "rate", at_least=20, against="joblib"),
    ),
    sizes={"full": {"tasks": 1_000_000}, "quick": {"tasks": 50_000}, "tiny": {"tasks": 500}},
    note=f"Who sends every task for itself does 1/{PART} of the tasks; its rate is the same.",
)
