"""What a scaling study says: speed-ups, their law, what limits, and how many workers to take."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from fanfold.errors import UsageError
from fanfold.studies.measure import Measured, Profile
from fanfold.studies.model import Estimate, Law, fit_laws, noise_of
from fanfold.studies.sentences import NOISY, SHARED, sentences
from fanfold.units import format_duration

if TYPE_CHECKING:
    from fanfold.reports.document import Document

__all__ = ["Limit", "ScalingStudy"]

_ALIKE = 0.02  # times that differ less count as equally good
_BUSY = 0.5  # cores
_SHORT = 0.05  # seconds: shorter runs are mostly their beginning and their end
_TOLD = 0.05  # of the worker-seconds: what takes less is not worth a word


class Limit(NamedTuple):
    """Where worker-seconds went that were no work: their share of all, and in words."""

    name: str
    share: float
    meaning: str


class ScalingStudy:
    """Times of the same work with several numbers of workers, and what follows from them.

    ``best`` is the number of workers to take: the fewest that are as fast as any, but for 2 % or
    for noise. ``laws`` are those of `fanfold.studies.model.fit_laws`, up to ``reach`` workers: the
    most that were tried or, where times follow no law beyond the cores, those. ``noise`` is how
    much repeated times differ, relative to their median; ``doubts`` are the reasons not to trust
    the study, if any.
    """

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.noise = noise_of(measured.times)
        self.reach = max(measured.times)
        self.laws = self._fitted(self.reach)
        ends = self._overbooked or (self.crowded and not self.follows)
        if ends and measured.cores > self.workers[0]:
            self.reach = max(n for n in self.workers if n <= measured.cores)
            self.laws = self._fitted(self.reach)

    def _fitted(self, most: int) -> dict[str, Law]:
        times = {n: times for n, times in self.measured.times.items() if n <= most}
        return fit_laws(times, self.measured.mode) if len(times) > 1 else {}

    @property
    def crowded(self) -> bool:
        """Are there more workers than cores which they share?"""
        return self.measured.place in SHARED and self.workers[-1] > self.measured.cores

    @property
    def _overbooked(self) -> bool:
        """Do the workers want more cores than they share?"""
        least, most = self.workers[0], self.workers[-1]
        return self.crowded and most * self.measured.profiles[least].busy > self.measured.cores

    @property
    def law(self) -> Law | None:
        """The law that tells most: with crosstalk where three numbers of workers were tried."""
        return self.laws.get("universal") or next(iter(self.laws.values()), None)

    @cached_property
    def seconds(self) -> dict[int, float]:
        """The median time with each number of workers."""
        return {n: median(times) for n, times in self.measured.times.items()}

    @property
    def workers(self) -> list[int]:
        return sorted(self.seconds)

    def expected(self, workers: float) -> float:
        """The speed-up that the law tells; there has to be one."""
        return self._scale * self._told.speedup(workers)

    def band(self, workers: float) -> tuple[float, float] | None:
        """Between what the speed-up lies in 95 of 100 studies; None where that is not known."""
        band = self._told.band(workers)
        return None if band is None else (self._scale * band[0], self._scale * band[1])

    @property
    def _told(self) -> Law:
        if self.law is None:
            raise UsageError("a law needs times for two numbers of workers, as workers=[1, 2]")
        return self.law

    @property
    def _scale(self) -> float:
        """From the law's speed-ups to those relative to what was measured with the fewest."""
        least, law = self.workers[0], self._told
        return least * self.seconds[least] / (law.time(least) * law.speedup(least))

    def results_per_second(self, workers: int) -> float:
        times = 1 if self.measured.mode == "strong" else workers
        return self.measured.tasks * times / self.seconds[workers]

    def speedup(self, workers: int) -> float:
        """Results a second, relative to the fewest workers, for one of them."""
        least = self.workers[0]
        return least * self.results_per_second(workers) / self.results_per_second(least)

    def efficiency(self, workers: int) -> float:
        """The speed-up a worker."""
        return self.speedup(workers) / workers

    def cost(self, workers: int) -> float:
        """Worker-seconds a result."""
        return workers / self.results_per_second(workers)

    @property
    def follows(self) -> bool:
        """Does the law tell the times as well as they can be told?"""
        return self.law is not None and self.law.misfit <= max(1.25 * self.noise, _ALIKE)

    @property
    def _simplest(self) -> Law | None:
        """The law without crosstalk, where that may be none: to guess it would add but noise."""
        law = self.law
        if law is not None and law.name == "universal" and law.crosstalk.low <= 0:
            return self.laws["Amdahl" if law.mode == "strong" else "Gustafson"]
        return law

    @cached_property
    def best(self) -> int:
        """The fewest workers that are as fast as any, but for noise; told by the law, where times
        follow it as far as was tried, since that is less shaken by noise than they are."""
        law = self._simplest if self.follows and self.reach == self.workers[-1] else None
        rates = {
            n: (law.speedup(n) if law is not None else self.results_per_second(n))
            for n in self.workers
        }
        alike = _ALIKE if law is not None else max(_ALIKE, 0.5 * self.noise)
        enough = max(rates.values()) * (1 - alike)
        return min(n for n, rate in rates.items() if rate >= enough)

    def limits(self, workers: int) -> list[Limit]:
        """Where the worker-seconds went that were no work, the largest first."""
        shares = self.shares(workers).items()
        found = [Limit(name, share, _MEANINGS[name]) for name, share in shares if name != "work"]
        return sorted((one for one in found if one.share >= _TOLD), key=lambda one: -one.share)

    def shares(self, workers: int) -> dict[str, float]:
        """Where the worker-seconds went: shares of work, and of each loss. They sum to 1."""
        profile, alone = self.measured.profiles[workers], self.measured.profiles[self.workers[0]]
        whole = workers * self.seconds[workers]
        useful = alone.work * profile.tasks / alone.tasks
        lost = _losses(profile, useful, alone, whole)
        if self.crowded:
            missing = whole * max(0.0, 1 - self.measured.cores / workers) * alone.busy
            waited = min(lost["serial"], max(0.0, missing - lost["waiting"]))
            lost["waiting"] += waited
            lost["serial"] -= waited
        whole = max(whole, sum(lost.values()))
        parts = {"work": whole - sum(lost.values()), **lost}
        return {name: seconds / whole for name, seconds in parts.items()}

    @cached_property
    def doubts(self) -> list[str]:
        """Why not to trust the numbers, in sentences."""
        measured = self.measured
        found = []
        if self.noise > NOISY:
            found.append(f"equal runs differ by {self.noise:.0%}: the machine is not quiet")
        if measured.load > _BUSY and measured.load + self.workers[-1] > measured.cores:
            found.append(
                f"others kept {measured.load:.1f} of {measured.cores} cores busy before it began"
            )
        if max(self.seconds.values()) < _SHORT:
            longest = format_duration(max(self.seconds.values()))
            found.append(f"the runs take at most {longest}: give more inputs, or longer ones")
        if min(map(len, measured.times.values())) < 3:
            found.append("fewer than three repeats cannot tell noise from effect")
        if not self.follows and self.law is not None:
            found.append(
                "the times follow no simple law: between the numbers tried nothing is known"
            )
        return found

    def sentences(self) -> list[str]:
        """What to do, and why, each with its number."""
        return sentences(self)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "target": self.measured.target,
            "mode": self.measured.mode,
            "on": self.measured.place,
            "tasks": self.measured.tasks,
            "cores": self.measured.cores,
            "noise": self.noise,
            "best": self.best,
            "doubts": self.doubts,
            "sentences": self.sentences(),
            "laws": {name: _law_record(law) for name, law in self.laws.items()},
            "workers": [self._row(n) for n in self.workers],
        }

    def _row(self, workers: int) -> dict[str, Any]:
        return {
            "workers": workers,
            "times": self.measured.times[workers],
            "seconds": self.seconds[workers],
            "speedup": self.speedup(workers),
            "efficiency": self.efficiency(workers),
            "cost": self.cost(workers),
            "law": self._law_row(workers),
            "shares": self.shares(workers),
            "profile": self.measured.profiles[workers]._asdict(),
            "limits": [one._asdict() for one in self.limits(workers)],
        }

    def _law_row(self, workers: int) -> dict[str, Any] | None:
        if self.law is None or workers > self.reach:
            return None
        return {"speedup": self.expected(workers), "band": self.band(workers)}

    def __repr__(self) -> str:
        return f"<fanfold.ScalingStudy of {self.workers} workers: best {self.best}>"

    def __str__(self) -> str:
        return self.text()

    def document(self) -> Document:
        """Everything there is to tell, without any format."""
        from fanfold.studies.page import document

        return document(self)

    def text(self, width: int = 80, *, ascii_only: bool = False) -> str:
        """Sentences, charts and the table for a terminal of ``width`` columns."""
        from fanfold.reports.formats import text

        return text.render(self.document(), width, ascii_only=ascii_only)

    def html(self) -> str:
        """The same as one web page: it needs no network, no script and no other file."""
        from fanfold.reports.formats import html

        return html.render(self.document())

    def _repr_html_(self) -> str:
        """The page in a frame of its own, as a notebook shows it."""
        from fanfold.reports.formats import html

        return html.frame(self.html())

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the speed-ups, and where the time went, into a file: .svg, .png or .pdf.

        Needs the extra ``plot``. Raises `UsageError` without it, and for other names.
        """
        from fanfold.reports.formats.picture import draw

        return draw(self.document(), Path(path))


_MEANINGS = {
    "waiting": "tasks wait for a core or for a lock, such as Python's own",
    "slower": "tasks use more of a core than alone: memory, caches or clock are shared",
    "imbalance": "workers wait for the last tasks to end",
    "serial": "handing out tasks and taking in results is not shared",
}


def _losses(profile: Profile, useful: float, alone: Profile, whole: float) -> dict[str, float]:
    """Worker-seconds that were no work; ``useful`` is what the work takes on one worker."""
    longer = max(0.0, profile.work - useful)
    slower = longer
    if profile.cpu is not None and alone.cpu is not None:
        slower = min(longer, max(0.0, profile.cpu - alone.cpu * profile.tasks / alone.tasks))
    imbalance = min(profile.idle, max(0.0, whole - useful - longer))
    return {
        "waiting": longer - slower,
        "slower": slower,
        "imbalance": imbalance,
        "serial": max(0.0, whole - useful - longer - imbalance),
    }


def _law_record(law: Law) -> dict[str, Any]:
    record = law._asdict()
    del record["spread"]
    shares = {"serial": _interval(law.serial), "crosstalk": _interval(law.crosstalk)}
    return {**record, **shares, "peak": law.peak}


def _interval(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no infinity: what has no bound is null there."""
    record: dict[str, float | None] = estimate._asdict()
    return {name: None if value == float("inf") else value for name, value in record.items()}
