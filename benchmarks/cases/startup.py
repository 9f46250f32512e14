"""From nothing to the first result."""

from __future__ import annotations

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.tasks import same


def measure(entrant: Entrant, workers: int) -> Sample:
    pool = entrant.pool(workers)
    with Clock() as clock:
        pool.start()
        result = pool.round_trip(same, 1)
    pool.close()
    check([result], [1])
    return {"time": clock.seconds}


CASE = Case(
    name="startup",
    title="pool created → first result",
    measure=measure,
    entrants=entrants(),
    metrics=(Metric("time", "s"),),
    goals=(
        Goal("≤ forkserver ProcessPoolExecutor", "time", at_most=1, against="ProcessPoolExecutor"),
    ),
    sizes={"full": {}, "quick": {}, "tiny": {}},
    note="In a fresh driver, its library imported before. multiprocessing.Pool and mpire fork.",
)
