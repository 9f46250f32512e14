"""How values are distributed: quantiles, and histograms with round borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fanfold.reports.document import Bin, Histogram, Table, Tick
from fanfold.reports.pieces import Floats, Integers
from fanfold.reports.scales import Unit, counts_axis, linear_axis, log_axis, spread
from fanfold.reports.words import number

__all__ = ["histogram", "quantiles"]

LOGARITHMIC = 20  # the ratio of the largest to the smallest value from which a scale is logarithmic
_SMALLEST = 1e-6


def quantiles(values: Floats, counts: Integers, shares: Sequence[float]) -> list[float]:
    """The values below which the ``shares`` lie, where each value stands for ``counts`` equal ones.

    >>> quantiles(np.array([3.0, 1.0]), np.array([1, 9]), [0.0, 0.5, 0.9, 1.0])
    [1.0, 1.0, 1.0, 3.0]
    """
    order = np.argsort(values)
    reached = np.cumsum(counts[order])
    wanted = np.ceil(np.array(shares) * reached[-1]).clip(1, reached[-1])
    return [float(value) for value in values[order][np.searchsorted(reached, wanted)]]


def histogram(
    title: str,
    values: Floats,
    counts: Integers,
    ok: NDArray[np.bool_],
    unit: Unit,
    label: str,
    *,
    logarithmic: bool = False,
) -> Histogram:
    """The distribution of ``values``, of which each stands for ``counts`` attempts.

    ``logarithmic`` allows a logarithmic scale where values are of very different size; it is made
    for durations.
    """
    most = min(30, max(6, math.ceil(2 * math.sqrt(float(counts.sum())))))
    low, high = float(values.min()), float(values.max())
    if logarithmic and high >= LOGARITHMIC * max(low, _SMALLEST):
        low = max(low, _SMALLEST)
        edges, axis = np.geomspace(low, high, most + 1), log_axis(low, high, label)
    else:
        low, high, steps = spread(low, high, unit, most)
        edges, axis = np.linspace(low, high, steps + 1), linear_axis(low, high, unit, label)
    bins = tuple(_bins(values, counts, ok, edges, unit.shown))
    heights, top = counts_axis(max(bin_.done + bin_.failed for bin_ in bins))
    median = quantiles(values, counts, [0.5])[0]
    where = np.interp(median, edges, np.linspace(0, 1, len(edges)))
    marks = (Tick(float(where), f"median {unit.shown(median)}"),)
    return Histogram(title, axis, heights, top, bins, marks, _table(bins))


def _bins(
    values: Floats,
    counts: Integers,
    ok: NDArray[np.bool_],
    edges: Floats,
    shown: Callable[[float], str],
) -> Iterator[Bin]:
    bins = len(edges) - 1
    where = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    done = np.bincount(where[ok], counts[ok], bins)
    failed = np.bincount(where[~ok], counts[~ok], bins)
    for index in range(bins):
        yield Bin(
            start=index / bins,
            end=(index + 1) / bins,
            low=shown(float(edges[index])),
            high=shown(float(edges[index + 1])),
            done=int(done[index]),
            failed=int(failed[index]),
        )


def _table(bins: Sequence[Bin]) -> Table:
    columns = ("from", "to", "went well", "failed")
    rows = (
        (bin_.low, bin_.high, number(bin_.done), number(bin_.failed))
        for bin_ in bins
        if bin_.done or bin_.failed
    )
    return Table("Bins", columns, tuple(rows), frozenset(columns))
