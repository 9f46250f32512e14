"""Measures the same work with more and more workers."""

from __future__ import annotations

import gc
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from time import perf_counter, sleep
from typing import Any, NamedTuple

from fanfold.api import reports
from fanfold.executors.base import Executor
from fanfold.executors.registry import make
from fanfold.resources import cores
from fanfold.studies.model import Mode
from fanfold.tasks import Report, Style
from fanfold.units import counted

__all__ = ["Measured", "Profile", "Tell", "measure", "name_of"]

Tell = Callable[[str], None]

_LOOK = 0.25  # seconds in which others are watched
_MOMENT = 0.02  # seconds: a task so long that each worker gets one, when there are as many of them


class Profile(NamedTuple):
    """Where the time of one run with so many workers went, in seconds.

    ``start`` is from nothing until every worker has done a first task, ``first`` the first run of
    the work, which warms up. Of the next run ``work`` is what all tasks took together, ``cpu`` what
    they used of cores (None: not known), ``longest`` the longest task, and ``idle`` what workers
    waited for the last one to end, all of them together. ``peak_memory`` is in bytes, of a worker.
    """

    workers: int
    tasks: int
    start: float
    first: float
    work: float
    cpu: float | None
    longest: float
    idle: float
    peak_memory: int

    @property
    def busy(self) -> float:
        """The share of a core that a task keeps busy; 1 where that is not known."""
        return 1.0 if self.cpu is None or not self.work else min(1.0, self.cpu / self.work)


class Measured(NamedTuple):
    """What a study has measured: seconds of repeated runs by the number of workers, and where the
    time of one run with each went. ``load`` is how many of our cores others kept busy
    before it, ``target`` the name of the function."""

    mode: Mode
    place: str
    tasks: int
    times: dict[int, list[float]]
    profiles: dict[int, Profile]
    cores: int
    load: float
    seconds: float
    target: str = ""


def measure(
    func: Callable[..., Any],
    inputs: Sequence[Any],
    workers: Sequence[int],
    repeats: int,
    mode: Mode,
    on: str,
    seed: int,
    tell: Tell | None = None,
    style: Style = "one",
) -> Measured:
    """Run ``func`` over ``inputs``, ``repeats`` times with each number of ``workers``.

    All workers are started and warmed up first; the runs that are timed come in shuffled order, so
    that whatever else the machine does meanwhile strikes all numbers of workers alike. Raises what
    a task raises.
    """
    load, began = _busy(), perf_counter()
    work = {n: _work(inputs, n, mode) for n in workers}
    times: dict[int, list[float]] = {n: [] for n in workers}
    order = [n for n in workers for _ in range(repeats)]
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    with ExitStack() as stack:
        places, profiles = {}, {}
        for n in workers:
            _say(tell, f"{counted(n, 'worker')}: warming up")
            start = perf_counter()
            places[n] = stack.enter_context(make(on, n))
            _wake(places[n])
            started = perf_counter() - start
            first = _time(func, work[n], places[n], style)
            profiles[n] = _profile(func, work[n], places[n], style, started, first)
        for number, n in enumerate(order, 1):
            _say(tell, f"run {number} of {len(order)}: {counted(n, 'worker')}")
            times[n].append(_time(func, work[n], places[n], style))
    return Measured(
        mode, on, len(inputs), times, profiles, int(cores()), load, perf_counter() - began,
        name_of(func),
    )  # fmt: skip


def _busy() -> float:
    """How many of the cores that we may use others keep busy now. The system's average of the last
    minute would count what we did ourselves, such as the study before."""
    import psutil  # late: no other command needs it at once

    shares: list[float] = psutil.cpu_percent(_LOOK, percpu=True)
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(shares))
    return sum(share / 100 for core, share in enumerate(shares) if core in ours)


def name_of(func: Callable[..., Any]) -> str:
    """
    >>> from os.path import join
    >>> name_of(join), name_of(print)
    ('posixpath.join', 'print')
    """
    module = getattr(func, "__module__", None)
    name = str(getattr(func, "__qualname__", type(func).__name__))
    return name if module in (None, "builtins", "__main__") else f"{module}.{name}"


def _say(tell: Tell | None, sentence: str) -> None:
    if tell is not None:
        tell(sentence)


def _work(inputs: Sequence[Any], workers: int, mode: Mode) -> Sequence[Any]:
    """The inputs; for a weak study as many times as there are workers."""
    return inputs if mode == "strong" else list(islice(cycle(inputs), len(inputs) * workers))


def _wake(place: Executor) -> None:
    for _ in reports(sleep, [_MOMENT] * place.workers, on=place, progress=False, chunk=1):
        pass


def _time(func: Callable[..., Any], inputs: Sequence[Any], place: Executor, style: Style) -> float:
    gc.collect()  # what earlier runs left is not to be paid for by this one
    began = perf_counter()
    given = reports(func, inputs, style=style, on=place, progress=False, errors="raise", seed=0)
    for _ in given:
        pass
    return perf_counter() - began


def _profile(
    func: Callable[..., Any],
    inputs: Sequence[Any],
    place: Executor,
    style: Style,
    start: float,
    first: float,
) -> Profile:
    with tempfile.TemporaryDirectory(prefix="fanfold-") as folder:
        printed = os.path.join(folder, "p-")
        given = reports(
            func, inputs, style=style, on=place, progress=False, errors="raise", seed=0,
            evidence=printed,
        )  # fmt: skip
        told = list(given)
    pieces = [(report.worker, piece) for report in told for piece in report.evidence]
    ends: dict[str, float] = {}
    for worker, piece in pieces:
        ends[worker] = max(ends.get(worker, 0.0), piece.began + piece.seconds)
    last = max(ends.values(), default=0.0)
    used = [piece.cpu_time for _, piece in pieces if piece.cpu_time is not None]
    return Profile(
        workers=place.workers,
        tasks=len(inputs),
        start=start,
        first=first,
        work=sum(piece.seconds for _, piece in pieces),
        cpu=sum(used) if len(used) == len(pieces) else None,
        longest=max(_longest(told), default=0.0),
        idle=sum(last - end for end in ends.values())
        + (place.workers - len(ends)) * (last - _first(pieces)),
        peak_memory=max((report.peak_memory for report in told), default=0),
    )


def _first(pieces: Sequence[tuple[str, Any]]) -> float:
    return min((piece.began for _, piece in pieces), default=0.0)


def _longest(told: Sequence[Report]) -> Iterator[float]:
    """Of each report its longest task; of tiny tasks that were timed together, their mean."""
    for report in told:
        if isinstance(report.seconds, float):
            yield report.seconds / len(report)
        elif report.seconds:
            yield max(report.seconds)
