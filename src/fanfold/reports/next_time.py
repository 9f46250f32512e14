"""What to ask for next time, of a run anywhere: the numbers, why, and the lines to copy.

The rules of the amounts are those of `fanfold.reports.sizing`. A run without job arrays counts as
one element, which had as many cores as workers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from fanfold.history import Element, History
from fanfold.reports.episodes import episodes, team
from fanfold.reports.pieces import Pieces
from fanfold.reports.sizing import FEW, Sizing, Use, sizing, uses
from fanfold.reports.words import duration, percent, plural, size
from fanfold.resources import Resources
from fanfold.schedulers.scripts.writing import DIALECTS, directives
from fanfold.units import format_walltime

__all__ = ["NextTime", "next_time", "used_by"]

_MB = 1 << 20
_WORTH = 60.0  # seconds of work that make an element worth its start
_SAID = 0.05  # share from which on more memory than was seen is worth a word
_TOGETHER = ("threads", "serial", "interpreters")  # places whose workers share one memory


class NextTime(NamedTuple):
    """What to ask for: ``resources`` of each of so many ``elements``, ``workers`` tasks at a time
    in each; ``sentences`` say how each number was made."""

    resources: Resources
    elements: int
    workers: int
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in a sentence."""
        asked = self.resources
        text = f"For the next run: {plural(asked.cores, 'core')}"
        text += f", {size(asked.memory)} of memory" if asked.memory else ""
        text += f", a walltime of {format_walltime(asked.walltime)}" if asked.walltime else ""
        text += f", {self.elements} elements" if self.elements > 1 else ""
        return f"{text}, {plural(self.workers, 'worker')} in each" if self._says_workers else text

    @property
    def _says_workers(self) -> bool:
        return self.workers != self.resources.workers

    @property
    def options(self) -> str:
        """As options of `fanfold run`, with ``--on`` a scheduler."""
        asked = self.resources
        options = f"--cores {asked.cores}"
        options += f" --memory {math.ceil(asked.memory / _MB)}MB" if asked.memory else ""
        options += f" --walltime {format_walltime(asked.walltime)}" if asked.walltime else ""
        options += f" --elements {self.elements}" if self.elements > 1 else ""
        return options + (f" --workers {self.workers}" if self._says_workers else "")

    def directives(self, scheduler: str) -> list[str]:
        """As directives of a script for ``"slurm"`` or ``"pbs"``."""
        return directives(self.resources, scheduler)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it; amounts are in bytes and seconds."""
        asked = self.resources
        return {
            "cores": asked.cores, "memory": asked.memory, "walltime": asked.walltime,
            "elements": self.elements, "workers": self.workers, "sentences": list(self.sentences),
            "options": self.options,
            **{dialect: self.directives(dialect) for dialect in DIALECTS},
        }  # fmt: skip

    def __str__(self) -> str:
        """
        >>> found = NextTime(Resources(cores=2, memory="1GB", walltime="1h"), 20, 2, ("Why.",))
        >>> print(str(found).splitlines()[0])
        For the next run: 2 cores, 1.0 GB of memory, a walltime of 01:00:00, 20 elements.
        """
        lines = [f"{self.text}.", *(f"  {sentence}" for sentence in self.sentences)]
        lines += ["", "Options of fanfold run:", self.options]
        for dialect in DIALECTS:
            lines += ["", f"Directives of {DIALECTS[dialect].name}:", *self.directives(dialect)]
        return "\n".join(lines)


def next_time(history: History, pieces: Pieces | None = None) -> NextTime | None:
    """What to ask for next time; None where nothing is known to go by."""
    used = used_by(history, Pieces(history.pieces) if pieces is None else pieces)
    elements = _elements(history, used)
    fewer = _worth(elements, used)
    if fewer < elements:
        used = [
            use._replace(seconds=use.seconds and use.seconds * elements / fewer) for use in used
        ]
    advised = sizing(used)
    if not any(advised):
        return None
    last = max((use.element for use in used), key=lambda element: element.number)
    return NextTime(
        _asked(history)._replace(
            cores=advised.cores.amount if advised.cores else last.cores,
            memory=advised.memory.amount if advised.memory else last.memory,
            walltime=advised.walltime.amount if advised.walltime else last.walltime,
        ),
        fewer,
        _workers(history, last),
        tuple(_sentences(used, advised, elements, fewer)),
    )


def used_by(history: History, pieces: Pieces) -> list[Use]:
    """What the elements of a run used, or the run itself, as one element."""
    if not history.elements:
        return uses(_alone(history, pieces), pieces)
    killed = set(_killed(history))
    return uses(
        (one._replace(state="memory") if one.number in killed else one for one in history.elements),
        pieces,
    )


def _killed(history: History) -> Iterator[int]:
    """The elements that lost a worker for want of memory: they themselves may have gone on."""
    for failure in history.failures:
        if failure.death is not None and failure.death.out_of_memory:
            match = re.match(r"element ([0-9]{1,9}), ", failure.worker)
            yield int(match[1]) if match else 0


def _alone(history: History, pieces: Pieces) -> Iterator[Element]:
    """A run on one machine as the element of an array that it would be."""
    worked = episodes(history, pieces)
    seconds = sum(episode.wall for episode in worked)
    if not seconds:
        return
    peaks = np.full(len(pieces.workers), np.nan)
    np.fmax.at(peaks, pieces.worker, pieces.peak_memory)
    largest = np.sort(peaks[~np.isnan(peaks)])[::-1]
    workers = team(history, worked)
    together = 1 if history.asked.get("on") in _TOGETHER else workers
    peak = int(largest[:together].sum()) or None
    known = pieces.cpu_time[~np.isnan(pieces.cpu_time)]
    killed = any(True for _ in _killed(history))
    ended = "done" if history.state in ("done", "failed") else "cancelled"
    yield Element(
        1, "", 0, "", "memory" if killed else ended, history.total, workers, peak, None,
        seconds=seconds, cpu_time=float(known.sum()) if len(known) else None, peak_memory=peak,
    )  # fmt: skip


def _elements(history: History, used: Sequence[Use]) -> int:
    """How many elements shared out all tasks: those that were submitted first."""
    tasks = 0
    for count, element in enumerate(sorted(history.elements, key=lambda one: one.number), 1):
        tasks += element.tasks
        if tasks >= history.total:
            return count
    return max(1, len(history.elements) or len(used))


def _worth(elements: int, used: Sequence[Use]) -> int:
    """How many elements are worth their start: no more than there were."""
    seconds = [use.seconds for use in used if use.whole and use.seconds is not None]
    if not seconds:
        return elements
    return max(1, min(elements, math.ceil(median(seconds) * elements / _WORTH)))


def _workers(history: History, last: Element) -> int:
    """How many tasks ran at a time in an element."""
    asked = history.asked.get("workers")
    if not history.elements:
        return last.cores
    if type(asked) is int and asked > 0:
        return asked
    return _asked(history).gpus or last.cores


def _asked(history: History) -> Resources:
    """As many nodes and GPUs as were asked for."""
    kept: Any = history.asked
    for name in ("cluster", "resources"):
        kept = kept.get(name) if isinstance(kept, Mapping) else None
    kept = kept if isinstance(kept, Mapping) else {}
    nodes, gpus = (kept.get(name) for name in ("nodes", "gpus"))
    return Resources(
        nodes=nodes if type(nodes) is int and nodes > 0 else 1,
        gpus=gpus if type(gpus) is int and gpus > 0 else 0,
    )


def _sentences(used: Sequence[Use], advised: Sizing, elements: int, fewer: int) -> Iterator[str]:
    """How the numbers were made."""
    whole = sum(use.whole for use in used)
    if not whole:
        yield "No element came to its end: this is the least that is needed."
    elif whole < FEW:
        yield f"There {'is' if whole == 1 else 'are'} only {plural(whole, 'element')} to go by."
    for state, why in (("walltime", "for running too long"), ("memory", "for want of memory")):
        if count := sum(use.element.state == state for use in used):
            yield f"{plural(count, 'element')} lost work {why}: more is asked for now."
    for name, wanted in zip(("Cores", "Memory", "Walltime"), advised, strict=True):
        why = "what was used is not known, so as before" if wanted is None else wanted.why
        yield f"{name}: {why}."
    yield from _unseen(used)
    if fewer < elements:
        seconds = median(use.seconds or 0.0 for use in used) * fewer / elements
        yield (
            f"Elements: {fewer} instead of {elements}, which ran {duration(seconds)} at the "
            f"median: less than {duration(_WORTH)} is not worth a start."
        )
    if whole:
        yield f"95 % are those of {plural(whole, 'element')}, which came to an end of their own."
    yield "Never less than the most that any element used."


def _unseen(used: Sequence[Use]) -> Iterator[str]:
    """That more memory counts than was seen, and why."""
    share = max((use.needs / use.memory - 1 for use in used if use.needs and use.memory), default=0)
    if share >= _SAID:
        yield (
            f"Memory counts up to {percent(share, 1)} higher than it was seen: short tasks peak "
            "between two looks, and of few uneven ones the next may be larger."
        )
