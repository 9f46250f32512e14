"""Job arrays on a real Slurm: what is lost between the work and its end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import cast

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check
from benchmarks.queues import NODES, QUEUES, OnSlurm, empty_array, private_slurm
from benchmarks.tasks import spin


def measure(entrant: Entrant, workers: int, tasks: int) -> Sample:
    """From nothing until all results are here, an array's own start taken off."""
    contender = cast(OnSlurm, entrant.pool(workers))
    items = [0.01] * max(workers, int(tasks * contender.share))
    with tempfile.TemporaryDirectory() as folder, private_slurm(Path(folder)), contender:
        start = empty_array(NODES, Path(folder))
        with Clock() as clock:
            results = contender.spread(spin, items, Path(folder, "kept"))
        check(results, items)
    cores = os.cpu_count() or 1
    least = sum(items) / cores
    return {
        "rate": len(items) / clock.seconds,
        "over_work": (clock.seconds - start) / least,
        "start": start,
    }


CASE = Case(
    name="job-arrays",
    title="10 000 tasks of 10 ms on Slurm",
    measure=measure,
    entrants=tuple(Entrant(queue.name) for queue in QUEUES),
    metrics=(
        Metric("rate", " tasks/s", more=True),
        Metric("over_work", "x"),
        Metric("start", "s"),
    ),
    goals=(
        Goal(
            "≤ 1.25 times the work on all cores, and the array's start", "over_work", at_most=1.25
        ),
    ),
    sizes={"full": {"tasks": 10_000}, "quick": {"tasks": 2_000}, "tiny": {"tasks": 50}},
    note="A task uses 10 ms of a core. start: an array of as many elements, each `true`, which is "
    "taken off in over_work. submitit, whose every task is an element, does 1/50 of the tasks. "
    "Slurm takes the two cores of this machine for 16.",
    subject="fanfold on Slurm",
)
