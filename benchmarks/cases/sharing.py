"""One memory for many workers: a large array that all of them read, a counter they all add to."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing import Value
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from benchmarks import sharers
from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check
from benchmarks.contenders import Contender
from benchmarks.memory import TreePeak, tree_memory
from benchmarks.tasks import numbers

Share = Callable[[Any], tuple[bytes, Callable[[], None]]]
"""Shares an array: a pickled handle, and what frees it."""

ENTRANTS = (Entrant("fanfold"), Entrant("multiprocessing.Pool"))

# The counter --------------------------------------------------------------------------------------


def measure_counter(entrant: Entrant, workers: int, counting: int, adds: int) -> Sample:
    """``counting`` workers add 1 ``adds`` times each: by the quickest way there is, then by
    reading and writing under the lock."""
    if entrant.contender == "fanfold":
        import fanfold as ff

        counter: Any = ff.SharedValue(0)
        sent, quickly, locked = counter, sharers.add_quickly, sharers.add_locked
    else:
        sharers.inherited = counter = Value("q", 0)
        sent, quickly, locked = None, sharers.add_inherited, sharers.add_inherited
    with entrant.pool(counting) as pool:
        pool.warm()
        _rate(pool, quickly, sent, counter, 4 * counting, 100)  # all is imported
        return {
            "rate": _rate(pool, quickly, sent, counter, counting, adds),
            "locked": _rate(pool, locked, sent, counter, counting, max(1, adds // 10)),
        }


def _rate(
    pool: Contender, add: Callable[..., None], sent: Any, counter: Any, tasks: int, adds: int
) -> float:
    before = counter.value
    with Clock() as clock:
        pool.map(add, [(sent, adds)] * tasks, chunk=1)
    check([counter.value - before], [tasks * adds])
    return tasks * adds / clock.seconds


COUNTER = Case(
    name="shared-counter",
    title="8 workers add 1 to a counter, 100 000 times each",
    measure=measure_counter,
    entrants=ENTRANTS,
    metrics=(Metric("rate", "/s", more=True), Metric("locked", "/s", more=True)),
    goals=(
        Goal(
            "≥ 2 times the rate of multiprocessing.Value with its lock",
            "rate",
            at_least=2.0,
            against="multiprocessing.Pool",
        ),
    ),
    sizes={
        "full": {"counting": 8, "adds": 100_000},
        "quick": {"counting": 8, "adds": 10_000},
        "tiny": {"counting": 2, "adds": 100},
    },
    note="The counter is exact, or there is no figure. Rate: by `SharedValue.add`. Locked: by "
    "`value += 1` under the lock, a tenth as often; `multiprocessing.Value` has that way alone.",
)

# The array ----------------------------------------------------------------------------------------


def measure_array(entrant: Entrant, workers: int, reading: int, megabytes: int) -> Sample:
    """Share an array with ``reading`` workers; each attaches to it, then reads it all."""
    share = _share if entrant.contender == "fanfold" else _share_by_hand
    with entrant.pool(reading) as pool:
        pool.warm()
        before = tree_memory()
        source = numbers(megabytes)
        compared = _compared(source, share)
        handle, forget = share(source)
        turns = [(handle, 0.05 * (1 + turn)) for turn in range(reading)]
        attached = pool.map(sharers.attach, turns, chunk=1)
        with TreePeak() as tree:
            sums = pool.map(sharers.add_up, [handle] * reading, chunk=1)
        check(sums, [float(source.sum())] * reading)
        forget()
    copies = (tree.peak - before) / source.nbytes - 1
    return {"share": compared, "attach": max(attached), "copies": copies}


def _compared(source: Any, share: Share) -> float:
    """The best time of sharing over the best of a copy, in turn: a virtual machine may first have
    to be given its memory."""
    import numpy as np

    copying, sharing = [], []
    for _ in range(4):
        with Clock() as clock:
            np.copyto(np.empty_like(source), source)
        copying.append(clock.seconds)
        with Clock() as clock:
            _, forget = share(source)
        sharing.append(clock.seconds)
        forget()
    return min(sharing) / min(copying)


def _share(source: Any) -> tuple[bytes, Callable[[], None]]:
    import fanfold as ff

    shared = ff.share(source)
    return pickle.dumps(shared), shared.close


def _share_by_hand(source: Any) -> tuple[bytes, Callable[[], None]]:
    """As the documentation of `multiprocessing.shared_memory` does."""
    import numpy as np

    memory = SharedMemory(create=True, size=source.nbytes)
    np.copyto(np.ndarray(source.shape, source.dtype, buffer=memory.buf), source)

    def forget() -> None:
        memory.close()
        memory.unlink()

    return pickle.dumps(memory), forget


ARRAY = Case(
    name="shared-array",
    title="share 800 MB with 8 workers, each reads it all",
    measure=measure_array,
    entrants=ENTRANTS,
    metrics=(Metric("share", "x"), Metric("attach", "s"), Metric("copies", "")),
    goals=(
        Goal("≤ 1.1 of a copy into fresh memory", "share", at_most=1.1),
        Goal("a worker attaches in ≤ 10 ms", "attach", at_most=0.010),
        Goal("one copy in memory, beside the driver's own", "copies", at_most=1.1),
    ),
    sizes={
        "full": {"reading": 8, "megabytes": 800},
        "quick": {"reading": 8, "megabytes": 80},
        "tiny": {"reading": 2, "megabytes": 2},
    },
    note="Share: the time of sharing over that of `numpy.copyto` into fresh memory, the best of "
    "four each. Attach: the slowest worker, from a pickled handle to the first number, what it has "
    "to import included, one after the other. Copies: what the memory of the process tree (PSS) "
    "grows by while all read, in sizes of the array, its source excepted. multiprocessing.Pool: "
    "with `multiprocessing.shared_memory`.",
)
