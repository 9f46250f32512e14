"""What to ask for next time, from what the elements of job arrays used. The rules:

========  =====================================================================================
cores     CPU time over run time: 95 % of the elements, rounded up, 1/20 of a core not counted
memory    95 % of the elements, times 1.2, or the most that one used, times 1.15, in steps of 64 MB,
          from 1 GB on of 256 MB; no less counts than short tasks may have had between two looks,
          and more where tasks are few and uneven (`fanfold.reports.at_once`)
walltime  95 % of the elements, times 1.4, and 5 minutes more at least, or the longest, times 1.35,
          in minutes; where fewer cores are advised than were asked for, each element counts longer
          in proportion
========  =====================================================================================

The margin over the most is for the same work done again, which never takes just as long. Only
elements that came to an end of their own count for the 95 %: what others used is the least that
they needed. Where one was ended for running too long, or for using too much memory, the advice is
at least twice what that one asked for. With these margins, of 200 runs simulated again none is
ended for time or memory, and what is asked for is less than 1.5 times what is used
(tests/test_advise.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from fanfold.history import Element
from fanfold.reports.words import duration, size
from fanfold.schedulers.base import ENDED

if TYPE_CHECKING:
    from fanfold.reports.pieces import Pieces

__all__ = ["FEW", "Sizing", "Use", "Wanted", "percentile", "sizing", "use_of", "uses"]

FEW = 5  # elements that came to their end, from which on there is something to go by

_IMPOSSIBLE = 2.0**60  # bytes, and more so seconds
_IMPOSSIBLE_CORES = 1e6
_UNCOUNTED_CORES = 0.05
_UNSEEN = 1.5  # times what was seen at a look, that may have been there between two
_TIME_STEP = 60
_AGAIN = 2  # times what was asked for, where that was not enough


class Use(NamedTuple):
    """What an element used: cores on average, bytes, seconds; None is not known.

    ``whole`` says whether it came to an end of its own; else these are the least it needed.
    ``needs`` are the bytes that another like it may need, as far as its tasks tell more of that.
    """

    element: Element
    cores: float | None
    cpu_time: float | None
    memory: float | None
    seconds: float | None
    whole: bool
    needs: float | None = None


class Wanted(NamedTuple):
    """A number to ask for, and how it was made."""

    amount: int
    why: str


class Sizing(NamedTuple):
    """What to ask for: cores, bytes and seconds; None where nothing is known to go by."""

    cores: Wanted | None
    memory: Wanted | None
    walltime: Wanted | None


def uses(elements: Iterable[Element], pieces: Pieces) -> list[Use]:
    """What the elements used that have ended.

    The larger counts of what they measured themselves and what the scheduler says, and no less
    memory than any worker had while it ran a task: that peak may lie between two looks.
    """
    from fanfold.reports.at_once import at_once, largest, unevenness  # late: they import NumPy

    peaks, together, more = largest(pieces), at_once(pieces), 1 + unevenness(pieces)
    found = (
        use_of(element, peaks.get(element.number))
        for element in elements
        if element.state in ENDED or element.state == "vanished"
    )
    return [_with_needs(use, together.get(use.element.number, 0.0), more) for use in found]


def _with_needs(use: Use, together: float, more: float) -> Use:
    """With the memory that another like it may need: what its short tasks may have had together
    between two looks, but not much more than was seen, as what they share counts for each; and so
    many times ``more`` of it."""
    if use.memory is None:
        return use
    return use._replace(needs=more * max(use.memory, min(together, _UNSEEN * use.memory)))


def use_of(element: Element, largest: float | None = None) -> Use:
    """What one element used; ``largest`` is the peak memory of its workers."""
    cpu_time = _largest(element.cpu_time, element.recorded_cpu_time)
    memory = _largest(element.peak_memory, element.recorded_memory, largest)
    seconds = _largest(element.seconds)
    cores = cpu_time / seconds if cpu_time and seconds else None
    cores = cores if cores is None or cores < _IMPOSSIBLE_CORES else None
    return Use(element, cores, cpu_time, memory, seconds, element.state in ("done", "failed"))


def _largest(*numbers: float | None) -> float | None:
    """The largest of those that can be: a scheduler that has not looked in time says 0."""
    possible = [one for one in numbers if one is not None and 0 < one < _IMPOSSIBLE]
    return max(possible, default=None)


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that at least ``share`` of them do not exceed.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 0.5), percentile([4.0, 1.0, 2.0, 3.0], 0.95)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]


class _Rule(NamedTuple):
    """How a number is made: from what of an element, with which margin over 95 % of them, and how
    many times the most that one used, in which steps."""

    used: Callable[[Use], float | None]
    margin: Callable[[float], float]
    most: float
    steps: Callable[[float], int]
    shown: Callable[[float], str]
    words: str


def sizing(used: Sequence[Use]) -> Sizing:
    """What to ask for next time, by the rules of this module.

    >>> element = Element(1, "12", 0, "n1", "done", 9, cores=4, memory=8 << 30, walltime=3600)
    >>> advised = sizing([Use(element, 1.1, 660.0, 1 << 30, 600.0, True)])
    >>> [wanted.amount for wanted in advised]
    [2, 1342177280, 1680]
    >>> advised.memory.why
    '95 % (1.0 GB) times 1.2, rounded up'
    """
    cores = _wanted(used, _CORES)
    memory = _wanted(used, _MEMORY, _refused(used, "memory"))
    time = _TIME
    if cores and any(use.element.cores > cores.amount for use in used):
        time = time._replace(
            used=lambda use: _stretched(use, cores.amount),
            shown=lambda amount: f"{duration(amount)} at the longest on so few cores",
        )
    return Sizing(cores, memory, _wanted(used, time, _refused(used, "walltime")))


_CORES = _Rule(
    used=lambda use: use.cores,
    margin=lambda high: high,
    most=1.0,
    steps=lambda amount: max(1, math.ceil(amount - _UNCOUNTED_CORES)),
    shown=lambda amount: f"{amount:.2f}",
    words="rounded up",
)
_MEMORY = _Rule(
    used=lambda use: use.needs or use.memory,
    margin=lambda high: high * 1.2,
    most=1.15,
    steps=lambda amount: _stepped(amount, (64 if amount < 1 << 30 else 256) << 20),
    shown=size,
    words="times 1.2, rounded up",
)
_TIME = _Rule(
    used=lambda use: use.seconds,
    margin=lambda high: max(high * 1.4, high + 300),
    most=1.35,
    steps=lambda amount: _stepped(amount, _TIME_STEP),
    shown=duration,
    words="times 1.4, and 5 minutes more at least",
)


def _stepped(amount: float, step: int) -> int:
    """The next multiple of a step."""
    return math.ceil(amount / step) * step


def _wanted(
    used: Sequence[Use], rule: _Rule, refused: Iterable[tuple[float, str]] = ()
) -> Wanted | None:
    """The largest of the 95 % and of the most, with their margins, and twice what was refused."""
    known = [(found, use.whole) for use in used if (found := rule.used(use)) is not None]
    every = [found for found, _ in known]
    whole = [found for found, whole in known if whole] or every
    chosen = [
        (_AGAIN * asked, f"twice the {shown} that was not enough") for asked, shown in refused
    ]
    if whole:
        high, most = percentile(whole, 0.95), max(every)
        chosen.append((rule.margin(high), f"95 % ({rule.shown(high)}) {rule.words}"))
        more = f", times {rule.most:g}" if rule.most > 1 else ""
        chosen.append((rule.most * most, f"the most that one used ({rule.shown(most)}){more}"))
    if not chosen:
        return None
    amount, why = max(chosen, key=itemgetter(0))
    return Wanted(rule.steps(amount), why)


def _refused(
    used: Sequence[Use], what: Literal["memory", "walltime"]
) -> Iterator[tuple[float, str]]:
    """What elements asked for that were ended because it was not enough, and that in words."""
    for use in used:
        memory, walltime = use.element.memory, use.element.walltime
        if use.element.state == what == "memory" and memory is not None:
            yield memory, size(memory)
        elif use.element.state == what == "walltime" and walltime is not None:
            yield walltime, duration(walltime)


def _stretched(use: Use, cores: int) -> float | None:
    """How long it would take at most on fewer cores than it had."""
    return use.seconds and use.seconds * max(1.0, use.element.cores / cores)
