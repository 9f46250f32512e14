"""From a scaling study to a document, which `fanfold.reports.formats` draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fanfold.reports.document import (
    Advice,
    Axis,
    Curves,
    Document,
    Dot,
    Item,
    Level,
    Line,
    Paragraph,
    Section,
    Stack,
    Stacks,
    Table,
    Tick,
)
from fanfold.reports.scales import counts_axis
from fanfold.reports.words import duration, listed, number, percent, plural, size

if TYPE_CHECKING:
    from fanfold.studies.study import ScalingStudy

__all__ = ["document"]

_PLACES = 32  # where a line is drawn through
_APART = 0.06  # of the axis: labels nearer than that would lie on one another
_HEADROOM = 1.4  # above what was measured: the ideal is seen to leave it
_NAMES = {
    "work": "work",
    "waiting": "waiting for a core or a lock",
    "slower": "slower than alone",
    "imbalance": "waiting for the last tasks",
    "serial": "handing out and taking in",
}


def document(study: ScalingStudy) -> Document:
    """The whole page of a study."""
    measured = study.measured
    repeats = max(map(len, measured.times.values()))
    numbers = listed([*map(str, study.workers[:-1]), plural(study.workers[-1], "worker")])
    numbers = f"each of {numbers}" if len(study.workers) > 1 else numbers
    each = " for each worker" if measured.mode == "weak" else ""
    sections = (
        Section("What to do", tuple(_findings(study))),
        Section("How much faster", (_speedups(study), _efficiencies(study))),
        Section("Where the time went", (_worker_seconds(study),)),
        Section("Measured", (_table(study),)),
    )
    return Document(
        title=f"Scaling of {measured.target}" if measured.target else "Scaling",
        state="in doubt" if study.doubts else "done",
        about=(
            f"{plural(measured.tasks, 'task')}{each} on {measured.place}",
            f"{plural(repeats, 'run')} with {numbers}; " + plural(measured.cores, "core"),
        ),
        sections=sections,
    )


def _findings(study: ScalingStudy) -> Iterator[Item]:
    advice, *others = study.sentences()
    basis = "The fewest workers that are as fast as any, but for 2 % or for noise"
    if study.noise:
        basis += f"; equal runs differ by {percent(study.noise, 1)}"
    yield Advice(advice, f"{basis}.")
    yield from map(Paragraph, others)
    for doubt in study.doubts:
        yield Paragraph(f"Not to be trusted: {doubt}.", warning=True)


# Charts -----------------------------------------------------------------------------------------


def _speedups(study: ScalingStudy) -> Curves:
    most = study.workers[-1]
    highest = max(_speedup(study, n, t) for n, t in _runs(study))
    up, end = counts_axis(math.ceil(max(highest, min(most, _HEADROOM * highest))))
    lines = [Line("ideal", "ideal", ((0.0, 0.0), (min(1.0, end / most), min(1.0, most / end))))]
    if study.law is not None:
        lines.append(_law_line(study, end))
    return Curves(
        title="Speed-up by the number of workers",
        across=_workers_axis(study.workers),
        up=up._replace(label="times one worker"),
        dots=tuple(_dot(study, n, t, end) for n, t in _runs(study)),
        lines=tuple(lines),
        levels=tuple(_level(study, n, end) for n in study.workers),
        table=_speedup_table(study),
    )


def _runs(study: ScalingStudy) -> Iterator[tuple[int, float]]:
    """The number of workers and the seconds of every run."""
    for n in study.workers:
        yield from ((n, seconds) for seconds in study.measured.times[n])


def _speedup(study: ScalingStudy, workers: int, seconds: float) -> float:
    """That of one run."""
    return study.speedup(workers) * study.seconds[workers] / seconds


def _workers_axis(workers: Sequence[int]) -> Axis:
    """Marks at the numbers that were tried, the largest first, as far as there is room."""
    ticks: list[Tick] = []
    for n in reversed(workers):
        at = n / workers[-1]
        if not ticks or ticks[-1].at - at >= _APART:
            ticks.append(Tick(at, str(n)))
    return Axis(tuple(reversed(ticks)), "workers")


def _dot(study: ScalingStudy, workers: int, seconds: float, end: float) -> Dot:
    speedup = _speedup(study, workers, seconds)
    told = f"{plural(workers, 'worker')}: {duration(seconds)}, {speedup:.2f} times one"
    return Dot(workers / study.workers[-1], speedup / end, told)


def _law_line(study: ScalingStudy, end: float) -> Line:
    least, most = study.workers[0], study.workers[-1]
    step = (study.reach - least) / _PLACES
    places = [least + step * place for place in range(_PLACES + 1)]
    bands = [band for place in places if (band := study.band(place)) is not None]
    clipped = [(min(1.0, low / end), min(1.0, high / end)) for low, high in bands]
    return Line(
        _law_name(study),
        "law",
        tuple((place / most, study.expected(place) / end) for place in places),
        tuple(clipped) if len(clipped) == len(places) else (),
    )


def _law_name(study: ScalingStudy) -> str:
    name = f"{study.law.name} law" if study.law is not None else ""
    return name if study.follows else f"{name}, which does not fit"


def _level(study: ScalingStudy, workers: int, end: float) -> Level:
    speedup = study.speedup(workers)
    lines = [float(workers)]
    if study.law is not None and workers <= study.reach:
        lines.append(study.expected(workers))
    return Level(
        plural(workers, "worker"),
        f"{speedup:.2f}",
        speedup / end,
        tuple(line / end for line in lines),
    )


def _speedup_table(study: ScalingStudy) -> Table:
    columns = ("workers", "speed-up", "slowest run", "fastest run", "the law", "its band")
    return Table(
        "", columns, tuple(_speedup_row(study, n) for n in study.workers), frozenset(columns)
    )


def _speedup_row(study: ScalingStudy, workers: int) -> tuple[str, ...]:
    times = study.measured.times[workers]
    law = band = "unknown"
    if study.law is not None and workers <= study.reach:
        law = f"{study.expected(workers):.2f}"
        if (around := study.band(workers)) is not None:
            band = f"{around[0]:.2f} to {around[1]:.2f}"
    return (
        str(workers),
        f"{study.speedup(workers):.2f}",
        f"{_speedup(study, workers, max(times)):.2f}",
        f"{_speedup(study, workers, min(times)):.2f}",
        law,
        band,
    )


def _efficiencies(study: ScalingStudy) -> Curves:
    """The share of each worker that is used, for formats with room: the table tells it, too."""
    most = study.workers[-1]
    end = max(1.0, *(_speedup(study, n, t) / n for n, t in _runs(study)))
    ticks = tuple(Tick(share / end, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1))
    dots = tuple(
        Dot(n / most, share / end, f"{plural(n, 'worker')}: {share:.0%}")
        for n, t in _runs(study)
        for share in (_speedup(study, n, t) / n,)
    )
    rows = tuple((str(n), f"{study.efficiency(n):.0%}") for n in study.workers)
    columns = ("workers", "efficiency")
    return Curves(
        title="Efficiency: the speed-up of each worker",
        across=_workers_axis(study.workers),
        up=Axis(ticks, "efficiency"),
        dots=dots,
        lines=(Line("ideal", "ideal", ((0.0, 1 / end), (1.0, 1 / end))),),
        levels=(),
        table=Table("", columns, rows, frozenset(columns)),
    )


def _worker_seconds(study: ScalingStudy) -> Stacks:
    """Of all workers, or of one of them where each has work of its own."""
    weak = study.measured.mode == "weak"
    wholes = {n: study.seconds[n] * (1 if weak else n) for n in study.workers}
    longest = max(wholes.values())
    stacks = tuple(
        Stack(
            plural(n, "worker"),
            tuple(share * wholes[n] / longest for share in study.shares(n).values()),
            duration(wholes[n]),
        )
        for n in study.workers
    )
    rows = tuple(
        (str(n), *(percent(share, 1) for share in study.shares(n).values())) for n in study.workers
    )
    names = tuple(_NAMES.values())
    return Stacks(
        title="Time of each worker" if weak else "Time of all workers together",
        names=names,
        stacks=stacks,
        table=Table("", ("workers", *names), rows, frozenset(("workers", *names))),
    )


def _table(study: ScalingStudy) -> Table:
    columns = ("workers", "time", "speed-up", "efficiency", "a result", "start", "first", "memory")
    return Table("", columns, tuple(_row(study, n) for n in study.workers), frozenset(columns))


def _row(study: ScalingStudy, workers: int) -> tuple[str, ...]:
    profile = study.measured.profiles[workers]
    return (
        number(workers),
        duration(study.seconds[workers]),
        f"{study.speedup(workers):.2f}",
        f"{study.efficiency(workers):.0%}",
        duration(study.cost(workers)),
        duration(profile.start),
        duration(profile.first),
        size(profile.peak_memory),
    )
