"""What it costs not to choose: ``on="auto"`` beside the best place, chosen by hand.

    python -m benchmarks.cases.regret [WORKLOAD ...]      who was how fast, for each workload

Every map is a measurement for itself, with workers of its own, in a program of its own: all
libraries are imported there, and nothing has been started. A contender at a time, in a new random
order each round; after the first round only those go on that could still be the best. Who is the
best by these rounds then runs in turn with ``on="auto"``, and only those later rounds count: of 17
contenders the one with the luckiest three rounds is not as fast as these three.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, util
from operator import truediv
from statistics import geometric_mean, median
from typing import Any, NamedTuple

from benchmarks import tasks, work
from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, WrongAnswerError
from benchmarks.quiet import Cores

Work = Callable[[Any], Any]
Way = Callable[[Work, Sequence[Any]], list[Any]]

CLOSE = 1.4  # times the best of the first round: who took longer is out
KEPT = ("fanfold auto", "fanfold serial")
PROBING = 0.005  # seconds that finding out may cost where it is more than 1 %
READY = b"ready"
LARGE = 2  # the most that maps of large values are made longer: all of them lie in memory


# The workloads


@dataclass(frozen=True)
class Workload:
    """``items`` makes the inputs for a share of the full size."""

    name: str
    func: Work
    items: Callable[[float], Sequence[Any]]


def times(number: int, item: Any) -> Callable[[float], Sequence[Any]]:
    return lambda share: [item] * max(1, round(share * number))


def numbered(number: int) -> Callable[[float], Sequence[Any]]:
    return lambda share: range(max(1, round(share * number)))


def skewed(share: float) -> Sequence[int]:
    """A long one first, then many short ones."""
    return [round(8_000_000 * share), *[60_000] * round(200 * share)]


def codes(share: float) -> Sequence[int]:
    return range(90_000, 90_000 + round(200 * share))


def arrays(share: float) -> Sequence[Any]:
    return [tasks.numbers(8) for _ in range(max(1, round(min(share, LARGE) * 200)))]


def large_results(share: float) -> Sequence[int]:
    return range(max(1, round(min(share, LARGE) * 200)))


def single(share: float) -> Sequence[int]:
    return [round(6_000_000 * share)]


WORKLOADS = (
    Workload("tiny", tasks.same, numbered(400_000)),
    Workload("short", tasks.count, times(28, 10_000)),
    Workload("python", tasks.count, times(400, 40_000)),
    Workload("long python", tasks.count, times(8, 2_000_000)),
    Workload("numpy", work.sort, numbered(80)),
    Workload("waiting", work.nap, times(60, 0.05)),
    Workload("short waits", work.nap, times(600, 0.003)),
    Workload("mixed", work.compute_and_wait, times(80, 80_000)),
    Workload("large inputs", tasks.total, arrays),
    Workload("large results", work.blocks, large_results),
    Workload("skewed", tasks.count, skewed),
    Workload("memory", work.stream, numbered(150)),
    Workload("one task", tasks.count, single),
    Workload("failing", work.fail_or_count, codes),
)


# The ways to do it


def auto(func: Work, items: Sequence[Any]) -> list[Any]:
    found: list[Any] = import_module("fanfold").map(func, items, progress=False)
    return found


def fanfold(on: str, workers: int) -> Way:
    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        library = import_module("fanfold")
        found: list[Any] = library.map(func, items, on=on, workers=workers, progress=False)
        return found

    return way


def multiprocessing_pool(workers: int, chunks: int | None) -> Way:
    """``chunks`` of each worker; None: as the pool would have it."""

    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        size = None if chunks is None else max(1, len(items) // (chunks * workers))
        with import_module("multiprocessing").Pool(workers) as pool:
            found: list[Any] = pool.map(func, items, chunksize=size)
            pool.close()
            pool.join()
        return found

    return way


def futures(kind: str, workers: int, chunks: int) -> Way:
    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        size = max(1, len(items) // (chunks * workers))
        with getattr(import_module("concurrent.futures"), kind)(workers) as pool:
            return list(pool.map(func, items, chunksize=size))

    return way


def thread_pool(workers: int) -> Way:
    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        with import_module("multiprocessing.pool").ThreadPool(workers) as pool:
            return list(pool.map(func, items))

    return way


def joblib(backend: str, workers: int) -> Way:
    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        library = import_module("joblib")
        delayed = library.delayed(func)
        found: list[Any] = library.Parallel(workers, backend=backend)(map(delayed, items))
        if backend == "loky":
            import_module("joblib.externals.loky").get_reusable_executor().shutdown()
        return found

    return way


def mpire(workers: int) -> Way:
    def way(func: Work, items: Sequence[Any]) -> list[Any]:
        with import_module("mpire").WorkerPool(workers) as pool:
            found: list[Any] = pool.map(func, items, concatenate_numpy_output=False)
        return found

    return way


def ways(workers: int) -> dict[str, Way]:
    """Everybody, as one would set them by hand. One worker is what "serial" stands for."""
    many = 60
    known: dict[str, Way] = {
        "fanfold auto": auto,
        "fanfold serial": fanfold("serial", 1),
        "fanfold threads": fanfold("threads", workers),
        f"fanfold threads {many}": fanfold("threads", many),
        "fanfold processes": fanfold("processes", workers),
        "Pool": multiprocessing_pool(workers, None),
        "Pool, chunk 1": multiprocessing_pool(workers, 1 << 30),
        "Pool, one chunk each": multiprocessing_pool(workers, 1),
        "ProcessPoolExecutor": futures("ProcessPoolExecutor", workers, 8),
        "ProcessPoolExecutor, chunk 1": futures("ProcessPoolExecutor", workers, 1 << 30),
        "ThreadPoolExecutor": futures("ThreadPoolExecutor", workers, 8),
        f"ThreadPoolExecutor {many}": futures("ThreadPoolExecutor", many, 8),
        "ThreadPool": thread_pool(workers),
        f"ThreadPool {many}": thread_pool(many),
    }
    if util.find_spec("joblib"):
        known["joblib loky"] = joblib("loky", workers)
        known["joblib threads"] = joblib("threading", workers)
        known[f"joblib threads {many}"] = joblib("threading", many)
    if util.find_spec("mpire"):
        known["mpire"] = mpire(workers)
    return known


# Measuring


def prepare() -> None:
    """Import what the ways would import, and start nothing."""
    for name in ("numpy", "multiprocessing.pool", "concurrent.futures", "fanfold.api"):
        import_module(name)
    for name in ("concurrent.futures.process", "concurrent.futures.thread", "joblib", "mpire"):
        if util.find_spec(name.partition(".")[0]):
            import_module(name)
    for name in ("auto.executor", "serial", "threads", "processes"):
        import_module(f"fanfold.executors.{name}")


def plain(func: Work, items: Sequence[Any]) -> list[Any]:
    return [func(item) for item in items]


def started_apart(
    name: str, share: float, way: str, workers: int
) -> Callable[[], tuple[float, bytes] | None]:
    """A program of its own that is ready for a map; called, it gives the seconds that the map takes
    and the `digest` of its results, or None when it fails. (A forked copy of this one would pay for
    each page of it that the way touches.)"""
    script = "from benchmarks.cases.regret import measure_here; measure_here()"
    command = [sys.executable, "-c", script, name, str(share), way, str(workers)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.read(len(READY))

    def measure() -> tuple[float, bytes] | None:
        said, _ = program.communicate(b"go")
        return pickle.loads(said) if said else None

    return measure


def measure_here() -> None:
    """The same in this program, as its arguments say."""
    name, share, way, workers = sys.argv[1:]
    prepare()
    workload = next(one for one in WORKLOADS if one.name == name)
    items, known = workload.items(float(share)), {"plain": plain, **ways(int(workers))}
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    sys.stdin.read()
    with Clock() as clock:
        found = known[way](workload.func, items)
    sys.stdout.buffer.write(pickle.dumps((clock.seconds, digest(found))))


def digest(values: Sequence[Any]) -> bytes:
    """Of results, so that large ones need not be kept to compare."""
    arrays = [value.sum() if hasattr(value, "sum") else value for value in values]
    return hashlib.sha256(pickle.dumps([float(value) for value in arrays])).digest()


class Race(NamedTuple):
    """The seconds of all who were near the best, in the rounds that find it, and then those of the
    best and of those kept, round by round."""

    qualifying: dict[str, list[float]]
    best: str
    final: dict[str, list[float]]


def race(
    workload: Workload,
    share: float,
    rounds: int,
    finals: int,
    workers: int,
    cores: Cores,
    order: random.Random,
    others: int | None = None,
) -> Race:
    """``rounds`` to find the best, and ``finals``; of others than those kept, ``others`` start."""
    right = started_apart(workload.name, share, "plain", workers)()

    def measured(name: str) -> float:
        found = cores.measured(partial(started_apart, workload.name, share, name, workers))
        if found is None or right is None or found[1] != right[1]:
            raise WrongAnswerError(f"{workload.name}: {name} gave no right answer")
        return found[0]

    starting = list(ways(workers))
    if others is not None:
        starting = [*KEPT, *order.sample([name for name in starting if name not in KEPT], others)]
    near = turns(starting, 1, measured, order)
    limit = CLOSE * min(seconds for [seconds] in near.values())
    near = {name: times for name, times in near.items() if name in KEPT or times[0] < limit}
    for name, times in turns(list(near), rounds - 1, measured, order).items():
        near[name] += times
    by_time = sorted(near, key=lambda name: median(near[name]))
    best = next(name for name in by_time if name != "fanfold auto")
    final = turns(list(dict.fromkeys([*KEPT, best])), finals, measured, order)
    return Race(near, best, final)


def turns(
    names: Sequence[str], rounds: int, measured: Callable[[str], float], order: random.Random
) -> dict[str, list[float]]:
    """Everybody's seconds, in rounds of a random order; who is wrong once has none."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in order.sample(list(seconds), len(seconds)):
            try:
                seconds[name].append(measured(name))
            except WrongAnswerError as error:
                if name in KEPT:
                    raise
                print(error, file=sys.stderr)
                del seconds[name]
    return seconds


def regret(race: Race) -> float:
    """How many times as long as the best on="auto" took: the median of the rounds."""
    return median(map(truediv, race.final["fanfold auto"], race.final[race.best]))


def probing(race: Race) -> float:
    """What finding out costs where nothing is to be gained, over what it may cost."""
    ours, serial = (median(race.final[name]) for name in KEPT)
    return (ours - serial) / max(PROBING, 0.01 * serial)


def measure(
    entrant: Entrant,
    workers: int,
    percent: int,
    rounds: int,
    finals: int,
    others: int | None,
    patience: int,
) -> Sample:
    prepare()
    order = random.Random(0)
    with Cores(patience) as cores:
        races = {
            one.name: race(one, percent / 100, rounds, finals, workers, cores, order, others)
            for one in WORKLOADS
        }
    ratios = {name: regret(one) for name, one in races.items()}
    cost = max(probing(races[name]) for name in ("one task", "short"))
    return {"mean": geometric_mean(ratios.values()), "worst": max(ratios.values()),
            "probing": cost, "quiet": cores.quiet, **ratios}  # fmt: skip


def case(name: str, title: str, percent: int, note: str) -> Case:
    """The workloads, ``percent`` of their length."""
    return Case(
        name=name,
        title=title,
        measure=measure,
        entrants=(Entrant("fanfold"),),
        metrics=(
            Metric("mean", "x"),
            Metric("worst", "x"),
            Metric("probing", "x"),
            Metric("quiet", "", more=True),
            *(Metric(workload.name, "x") for workload in WORKLOADS),
        ),
        goals=(
            Goal("geometric mean of the regrets ≤ 1.05", "mean", at_most=1.05),
            *(
                Goal(f"regret, {workload.name} ≤ 1.10", workload.name, at_most=1.1)
                for workload in WORKLOADS
            ),
            Goal("finding out costs at most 1 % or 5 ms (of that)", "probing", at_most=1),
        ),
        sizes={
            "full": {
                "percent": percent,
                "rounds": 3,
                "finals": 9,
                "others": None,
                "patience": 2400,
            },
            "quick": {
                "percent": percent // 4,
                "rounds": 3,
                "finals": 3,
                "others": None,
                "patience": 300,
            },
            "tiny": {"percent": 2, "rounds": 1, "finals": 1, "others": 1, "patience": 0},
        },
        note=note,
        by_default=False,
    )


CASE = case(
    "regret",
    'on="auto" beside the best of everybody, tuned by hand: maps of 10 to 500 ms',
    100,
    'The time of on="auto" over that of the best of: serial, threads and processes of fanfold, a '
    "plain map, multiprocessing.Pool and ThreadPool, ProcessPoolExecutor and ThreadPoolExecutor, "
    "joblib with loky and with threads, mpire; with 2 workers or 60 threads, and chunks as each "
    "has them, of one task, or one for each worker. Three rounds find the best, nine more of the "
    "two in turn count. Everybody starts and ends its workers within the time, in a program of its "
    "own that has imported the libraries; Pool and ProcessPoolExecutor fork, and find them "
    "imported. What began or ended while a neighbour of this virtual machine slowed a core is "
    "measured again, as long as 40 minutes in all last; quiet is the share that was not so.",
)
LONG_CASE = case(
    "regret-long",
    'on="auto" beside the best of everybody, tuned by hand: maps four times as long',
    400,
    "The same with four times as many tasks (of large inputs and large results twice as many), or "
    "a task four times as long where there is one.",
)


def main(names: Sequence[str]) -> None:
    """Show who was how fast."""
    prepare()
    for workload in WORKLOADS:
        if names and workload.name not in names:
            continue
        with Cores(patience=300) as cores:
            found = race(workload, 1.0, 3, 9, 2, cores, random.Random(0))
        print(f"{workload.name}: {regret(found):.3f} times {found.best} ({cores.quiet:.0%} quiet)")
        for name, times in sorted(found.qualifying.items(), key=lambda entry: median(entry[1])):
            shown = " ".join(f"{1000 * one:.1f}" for one in times)
            print(f"    {1000 * median(times):8.1f} ms  {name}  ({shown})", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
