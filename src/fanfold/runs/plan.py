"""Which task runs in which element of which job array."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from fanfold.costs import dealt
from fanfold.schedulers.base import Limits

__all__ = ["common", "element_count", "plan"]

_WORTH = 60.0  # seconds of work that make an element worth its start
_PART_OF_WALLTIME = 0.5  # what an element should need of its walltime, on average
_MANY = 40  # elements, as long as nothing is known of the tasks


def element_count(
    tasks: int,
    *,
    workers: int,
    seconds: float | None = None,
    walltime: float | None = None,
    asked: int | None = None,
) -> int:
    """Among how many elements to share tasks, each of ``workers`` at a time.

    ``asked`` is what the user says. Without it an element gets a minute of work, and half of its
    ``walltime`` at most, from the ``seconds`` that a task takes; when these are not known, there
    are 40 elements, or as many as get a task for every worker.

    >>> element_count(10_000, workers=4, seconds=1.2)
    50
    >>> element_count(10_000, workers=4), element_count(3, workers=4), element_count(8, workers=1)
    (40, 1, 8)
    """
    if asked is not None:
        return max(1, min(asked, tasks))
    if seconds is None:
        return max(1, min(_MANY, math.ceil(tasks / workers)))
    worth = _WORTH if walltime is None else min(_WORTH, _PART_OF_WALLTIME * walltime)
    together = max(workers, round(worth * workers / max(seconds, 1e-6)))
    return max(1, math.ceil(tasks / together))


def plan(
    tasks: Sequence[range], elements: int, limits: Limits, costs: Sequence[float] | None = None
) -> list[list[list[range]]]:
    """The shares of the elements of each array: as few arrays as the limits allow.

    ``tasks`` are ascending ranges of indices. Shares differ by one task at most; with ``costs``, by
    task, they cost about the same instead, and the longest of each is first.

    >>> plan([range(0, 4), range(7, 8)], 2, Limits())
    [[[range(0, 3)], [range(3, 4), range(7, 8)]]]
    >>> [len(array) for array in plan([range(10)], 10, Limits(elements=4))]
    [4, 4, 2]
    >>> plan([range(4)], 2, Limits(), costs=[1, 1, 1, 3])
    [[[range(3, 4)], [range(0, 1), range(1, 2), range(2, 3)]]]
    """
    shares = list(_shares(tasks, elements)) if costs is None else dealt(costs, tasks, elements)
    most = max(1, min(limits.elements, limits.highest_index + 1))
    return [shares[first : first + most] for first in range(0, len(shares), most)]


def _shares(tasks: Sequence[range], elements: int) -> Iterator[list[range]]:
    total = sum(map(len, tasks))
    left = iter(tasks)
    part = next(left, range(0))
    for element in range(elements):
        wanted = total // elements + (element < total % elements)
        share: list[range] = []
        while wanted:
            if not part:
                part = next(left)
            share.append(part[:wanted])
            wanted -= len(share[-1])
            part = part[len(share[-1]) :]
        yield share


def common(tasks: Sequence[range], wanted: Sequence[range]) -> list[range]:
    """Those of the tasks, in their order, that are wanted, as few ranges; ``wanted`` is ascending.

    >>> common([range(6, 9), range(0, 4)], [range(2, 7)])
    [range(6, 7), range(2, 4)]
    """
    found: list[range] = []
    for part in tasks:
        place = bisect_right(wanted, part.start, key=lambda one: one.stop)
        for number in range(place, len(wanted)):
            one = wanted[number]
            start, stop = max(part.start, one.start), min(part.stop, one.stop)
            if start >= stop:
                break
            if found and found[-1].stop == start:
                found[-1] = range(found[-1].start, stop)
            else:
                found.append(range(start, stop))
    return found
