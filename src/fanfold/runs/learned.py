"""What tasks will cost, learned from what the same inputs took before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import fmean

from fanfold.errors import FanfoldError
from fanfold.runs.asked import Asked
from fanfold.runs.driver import Work
from fanfold.runs.identity import digest, match, same_inputs
from fanfold.runs.inputs import read_generation, read_inputs
from fanfold.runs.state import journals
from fanfold.store.directory import RunDirectory, run_directories

__all__ = ["learned"]

_MOST = 20_000  # tasks: to look into more takes longer than a better order gains
_BACK = 20  # runs that are looked at, the newest first
_ENOUGH = 0.5  # of the tasks that have to be known
_DAMAGED = (KeyError, TypeError, ValueError, ArithmeticError)  # what strange records lead to


def learned(work: Work, *, everything: bool = False) -> list[float] | None:
    """Seconds that each task took in the newest run beside it of the same target and inputs, or in
    the run itself where ``everything`` runs again; None where most are not known.

    What is not known counts as the mean.
    """
    if len(work.inputs) > _MOST:
        return None
    for directory in _before(work, everything):
        with suppress(FanfoldError, OSError, *_DAMAGED):  # nothing to be learned from it
            seconds = _seconds(work, directory)
            known = [one for one in seconds if not math.isnan(one)]
            if known and len(known) >= _ENOUGH * len(seconds):
                mean = fmean(known)
                return [mean if math.isnan(one) else one for one in seconds]
    return None


def _before(work: Work, everything: bool) -> Iterator[RunDirectory]:
    own = work.directory.path
    if everything:
        yield work.directory
    for path in islice(reversed(run_directories(own.parent)), _BACK):
        with suppress(FanfoldError, OSError):
            directory = RunDirectory.open(Path(path))
            if directory.path != own and Asked.read(directory).target == work.asked.target:
                yield directory


def _seconds(work: Work, directory: RunDirectory) -> list[float]:
    """What the tasks of ``work`` took there; NaN is not known."""
    generation = read_generation(directory)
    if generation.total > _MOST:
        return []
    took = _took(directory, generation.number, generation.total)
    items = read_inputs(directory, generation, trust=False)
    if generation.stamps == work.generation.stamps and same_inputs(items, work.inputs):
        return took
    kept = match(
        [digest(item, generation.stamps.get(index)) for index, item in enumerate(items)],
        [digest(item, work.generation.stamps.get(index)) for index, item in enumerate(work.inputs)],
    ).kept
    return [took[index] if index >= 0 else math.nan for index in kept]


def _took(directory: RunDirectory, generation: int, total: int) -> list[float]:
    """What each task of a run took, in seconds; NaN is not known."""
    took = [math.nan] * total
    for header, journal in journals(directory, []):
        for record in journal.records() if header.told["inputs"] == generation else ():
            if record["is"] == "done":
                first = record["first"]
                for count, _, seconds, *_ in record["ran"]:
                    took[first : first + count] = [seconds / count] * count
                    first += count
    return took
