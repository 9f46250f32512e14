"""An engine of others through fanfold, and the same engine bare; and the engines side by side."""

from __future__ import annotations

from typing import cast

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check
from benchmarks.contenders import Contender, Dask, Fanfold
from benchmarks.engines import (
    ENGINES,
    BalancedView,
    DirectView,
    FanfoldOnDask,
    FanfoldOnEngines,
    FanfoldOnMPI,
    MPIPool,
)
from benchmarks.tasks import end_worker, hold, numbers, same, total

__all__ = ["DASK", "IPYTHON", "MPI", "PLACES"]


def measure(entrant: Entrant, workers: int, tasks: int, held: int, megabytes: int) -> Sample:
    """No-op tasks, tasks of 20 ms, and a task with a large argument; everything is warm."""
    with entrant.pool(workers) as pool:
        pool.warm()
        with Clock() as nothing:
            results = pool.map(same, range(tasks))
        check(results, range(tasks))
        with Clock() as holding:
            pool.map(hold, [0.02] * held)
        sending = []
        for times in (1, 2, 3, 4):
            array = numbers(megabytes) * times
            with Clock() as clock:
                result = pool.round_trip(total, array)
            check([result], [total(array)])
            sending.append(clock.seconds)
    return {
        "rate": tasks / nothing.seconds,
        "held": holding.seconds,
        "argument": min(sending[1:]),
    }


def _case(engine: str, ours: type[Contender], bare: type[Contender], *limits: str) -> Case:
    """``limits`` deal the tasks of a map out beforehand: nothing is faster for tasks that are all
    alike, and goals are for the argument alone."""
    goals = [
        Goal("≥ 5 times the rate of no-op tasks", "rate", at_least=5, against=bare.name),
        Goal("≤ 1.1 of the time of 20 ms tasks", "held", at_most=1.1, against=bare.name),
    ]
    goals += [
        Goal("≤ 1.1 of the time of a 100 MB argument", "argument", at_most=1.1, against=peer)
        for peer in (bare.name, *limits)
    ]
    return Case(
        name=f"engine-{engine}",
        title=f"{bare.name.partition(',')[0]}, bare and through fanfold",
        measure=measure,
        entrants=tuple(map(Entrant, (ours.name, bare.name, *limits))),
        metrics=(
            Metric("rate", " tasks/s", more=True),
            Metric("held", "s"),
            Metric("argument", "s"),
        ),
        goals=tuple(goals),
        sizes={
            "full": {"tasks": 10_000, "held": 200, "megabytes": 100},
            "quick": {"tasks": 2_000, "held": 50, "megabytes": 50},
            "tiny": {"tasks": 50, "held": 4, "megabytes": 2},
        },
        note="rate: a map of no-op tasks. held: a map of tasks that take 20 ms. argument: one task "
        "that adds up an array which it is given. The workers are those of this machine.",
        subject=ours.name,
    )


DASK = _case("dask", FanfoldOnDask, Dask)
MPI = _case("mpi", FanfoldOnMPI, MPIPool)
IPYTHON = _case("ipyparallel", FanfoldOnEngines, BalancedView, DirectView.name)


def compare(entrant: Entrant, workers: int, tasks: int, held: int, megabytes: int) -> Sample:
    """From nothing to the first result; then, with everything warm, as `measure` does; and what it
    adds to tasks of 10 ms that one of them ends its worker, twice, and fails."""
    pool = cast(Fanfold, entrant.pool(workers))
    with Clock() as starting:
        pool.start()
        check([pool.round_trip(same, 1)], [1])
    try:
        pool.warm()
        with Clock() as nothing:
            check(pool.map(same, range(tasks)), range(tasks))
        array = numbers(megabytes)
        pool.round_trip(total, array)
        array += 1
        with Clock() as sending:
            result = pool.round_trip(total, array)
        check([result], [total(array)])
        seconds = [0.01] * held
        with Clock() as whole:
            pool.map(hold, seconds)
        with Clock() as crashing:
            results = pool.library.map(
                end_worker, [*seconds, None], on=pool.pool, errors="return", progress=False
            )
        check(map(bool, results), [False] * held + [True])
    finally:
        pool.close()
    return {
        "start": starting.seconds,
        "task": 1e6 * nothing.seconds / tasks,
        "argument": sending.seconds,
        "crash": crashing.seconds - whole.seconds,
    }


PLACES = Case(
    name="places",
    title="The places side by side",
    measure=compare,
    entrants=(Entrant(Fanfold.name), *(Entrant(kind.name) for kind in ENGINES if kind.survives)),
    metrics=(
        Metric("start", "s"),
        Metric("task", " µs"),
        Metric("argument", "s"),
        Metric("crash", "s"),
    ),
    goals=(),
    sizes={
        "full": {"tasks": 10_000, "held": 200, "megabytes": 100},
        "quick": {"tasks": 2_000, "held": 50, "megabytes": 50},
        "tiny": {"tasks": 50, "held": 4, "megabytes": 2},
    },
    note="start: from nothing to the first result. task: of a map of no-op tasks. argument: one "
    "task that adds up an array of 100 MB. crash: what a task that kills its worker adds to a map.",
)
