"""What things cost that the course tells of, where no other case measures it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import cast

from benchmarks.cases.base import Case, Clock, Entrant, Metric, Sample, check
from benchmarks.contenders import Fanfold
from benchmarks.engines import DirectView, FanfoldOnEngines
from benchmarks.memory import tree_memory
from benchmarks.queues import private_slurm
from benchmarks.tasks import same
from benchmarks.ways import WAYS, Dask, HandIn, Ranks

__all__ = ["CASES"]

IDLE = "import numpy; print('ready', flush=True); input()"  # a process that a job may have


def hand_in(entrant: Entrant, workers: int, jobs: int) -> Sample:
    """One job that does nothing, and many: accepted by Slurm, and ended there."""
    way = cast(HandIn, entrant.pool(workers))
    with tempfile.TemporaryDirectory() as name, private_slurm(Path(name)):
        folder = Path(name)
        with Clock() as one:
            way.hand_in(1, folder)
            way.wait()
        with Clock() as ended:
            with Clock() as handed:
                way.hand_in(jobs, folder)
            way.wait()
    return {"one": one.seconds, "handed": handed.seconds, "ended": ended.seconds}


def ranks(entrant: Entrant, workers: int, messages: int) -> Sample:
    """Three ranks that have nothing to say; then two that throw a ball."""
    way = cast(Ranks, entrant.pool(workers))
    with Clock() as start:
        way.run(3, 0)
    return {"start": start.seconds, **way.run(2, messages)}


def dask_jobs(entrant: Entrant, workers: int) -> Sample:
    """From nothing to the first result, and the end of all of it."""
    way = cast(Dask, entrant.pool(workers))
    with tempfile.TemporaryDirectory() as name, private_slurm(Path(name)), Clock() as first:
        check([way.first(Path(name))], [1])
    return {"first": first.seconds}


def engines(entrant: Entrant, workers: int, engines: int) -> Sample:
    """From nothing to the first result; what all its processes then hold in memory."""
    pool = entrant.pool(engines)
    before = tree_memory()
    with Clock() as start:
        pool.start()
        check([pool.round_trip(same, 1)], [1])
    memory = tree_memory() - before
    pool.close()
    return {"start": start.seconds, "memory": memory}


def look(entrant: Entrant, workers: int, looks: int, processes: int) -> Sample:
    """A look of an element at itself and its processes; the file that a run leaves at its end."""
    from fanfold.history import Element
    from fanfold.runs.usage import Meter, write_summary

    seconds = []
    with ExitStack() as stack:
        for _ in range(processes):
            child = stack.enter_context(_idle())
            stack.callback(child.kill)
            assert child.stdout is not None
            child.stdout.readline()
        meter = Meter(cores=1)
        for _ in range(looks):
            with Clock() as clock:
                meter.sample()
            seconds.append(clock.seconds)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        element = Element(0, "process 1", 0, "n1", "done", 1, 1, None, None, seconds=1.0)
        with Clock() as summary:
            write_summary(folder, element, "r", 0)
    return {"look": median(seconds), "summary": summary.seconds}


def _idle() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _of(case: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(way.name) for way in WAYS if way.case == case)


CASES = (
    Case(
        name="hand-in",
        title="jobs that do nothing, handed in to Slurm",
        measure=hand_in,
        entrants=_of("hand-in"),
        metrics=(Metric("one", "s"), Metric("handed", "s"), Metric("ended", "s")),
        goals=(),
        sizes={"full": {"jobs": 100}, "quick": {"jobs": 20}, "tiny": {"jobs": 2}},
        note="one: a single job, from nothing to its end. handed: a hundred, until all are "
        "accepted; ended: until all have ended, or, of fanfold, until the results are here.",
        subject="fanfold run, an element a node",
    ),
    Case(
        name="ranks",
        title="an MPI program",
        measure=ranks,
        entrants=_of("ranks"),
        metrics=(Metric("start", "s"), Metric("message", "s"), Metric("object", "s")),
        goals=(),
        sizes={
            "full": {"messages": 20_000}, "quick": {"messages": 2_000}, "tiny": {"messages": 10}
        },
        note="start: three ranks, from nothing to their end. message: eight bytes from one rank to "
        "another on this machine; object: a small dict, pickled.",
        subject="fanfold mpi",
    ),
    Case(
        name="dask-jobs",
        title="a Dask cluster of two jobs on Slurm",
        measure=dask_jobs,
        entrants=_of("dask-jobs"),
        metrics=(Metric("first", "s"),),
        goals=(),
        sizes={"full": {}, "quick": {}, "tiny": {}},
        note="From nothing to the first result, and to the end of the cluster; Slurm is idle.",
        subject="ff.dask_cluster",
    ),
    Case(
        name="engine-start",
        title="a controller and four IPython engines",
        measure=engines,
        entrants=(Entrant(FanfoldOnEngines.name), Entrant(DirectView.name)),
        metrics=(Metric("start", "s"), Metric("memory", "B")),
        goals=(),
        sizes={"full": {"engines": 4}, "quick": {"engines": 4}, "tiny": {"engines": 1}},
        note="start: from nothing to the first result. memory: of all processes but the program's "
        "own (PSS), and what that one has grown by.",
        subject=FanfoldOnEngines.name,
    ),
    Case(
        name="look",
        title="what it costs to know what a job uses",
        measure=look,
        entrants=(Entrant(Fanfold.name),),
        metrics=(Metric("look", "s"), Metric("summary", "s")),
        goals=(),
        sizes={
            "full": {"looks": 50, "processes": 4},
            "quick": {"looks": 10, "processes": 4},
            "tiny": {"looks": 2, "processes": 1},
        },
        note="look: at an element with four processes more, once a second. summary: to load what "
        "it needs, and to write the file that a run on one machine leaves at its end.",
    ),
)  # fmt: skip
