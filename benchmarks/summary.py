"""From the rounds of a case to figures: medians, spread, ratios, and what became of each goal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.cases.base import Case, Goal, Metric, Sample

Rounds = list[dict[str, Sample]]
"""For each round, the sample of every entrant by its name."""


@dataclass(frozen=True)
class Figure:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Figure | None:
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """What became of a goal. ``figure`` is None when it was not measured."""

    goal: Goal
    metric: Metric
    figure: Figure | None
    against: str | None

    @property
    def word(self) -> str:
        if self.figure is None:
            return "not measured"
        return "reached" if self.goal.reached(self.figure.median) else "**not reached**"


def figure(rounds: Rounds, entrant: str, metric: str) -> Figure | None:
    """The metric of an entrant over the rounds."""
    return Figure.of([one[entrant][metric] for one in rounds if metric in one.get(entrant, {})])


def ratio(rounds: Rounds, entrant: str, other: str, metric: str) -> Figure | None:
    """The entrant's metric over the other's, taken round by round."""
    both = [samples for samples in rounds if entrant in samples and other in samples]
    return Figure.of([samples[entrant][metric] / samples[other][metric] for samples in both])


def verdicts(case: Case, rounds: Rounds) -> Iterator[Verdict]:
    """One verdict for every goal of the case."""
    for goal in case.goals:
        metric = case.metric(goal.metric)
        other = _opponent(case, goal, rounds)
        if other is None:
            found = figure(rounds, case.subject, metric.name)
        else:
            found = ratio(rounds, case.subject, other, metric.name)
        yield Verdict(goal, metric, found, other)


def _opponent(case: Case, goal: Goal, rounds: Rounds) -> str | None:
    """The entrant that the goal compares with: the contender at its defaults, or at its best."""
    if not goal.tuned:
        return goal.against
    theirs = [str(entrant) for entrant in case.entrants if entrant.contender == goal.against]
    return next(iter(ranking(case.metric(goal.metric), theirs, rounds)), goal.against)


def ranking(metric: Metric, entrants: list[str], rounds: Rounds) -> list[str]:
    """The entrants that were measured, the best median first."""
    medians = {
        entrant: found.median
        for entrant in entrants
        if (found := figure(rounds, entrant, metric.name)) is not None
    }
    return sorted(medians, key=medians.__getitem__, reverse=metric.more)
