"""What `fanfold advise` says, checked by running again with it on a real Slurm.

The Slurm is the private one of the tests, made strict: the kernel holds its jobs to their memory,
where it can. That takes root and control groups of version 1; elsewhere Slurm itself ends what it
finds above its memory, at a look a second.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.slurm.cluster import PrivateSlurm

from benchmarks.cases.base import Case, Entrant, Goal, Metric, Sample, WrongAnswerError, check

if TYPE_CHECKING:
    from fanfold import Run
    from fanfold.reports.next_time import NextTime

MB = 1 << 20
GROUPS = Path("/sys/fs/cgroup")
TOO_LARGE = f"'{sys.executable}' -c 'import time; _ = b\".\" * (400 << 20); time.sleep(9)'"
AT_WORK = ("PENDING", "RUNNING", "COMPLETING")

Need = tuple[float, int, float]
"""Of a task: seconds, megabytes, and the share of its time in which it computes."""


# Work ---------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Tasks in ``elements`` of so many ``workers`` each; the logarithm of their seconds spreads by
    ``spread``, that of their memory by ``uneven``; they compute for a share ``busy`` of the time.
    """

    tasks: int
    elements: int
    workers: int
    spread: float
    uneven: float
    busy: float

    @classmethod
    def drawn(cls, source: random.Random, most: int) -> Load:
        elements, workers = source.randint(1, 6), source.choice((1, 2, 4))
        each = int(4 * (most / 4) ** source.random())  # tasks of a worker: 4 to most, often few
        spreads = source.uniform(0.5, 1.2), source.uniform(0.2, 0.7)
        busy = source.choice((0.0, 0.1, 0.5))
        return cls(elements * workers * each, elements, workers, *spreads, busy)

    def needs(self, seed: int) -> list[Need]:
        """Fresh tasks: 0.05 to 1 s and 30 to 300 MB each."""
        draw = random.Random(seed).lognormvariate
        return [
            (
                min(1.0, max(0.05, 0.25 * draw(0, self.spread))),
                int(min(300, max(30, 90 * draw(0, self.uneven)))),
                self.busy,
            )
            for _ in range(self.tasks)
        ]


def hold(need: Need) -> int:
    """A task that has its memory from the first moment to the last."""
    seconds, megabytes, busy = need
    began = time.perf_counter()
    block = bytearray(megabytes * MB)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    while time.perf_counter() < began + busy * seconds:
        pass
    time.sleep(max(0.0, began + seconds - time.perf_counter()))
    return len(block) // MB


# A Slurm ------------------------------------------------------------------------------------------


class StrictSlurm(PrivateSlurm):
    """A private Slurm whose jobs cannot have more memory than they asked for; while it runs, it
    tells what has become of each of them.

    ``peaks`` are the most bytes that each job had, by the kernel's count.
    """

    def __init__(self, folder: Path) -> None:
        self.by_kernel = os.geteuid() == 0 and (GROUPS / "memory").is_dir()
        limit: dict[str, Any] = {"JobAcctGatherParams": "OverMemoryKill"}
        if self.by_kernel:
            limit = {"TaskPlugin": "task/cgroup"}
        first = os.getpid() % 60_000 * 1_000 + 1  # groups bear its number: nobody else's is near
        super().__init__(folder, **limit, FirstJobId=first, MinJobAge=3600)
        self.peaks: dict[str, int] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> StrictSlurm:
        super().__enter__()
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._watcher.join()
        super().__exit__(*error)

    def _configure(self) -> None:
        super()._configure()
        told = f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={GROUPS}\nConstrainRAMSpace=yes\n"
        (self.folder / "cgroup.conf").write_text(told)

    def _watch(self) -> None:
        """The kernel keeps the peak of a job for as long as the job is there."""
        while not self._over.wait(0.3):
            for job in GROUPS.glob("memory/slurm_n*/uid_*/job_*"):
                with suppress(OSError):
                    peak = int((job / "memory.max_usage_in_bytes").read_text())
                    self.peaks[job.name.removeprefix("job_")] = peak

    def submit(self, *options: str) -> str:
        """The number of a job."""
        return self._said("sbatch", "--parsable", "--output=/dev/null", *options)

    def prove(self, job: str, *states: str) -> None:
        """Raise `WrongAnswerError` unless a job that asked for too little ends as one of these."""
        state = self.ended([job])[job]
        if state not in states:
            raise WrongAnswerError(f"a job that asked for too little ended as {state}")

    def ended(self, arrays: Iterable[str]) -> dict[str, str]:
        """When all elements of these jobs have ended, the state of each by its number."""
        wanted = set(arrays)
        while True:
            lines = self._said("squeue", "--states=all", "--noheader", "--array", "-o%F %A %T")
            found = [line.split() for line in lines.splitlines() if line.count(" ") == 2]
            states = {job: state for array, job, state in found if array in wanted}
            if states and not any(state in AT_WORK for state in states.values()):
                return states
            time.sleep(0.2)


# Again --------------------------------------------------------------------------------------------


class Again(NamedTuple):
    """A run with what was advised: how many times the memory used was asked for; the walltime, and
    what the longest element took, in seconds; whether an element was ended by others."""

    memory: float
    walltime: float
    seconds: float
    killed: bool


def measure(entrant: Entrant, workers: int, runs: int, tasks: int, minute: int) -> Sample:
    source = random.Random(8)
    loads = [Load.drawn(source, tasks) for _ in range(runs)]
    with tempfile.TemporaryDirectory() as folder, StrictSlurm(Path(folder)) as slurm:
        os.environ |= slurm.environment
        slow = slurm.submit("--time=1", "--mem=100", "--wrap=sleep 600") if minute else None
        large = slurm.submit("--mem=300", f"--wrap={TOO_LARGE}")
        slurm.prove(large, "OUT_OF_MEMORY" if slurm.by_kernel else "FAILED")
        kept = Path(folder, "kept")
        first = [begun(kept, f"first-{n}", load, load.needs(2 * n)) for n, load in enumerate(loads)]
        advice = [run.wait().advise() for run in first]
        found = run_again(kept, loads, advice, slurm)
        if slow:
            slurm.prove(slow, "TIMEOUT")
    return {
        "memory": median(one.memory for one in found),
        "most_memory": max(one.memory for one in found),
        "killed": float(sum(one.killed for one in found)),
        "walltime": min(one.walltime for one in found),
        "seconds": max(one.seconds for one in found),
    }


def begun(
    folder: Path, name: str, load: Load, needs: list[Need], advised: NextTime | None = None
) -> Run:
    """A run with what was advised, or with plenty; nobody waits for it yet."""
    import fanfold as ff

    plenty = ff.Resources(cores=load.workers, memory=f"{340 * load.workers + 150}MB", walltime="1h")
    asked: dict[str, Any] = {"resources": plenty, "elements": load.elements}
    if advised:
        asked = {name: getattr(advised, name) for name in ("resources", "elements", "workers")}
    return ff.run(hold, needs, name=name, folder=folder, on="slurm", progress=False, **asked)


def run_again(
    folder: Path, loads: list[Load], advice: list[NextTime], slurm: StrictSlurm
) -> list[Again]:
    """Other tasks of the same kinds, each kind with the advice for it, all at the same time."""
    needs = [load.needs(2 * number + 1) for number, load in enumerate(loads)]
    runs = [
        begun(folder, f"again-{number}", load, fresh, advised)
        for number, (load, fresh, advised) in enumerate(zip(loads, needs, advice, strict=True))
    ]
    found = []
    for run, fresh, advised in zip(runs, needs, advice, strict=True):
        found.append(judged(run.wait(), advised, slurm))
        if not found[-1].killed:
            check(run.results(), [megabytes for _, megabytes, _ in fresh])
    return found


def judged(run: Run, advised: NextTime, slurm: StrictSlurm) -> Again:
    """What has become of a run: Slurm's word of its elements, and the kernel's of their memory."""
    from fanfold.reports.next_time import used_by
    from fanfold.reports.pieces import Pieces

    history = run.history()
    used = used_by(history, Pieces(history.pieces))
    states = slurm.ended(one.job for one in history.elements)
    told: list[float] = [slurm.peaks[job] for job in states if job in slurm.peaks]
    memory = max(told or [one.memory or 0 for one in used])
    asked = advised.resources
    return Again(
        (asked.memory or 0) / memory,
        asked.walltime or 0,
        max(one.seconds or 0.0 for one in used),
        set(states.values()) != {"COMPLETED"},
    )


CASE = Case(
    name="advice-slurm",
    title="runs again with what fanfold advise says, on Slurm",
    measure=measure,
    entrants=(Entrant("fanfold on Slurm"),),
    metrics=(
        Metric("memory", "x"),
        Metric("most_memory", "x"),
        Metric("killed", " runs"),
        Metric("walltime", "s"),
        Metric("seconds", "s"),
    ),
    goals=(
        Goal("no run of 20 is ended for its walltime or its memory", "killed", at_most=0),
        Goal("≤ 1.5 times the memory used is asked for", "memory", at_most=1.5),
    ),
    sizes={
        "full": {"runs": 20, "tasks": 30, "minute": 1},
        "quick": {"runs": 6, "tasks": 15, "minute": 0},
        "tiny": {"runs": 1, "tasks": 4, "minute": 0},
    },
    note="20 kinds of runs: 1 to 6 elements of 1, 2 or 4 workers, 4 to 30 tasks a worker, of "
    "log-normal times (0.05 to 1 s) and memory (30 to 300 MB). Each kind is run with plenty, and "
    "once more with what is advised then, with other tasks of the same kind. memory is what was "
    "asked for over the most that an element had, by the kernel's count, at the median and at the "
    "most. The kernel ends what has more than it asked for: a job that takes 400 MB of 300 shows "
    "it, before. walltime is the least that was advised, seconds the longest element: Slurm counts "
    "walltime in minutes, and the advice is 5 minutes more than was used, or over, so runs of "
    "seconds say nothing of how tight it is; the case `advice` does, in simulation. A job of a "
    "minute that sleeps for ten is ended, in the same Slurm.",
    by_default=False,
    subject="fanfold on Slurm",
)
