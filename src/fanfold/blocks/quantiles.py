"""Quantiles by radix selection: each pass over the array tells two more bytes of an element.

The elements are seen as unsigned integers in the same order. The first pass counts their upper
sixteen bits, which tells those of the element of a given rank; the next counts the following
sixteen among the elements that begin so; and so on. No element is kept, and the last pass knows
the element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fanfold.blocks.reduction import Position, Reduction
from fanfold.blocks.running import mark
from fanfold.blocks.source import Array
from fanfold.errors import UsageError

__all__ = ["CountDigits", "Estimate", "quantiles"]

_STEP = 16  # bits told by a pass


class Estimate(NamedTuple):
    """A number that is at most ``error`` away from ``value``."""

    value: float
    error: float


class Digits(NamedTuple):
    """For each prefix how many elements go on with each value of the next bits, and how many
    elements are NaN."""

    counts: Array
    nans: int


@dataclass(frozen=True)
class CountDigits(Reduction):
    """Counts, among elements whose keys begin with one of ``prefixes``, the ``bits`` after
    those, ``shift`` bits from the end."""

    prefixes: tuple[int, ...]
    bits: int
    shift: int

    @property
    def state(self) -> int:
        return 8 * len(self.prefixes) << self.bits

    def leaf(self, at: Position, *tiles: Array) -> Any:
        (tile,) = tiles
        keys = to_keys(tile)
        digits = keys >> keys.dtype.type(self.shift)
        if len(self.prefixes) == 1 and self.shift + self.bits == 8 * keys.itemsize:
            counts = np.bincount(digits.astype(np.intp), minlength=1 << self.bits)[None]
        else:
            upper, mask = digits >> digits.dtype.type(self.bits), (1 << self.bits) - 1
            counts = np.stack([
                np.bincount(
                    (digits[upper == prefix] & digits.dtype.type(mask)).astype(np.intp),
                    minlength=1 << self.bits,
                )
                for prefix in self.prefixes
            ])  # fmt: skip
        nans = int(np.count_nonzero(tile != tile)) if tile.dtype.kind == "f" else 0
        return Digits(counts, nans)

    def combine(self, left: Any, right: Any) -> Any:
        return Digits(left.counts + right.counts, left.nans + right.nans)


def to_keys(tile: Array) -> Array:
    """Unsigned integers in the order of the elements.

    >>> [int(key) >> 24 for key in to_keys(np.array([-1.0, 0.0, 1.0], np.float32))]
    [64, 128, 191]
    """
    keys = tile.view(f"u{tile.itemsize}")
    top = keys.dtype.type(1 << (8 * tile.itemsize - 1))
    if tile.dtype.kind == "f":  # a negative number is the smaller the larger its other bits are
        return np.where(keys & top, ~keys, keys | top)
    return keys ^ top if tile.dtype.kind == "i" else keys


def from_key(key: int, dtype: np.dtype[Any]) -> Any:
    """The element of that key."""
    width = 8 * dtype.itemsize
    top = 1 << (width - 1)
    if dtype.kind == "f":
        key = key ^ top if key & top else ~key & (2 * top - 1)
    elif dtype.kind == "i":
        key ^= top
    return np.array(key, f"u{dtype.itemsize}").view(dtype)[()]


def quantiles(
    reduced: Callable[[Reduction, str], Any],
    dtype: np.dtype[Any],
    size: int,
    q: Array,
    passes: int | None,
) -> list[Any]:
    """For each of ``q`` its quantile, or its `Estimate` where ``passes`` is less than it takes.

    ``reduced`` computes a reduction of the whole array, under a name.
    """
    most = -(-8 * dtype.itemsize // _STEP)
    _check(dtype, q, passes, most)
    places = q * (size - 1)
    lower = np.floor(places).astype(np.int64)
    ranks = sorted({int(rank) for rank in (*lower, *np.minimum(lower + 1, size - 1))})
    width = 8 * dtype.itemsize
    prefixes, left = dict.fromkeys(ranks, 0), {rank: rank for rank in ranks}
    for _ in range(most if passes is None else min(passes, most)):
        bits = min(_STEP, width)
        width -= bits
        known = tuple(sorted(set(prefixes.values())))
        found = reduced(CountDigits(known, bits, width), f"quantile-{mark(known, width)}")
        if found.nans:
            return [_told(np.nan, 0.0, passes)] * len(q)
        sums = np.cumsum(found.counts, axis=1)
        for rank in ranks:
            row = sums[known.index(prefixes[rank])]
            digit = int(np.searchsorted(row, left[rank], side="right"))
            left[rank] -= int(row[digit - 1]) if digit else 0
            prefixes[rank] = prefixes[rank] << bits | digit
    ends = {rank: _ends(prefixes[rank], width, dtype) for rank in ranks}
    return [
        _between(ends, int(low), place, size, passes)
        for low, place in zip(lower, places, strict=True)
    ]


def _check(dtype: np.dtype[Any], q: Array, passes: int | None, most: int) -> None:
    if dtype.kind == "c" or dtype.itemsize > 8:
        raise UsageError(f"quantiles are of real numbers of up to 64 bits, not of {dtype}")
    if not np.all((q >= 0) & (q <= 1)):
        raise UsageError(f"q={q.tolist()}: a quantile is from 0 to 1")
    if passes is not None and (isinstance(passes, bool) or passes < 1):
        raise UsageError(f"passes={passes!r}: write 1 to {most}, or None for an exact quantile")


def _ends(prefix: int, unknown: int, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest element that begins so, the last bits being unknown."""
    first = prefix << unknown
    kind = np.dtype("u1") if dtype.kind == "b" else dtype
    wide = np.float64 if kind.kind == "f" else int
    low, high = from_key(first, kind), from_key(first + (1 << unknown) - 1, kind)
    return wide(low), wide(high)


def _between(
    ends: dict[int, tuple[Any, Any]], low: int, place: float, size: int, passes: int | None
) -> Any:
    """The quantile between two neighbours, linearly, as NumPy's default is."""
    weight = place - low
    a, b = ends[low], ends[min(low + 1, size - 1) if weight else low]
    with np.errstate(all="ignore"):
        least, greatest = (_mixed(x, y, weight) for x, y in zip(a, b, strict=True))
    middle = least if least == greatest else least / 2 + greatest / 2
    error = max(greatest - middle, middle - least)
    bound = math.nextafter(error, math.inf) if error == error else math.inf
    return _told(middle, bound if error else 0.0, passes)


def _mixed(a: Any, b: Any, weight: float) -> float:
    """As `numpy.quantile` computes it: from the nearer end."""
    if a == b:  # infinities, too
        return float(a)
    apart = b - a
    return float(b - apart * (1 - weight) if weight >= 0.5 else a + apart * weight)


def _told(value: float, error: float, passes: int | None) -> Any:
    return np.float64(value) if passes is None else Estimate(float(value), error)
