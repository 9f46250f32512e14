"""What tasks cost, and an order that puts the expensive ones first.

A worker that gets a long task last keeps all others waiting. So tasks of known cost go out longest
first, which ends within a third of the best there is (R. L. Graham, SIAM Journal on Applied
Mathematics 17, 1969). Costs have no unit: only their ratios matter. No result depends on them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fanfold.errors import UsageError
from fanfold.tasks import Style, short_repr

__all__ = ["Cost", "dealt", "longest_first", "read_costs"]

Cost = Callable[..., float] | Sequence[float]

_FINE = 64  # stretches in a worker's share, at least, where there are tasks for them


def read_costs(cost: Cost, inputs: Sequence[Any], style: Style = "one") -> list[float]:
    """The cost of each input: what a function of the input says, or a number for each.

    Raises `UsageError` for costs that are no numbers from 0, which names the task, and for more or
    fewer numbers than inputs. What the function raises is passed on.

    >>> read_costs(len, ["a", "abc"]), read_costs([3, 1.5], "ab")
    ([1.0, 3.0], [3.0, 1.5])
    """
    if callable(cost):
        given: list[Any] = [_called(cost, item, style) for item in inputs]
    elif isinstance(cost, (str, bytes)) or not hasattr(cost, "__len__"):
        raise UsageError(f"cost is a function of the input, or a number for each, not {cost!r}")
    else:
        given = list(cost)
    if len(given) != len(inputs):
        raise UsageError(
            f"cost has {len(given)} numbers for {len(inputs)} inputs: give one for each"
        )
    return [_number(value, index, inputs) for index, value in enumerate(given)]


def _called(cost: Callable[..., float], item: Any, style: Style) -> Any:
    if style == "one":
        return cost(item)
    return cost(**item) if style == "keywords" else cost(*item)


def _number(value: Any, index: int, inputs: Sequence[Any]) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError(
            f"the cost of task {index}, input {short_repr(inputs[index])}, is {short_repr(value)}: "
            "it must be a number from 0"
        )
    return number


def longest_first(costs: Sequence[float], tasks: Sequence[range], workers: int) -> list[range]:
    """The tasks in the order in which they should begin, for so many workers.

    Cheap neighbours stay together, so that they can travel together.

    >>> longest_first([1, 1, 9, 1, 1, 1, 4], [range(7)], workers=1)[:2]
    [range(2, 3), range(6, 7)]
    """
    return [stretch for _, stretch in _stretches(costs, tasks, _FINE * workers)]


def dealt(costs: Sequence[float], tasks: Sequence[range], shares: int) -> list[list[range]]:
    """The tasks in as many shares of about the same cost, each with its longest first.

    Fewer shares where there are too few tasks that are worth one.

    >>> dealt([8, 1, 3, 4], [range(4)], 2)
    [[range(0, 1)], [range(3, 4), range(2, 3), range(1, 2)]]
    """
    loads = [(0.0, 0, share) for share in range(shares)]  # cost, stretches
    found: list[list[range]] = [[] for _ in range(shares)]
    for cost, stretch in _stretches(costs, tasks, _FINE * shares):
        load, held, share = loads[0]
        found[share].append(stretch)
        heapq.heapreplace(loads, (load + cost, held + 1, share))
    return [share for share in found if share]


def _stretches(
    costs: Sequence[float], tasks: Sequence[range], parts: int
) -> list[tuple[float, range]]:
    """(cost, consecutive tasks): no stretch of several tasks costs more than one of so many equal
    parts; the most expensive first, of equal ones the first."""
    total = math.fsum(costs[index] for part in tasks for index in part)
    count = sum(map(len, tasks))
    found = (one for part in tasks for one in _cut(costs, part, total / parts, count / parts))
    return sorted(found, key=lambda one: -one[0])


def _cut(
    costs: Sequence[float], tasks: range, dear: float, many: float
) -> Iterator[tuple[float, range]]:
    """Consecutive tasks in stretches of at most such a cost and so many tasks, or of one task."""
    first, cost = tasks.start, 0.0
    for index in tasks:
        if index > first and (cost + costs[index] > dear or index - first >= many):
            yield cost, range(first, index)
            first, cost = index, 0.0
        cost += costs[index]
    if tasks:
        yield cost, range(first, tasks.stop)
