"""What a case is made of: who takes part, what is measured, what is to be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import CONTENDERS, PEERS, Contender

Sample = dict[str, float]
"""One measurement: a number for every metric of the case."""

Size = dict[str, int]
"""How large a case is: the keywords of its ``measure``."""


@dataclass(frozen=True)
class Entrant:
    """A contender as it takes part in a case: at its defaults, or with a chunk size."""

    contender: str
    chunk: int | None = None

    def __str__(self) -> str:
        return self.contender if self.chunk is None else f"{self.contender}, chunk {self.chunk}"

    def pool(self, workers: int) -> Contender:
        """The contender, not started; its library is imported now."""
        return CONTENDERS[self.contender](workers)


@dataclass(frozen=True)
class Metric:
    """A number of a sample; ``more`` says that a larger one is better."""

    name: str
    unit: str
    more: bool = False


@dataclass(frozen=True)
class Goal:
    """A figure that fanfold has to reach in ``metric``; one of the two limits is given.

    ``against`` is a contender: the limit then is for the ratio of fanfold to it, round by round.
    ``tuned`` takes the best of that contender's entrants, chunk sizes too.
    """

    says: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None
    tuned: bool = False

    def reached(self, figure: float) -> bool:
        if self.at_least is not None:
            return figure >= self.at_least
        return self.at_most is not None and figure <= self.at_most


@dataclass(frozen=True)
class Case:
    """One row of the table of speeds.

    ``measure(entrant, workers, **size)`` runs in a process of its own. The first metric is the one
    that contenders are compared by. ``sizes`` has "full", "quick" and "tiny". ``subject`` is the
    contender that the others are compared with, and that the goals are for.
    """

    name: str
    title: str
    measure: Callable[..., Sample]
    entrants: tuple[Entrant, ...]
    metrics: tuple[Metric, ...]
    goals: tuple[Goal, ...]
    sizes: dict[str, Size]
    note: str = ""
    by_default: bool = True
    subject: str = "fanfold"

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)


class WrongAnswerError(Exception):
    """A contender was quick, but did not give the right results."""


class Clock:
    """Times a ``with`` block: ``seconds`` after it."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


def entrants(*others: str) -> tuple[Entrant, ...]:
    """fanfold and all its peers at their defaults, and the ``others``."""
    names = ("fanfold", *(peer.name for peer in PEERS), *others)
    return tuple(Entrant(name) for name in names)


def tuned(contender: str, *chunks: int) -> tuple[Entrant, ...]:
    """The contender with each of these chunk sizes."""
    return tuple(Entrant(contender, chunk) for chunk in chunks)


def check(found: Iterable[Any], expected: Iterable[Any]) -> None:
    """Raise `WrongAnswerError` unless the results are what they should be."""
    for index, (have, want) in enumerate(zip(found, expected, strict=True)):
        if have != want:
            raise WrongAnswerError(f"result {index} should be {want!r}, and is {have!r}")
