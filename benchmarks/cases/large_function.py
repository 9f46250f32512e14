"""Tasks over a `functools.partial` that holds a large array: how often is it copied."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check, entrants
from benchmarks.contenders import Contender
from benchmarks.memory import TreePeak, tree_memory
from benchmarks.tasks import add, numbers, pick


def measure(entrant: Entrant, workers: int, tasks: int, megabytes: int) -> Sample:
    with entrant.pool(workers) as pool:
        pool.warm()
        before = tree_memory()
        array = numbers(megabytes)
        indices = [task * (len(array) // tasks) for task in range(tasks)]
        with Clock() as clock:
            results = pool.map(partial(pick, array), indices)
        check(results, map(float, indices))
        copies = (_peak_while_reading(pool, array, workers) - before) / array.nbytes
    return {"time": clock.seconds, "copies": copies}


def _peak_while_reading(pool: Contender, array: Any, workers: int) -> int:
    """Bytes that the whole tree of processes holds at most while every worker reads the array."""
    whole = partial(add, array)
    with TreePeak() as tree:
        results = pool.map(whole, range(4 * workers))
    check(results, map(whole, range(4 * workers)))
    return tree.peak


def _case(megabytes: int, by_default: bool) -> Case:
    return Case(
        name=f"partial-{megabytes}",
        title=f"200 tasks over a `partial` holding {megabytes} MB",
        measure=measure,
        entrants=entrants(),
        metrics=(Metric("time", "s"), Metric("copies", "")),
        goals=(
            Goal("≤ 0.8 of the time of joblib's memmap", "time", at_most=0.8, against="joblib"),
            Goal("one copy per machine in memory, beside the driver's own", "copies", at_most=2.2),
        ),
        sizes={
            "full": {"tasks": 200, "megabytes": megabytes},
            "quick": {"tasks": 20, "megabytes": megabytes // 10},
            "tiny": {"tasks": 4, "megabytes": 2},
        },
        note="Time: every task reads one number. Copies: apart from it, every task reads the whole "
        "array, and the memory of the process tree (PSS) grows by so many times its size, the "
        "driver's own array included. dask scatters the function first, ray puts it into its "
        "store first; the others are given the partial as it is.",
        by_default=by_default,
    )


CASE = _case(100, by_default=True)
LARGER = _case(800, by_default=False)
