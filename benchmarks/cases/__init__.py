"""The cases: one file for each row of the table of speeds."""

from __future__ import annotations

from benchmarks.cases import (
    driver_memory,
    durable,
    imports,
    large_function,
    large_results,
    makespan,
    million,
    round_trip,
    scaling,
    startup,
    submits,
)

CASES = {
    case.name: case
    for case in (
        submits.CASE,
        round_trip.CASE,
        million.CASE,
        makespan.CASE,
        large_function.CASE,
        large_function.LARGER,
        large_results.CASE,
        startup.CASE,
        scaling.CASE,
        imports.CASE,
        driver_memory.CASE,
        durable.OVERHEAD,
        durable.RATE,
        durable.REPLAY,
    )
}
