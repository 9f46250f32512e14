"""Results that are large."""

from __future__ import annotations

from functools import partial

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.tasks import block

A_NUMBER_EACH_PAGE = slice(None, None, 4096 // 8)


def measure(entrant: Entrant, workers: int, results: int, megabytes: int) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as clock:
            blocks = pool.map(partial(block, megabytes=megabytes), range(results))
            means = [float(found[A_NUMBER_EACH_PAGE].mean()) for found in blocks]
        check(means, map(float, range(results)))
        check((found.nbytes for found in blocks), [megabytes * 1_000_000] * results)
        del blocks  # a store of the pool's own may hold them: release them before it closes
    return {"time": clock.seconds}


CASE = Case(
    name="large-results",
    title="60 results of 20 MB",
    measure=measure,
    entrants=entrants("threads"),
    metrics=(Metric("time", "s"),),
    goals=(Goal("≤ 0.4 of the time of loky", "time", at_most=0.4, against="loky"),),
    sizes={
        "full": {"results": 60, "megabytes": 20},
        "quick": {"results": 8, "megabytes": 20},
        "tiny": {"results": 3, "megabytes": 2},
    },
    note="All results are kept, and the driver reads a number of every page of them: a mapping "
    "that is not there yet would be no result. threads: nothing travels, the limit.",
)
