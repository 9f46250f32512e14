"""What very many tasks cost the driver in memory."""

from __future__ import annotations

from benchmarks.cases.base import Case, Entrant, Goal, Metric, Sample, check, tuned
from benchmarks.memory import peak_resident
from benchmarks.tasks import same


def measure(entrant: Entrant, workers: int, tasks: int) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        before = peak_resident()
        results = pool.map(same, range(tasks), chunk=entrant.chunk)
        peak = peak_resident()
    check(results, range(tasks))
    return {"peak": peak, "growth": peak - before}


CASE = Case(
    name="driver-memory",
    title="driver memory for 1 000 000 tasks",
    measure=measure,
    entrants=(
        *(Entrant(name) for name in ("fanfold", "multiprocessing.Pool", "joblib", "mpire")),
        *tuned("ProcessPoolExecutor", 5_000),
        *tuned("loky", 5_000),
    ),
    metrics=(Metric("peak", "B"), Metric("growth", "B")),
    goals=(Goal("≤ Pool.map's", "peak", at_most=1, against="multiprocessing.Pool"),),
    sizes={"full": {"tasks": 1_000_000}, "quick": {"tasks": 50_000}, "tiny": {"tasks": 500}},
    note="The driver's largest resident size; the results alone are a list of a million "
    "ints. Who sends every task for itself at its defaults takes part with chunks, or not at all.",
)
