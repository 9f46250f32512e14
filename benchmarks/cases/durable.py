"""Durable runs: what it costs to keep what is done, and to find it again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check
from benchmarks.keepers import KEEPERS, Keeper
from benchmarks.tasks import same


def measure_overhead(entrant: Entrant, workers: int, tasks: int) -> Sample:
    """From nothing, workers not started, until everything is done and kept."""
    keeper = cast(Keeper, entrant.pool(workers))
    with tempfile.TemporaryDirectory() as folder, keeper:
        with Clock() as clock:
            results = keeper.keep(same, range(tasks), Path(folder, "kept"))
        check(results(), range(tasks))
    return {"time": clock.seconds}


def measure_rate(entrant: Entrant, workers: int, tasks: int) -> Sample:
    """The same, and once more, when there is nothing left to do."""
    keeper = cast(Keeper, entrant.pool(workers))
    items = range(max(workers, int(tasks * keeper.share)))
    with tempfile.TemporaryDirectory() as folder, keeper:
        path = Path(folder, "kept")
        with Clock() as first:
            check(keeper.keep(same, items, path)(), items)
        with Clock() as again:
            check(keeper.keep(same, items, path)(), items)
    return {"rate": len(items) / first.seconds, "again": len(items) / again.seconds}


OVERHEAD = Case(
    name="run-overhead",
    title="100 000 no-op tasks, kept",
    measure=measure_overhead,
    entrants=(Entrant("fanfold run"), Entrant("fanfold map")),
    metrics=(Metric("time", "s"),),
    goals=(
        Goal("≤ 1.5 times the same map without a run", "time", at_most=1.5, against="fanfold map"),
    ),
    sizes={"full": {"tasks": 100_000}, "quick": {"tasks": 10_000}, "tiny": {"tasks": 100}},
    note="Each in a fresh driver, its modules loaded before, workers not started.",
    subject="fanfold run",
)

RATE = Case(
    name="runs",
    title="2 000 no-op tasks, kept",
    measure=measure_rate,
    entrants=tuple(Entrant(keeper.name) for keeper in KEEPERS if keeper.name != "fanfold map"),
    metrics=(Metric("rate", " tasks/s", more=True), Metric("again", " tasks/s", more=True)),
    goals=(),
    sizes={"full": {"tasks": 2_000}, "quick": {"tasks": 500}, "tiny": {"tasks": 20}},
    note="again: the same command when everything is done. submitit, whose every task is a job, "
    "does 1/50 of the tasks; GNU parallel runs `echo`, which is lighter than any Python.",
    subject="fanfold run",
)


def measure_replay(entrant: Entrant, workers: int, tasks: int) -> Sample:
    """A run of tasks that have a record each, as those that take their time do."""
    from fanfold.runs.state import read_state
    from fanfold.store.directory import RunDirectory

    run = cast(Keeper, entrant.pool(workers)).library.run
    with tempfile.TemporaryDirectory() as folder:
        begun = run(abs, range(tasks), name="r", folder=folder, on="serial", progress=False).wait()
        directory = RunDirectory.open(begun.path)
        _record_one_by_one(directory.journal(0, 1), tasks)
        with Clock() as replay:
            state = read_state(directory)
        check([state.done], [tasks])
        with Clock() as looking:
            status = begun.status()
        check([status.done], [tasks])
        files = sum(path.is_file() for path in begun.path.rglob("*"))
        return {"replay": replay.seconds, "status": looking.seconds, "files": files}


def _record_one_by_one(path: Path, tasks: int) -> None:
    """Write a journal anew, with a record for each task, as a recorder writes them."""
    from fanfold.store.journal import Journal, JournalWriter

    header = Journal(path).header
    path.unlink()
    with JournalWriter(path, header) as journal:
        for first in range(0, tasks, 200):
            done = min(first + 200, tasks)
            records: list[dict[str, object]] = [
                {
                    "is": "done", "first": index, "count": 1, "try": 1, "worker": "worker 1",
                    "place": [87 + 49 * index, 49],
                    "ran": [[1, 1795226327.1699, 6.4e-05, 8.7e-05, 14254080, 0, 7, 0, 0]],
                }
                for index in range(first, done)
            ]  # fmt: skip
            tally = {"is": "tally", "done": done, "failed": 0, "seconds": 1.0}
            journal.append([*records, tally])


REPLAY = Case(
    name="replay",
    title="a run of 1 000 000 records, opened again",
    measure=measure_replay,
    entrants=(Entrant("fanfold run"),),
    metrics=(Metric("replay", "s"), Metric("status", "s"), Metric("files", "")),
    goals=(
        Goal("replay < 5 s", "replay", at_most=5),
        Goal("`fanfold status` < 1 s", "status", at_most=1),
        Goal("under 100 files", "files", at_most=99),
    ),
    sizes={"full": {"tasks": 1_000_000}, "quick": {"tasks": 100_000}, "tiny": {"tasks": 1_000}},
    note="A record for each task, as tasks that take their time have them; tiny tasks share one.",
    subject="fanfold run",
)
