"""One task after another: how long nothing takes, there and back."""

from __future__ import annotations

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.tasks import same


def measure(entrant: Entrant, workers: int, trips: int) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            results = [pool.round_trip(same, item) for item in range(trips)]
    check(results, range(trips))
    return {"time": clock.seconds / trips}


CASE = Case(
    name="round-trip",
    title="one `submit(...).result()` after another",
    measure=measure,
    entrants=entrants("socketpair"),
    metrics=(Metric("time", "s"),),
    goals=(
        Goal(
            "≤ 1/5 of ProcessPoolExecutor's time",
            "time",
            at_most=0.2,
            against="ProcessPoolExecutor",
        ),
        Goal("≤ 4 times a raw socketpair ping-pong", "time", at_most=4, against="socketpair"),
    ),
    sizes={"full": {"trips": 2_000}, "quick": {"trips": 200}, "tiny": {"trips": 20}},
    note="socketpair: eight bytes to a forked process and back, no task in it. joblib has no "
    "submit: one call of `Parallel` with one task.",
)
