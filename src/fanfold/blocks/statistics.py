"""The statistics: what is kept of a tile, and how two of them become one.

Sums are pairwise: NumPy's within a tile, the tree above it. Numbers are added as float64 (complex
ones as complex128, long doubles as such), integers as int64, which wraps, as NumPy documents.
Moments are combined as in Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fanfold.blocks.reduction import Position, Reduction
from fanfold.blocks.source import SPAN, TILE, Array

__all__ = [
    "Arg",
    "Comoments",
    "Counts",
    "Extreme",
    "Fit",
    "LinearFit",
    "Moments",
    "Sum",
    "Variance",
    "line",
]


def floats(tile: Array) -> Array:
    """The tile in the type that sums are kept in, so that adding loses next to nothing."""
    wide = np.result_type(tile.dtype, np.float64)
    return tile.astype(wide, copy=False)


@dataclass(frozen=True)
class Sum(Reduction):
    """The sum; of integers modulo 2**64, or, when not ``modular``, as floats."""

    modular: bool

    def most(self, dtype: np.dtype[Any]) -> int:
        """NumPy halves what it adds up again and again, as the tree does; not so what it has to
        convert."""
        return SPAN if self.modular or dtype == np.result_type(dtype, np.float64) else TILE

    def leaf(self, at: Position, *tiles: Array) -> Any:
        if self.modular:
            return int(np.add.reduce(tiles[0]))
        return np.add.reduce(floats(tiles[0]))

    def combine(self, left: Any, right: Any) -> Any:
        return left + right


@dataclass(frozen=True)
class Extreme(Reduction):
    """The least or the greatest element; NaN when there is one, as in NumPy."""

    name: str  # of the ufunc: "minimum" or "maximum"

    def most(self, dtype: np.dtype[Any]) -> int:
        return SPAN

    def leaf(self, at: Position, *tiles: Array) -> Any:
        return getattr(np, self.name).reduce(tiles[0])

    def combine(self, left: Any, right: Any) -> Any:
        return getattr(np, self.name)(left, right)


@dataclass(frozen=True)
class Arg(Reduction):
    """An extreme and where it is: (value, index in the flattened array), the first of equals."""

    name: str  # of the function: "argmin" or "argmax"

    def leaf(self, at: Position, *tiles: Array) -> Any:
        (tile,) = tiles
        value = tile[getattr(np, self.name)(tile)]
        same = tile == value if value == value else np.isnan(tile)
        return value, at.where(np.flatnonzero(same))

    def combine(self, left: Any, right: Any) -> Any:
        first, second = sorted((left, right), key=lambda pair: pair[1])
        return (first, second)[int(getattr(np, self.name)([first[0], second[0]]))]


class Moments(NamedTuple):
    """Of ``length`` numbers the sum, and the sum of the squared distances from their mean."""

    length: int
    total: Any
    squares: Any


@dataclass(frozen=True)
class Variance(Reduction):
    """What the variance is made of: `Moments`."""

    def leaf(self, at: Position, *tiles: Array) -> Any:
        tile = floats(tiles[0])
        total = np.add.reduce(tile)
        return Moments(len(tile), total, _squares(tile - total / len(tile)))

    def combine(self, left: Any, right: Any) -> Any:
        count = left.length + right.length
        apart = right.total / right.length - left.total / left.length
        weight = left.length * right.length / count
        squares = left.squares + right.squares + (apart * apart.conjugate()).real * weight
        return Moments(count, left.total + right.total, squares)


def _squares(tile: Array) -> Any:
    if tile.dtype.kind == "c":
        return np.add.reduce(tile.real**2 + tile.imag**2)
    return np.add.reduce(np.multiply(tile, tile, out=tile))


@dataclass(frozen=True)
class Counts(Reduction):
    """How many elements lie in each bin, as `numpy.histogram` counts them."""

    bins: Any  # their number, or their edges
    range: tuple[Any, Any] | None

    @property
    def state(self) -> int:
        return 8 * (self.bins if isinstance(self.bins, int) else len(self.bins))

    def leaf(self, at: Position, *tiles: Array) -> Any:
        return np.histogram(tiles[0], self.bins, self.range)[0]

    def combine(self, left: Any, right: Any) -> Any:
        return left + right


class Comoments(NamedTuple):
    """Of ``length`` pairs the sums, and the sums of squares and products of the distances from the
    means."""

    length: int
    x: Any
    y: Any
    xx: Any
    yy: Any
    xy: Any


@dataclass(frozen=True)
class Fit(Reduction):
    """What a line through points is made of: `Comoments`."""

    def leaf(self, at: Position, *tiles: Array) -> Any:
        x, y = (floats(tile) for tile in tiles)
        total_x, total_y = np.add.reduce(x), np.add.reduce(y)
        x, y = x - total_x / len(x), y - total_y / len(y)
        xy = np.add.reduce(x * y)
        return Comoments(len(x), total_x, total_y, _squares(x), _squares(y), xy)

    def combine(self, left: Any, right: Any) -> Any:
        count = left.length + right.length
        weight = left.length * right.length / count
        x = right.x / right.length - left.x / left.length
        y = right.y / right.length - left.y / left.length
        return Comoments(
            count,
            left.x + right.x,
            left.y + right.y,
            left.xx + right.xx + x * x * weight,
            left.yy + right.yy + y * y * weight,
            left.xy + right.xy + x * y * weight,
        )


class LinearFit(NamedTuple):
    """The line ``y = slope * x + intercept`` of least squares through ``points`` points.

    ``correlation`` is Pearson's, and ``slope_error`` the standard error of the slope.
    """

    slope: float
    intercept: float
    correlation: float
    slope_error: float
    points: int


def line(found: Comoments) -> LinearFit:
    """The line through the points. All NaN where there is none: when all ``x`` are one number."""
    count, x, y = found.length, float(found.x), float(found.y)
    xx, yy, xy = float(found.xx), float(found.yy), float(found.xy)
    if not xx > 0:
        return LinearFit(math.nan, math.nan, math.nan, math.nan, count)
    slope = xy / xx
    # Rounding may leave a little more than 1, or less than nothing.
    correlation = min(1.0, max(-1.0, xy / math.sqrt(xx * yy))) if yy > 0 else math.nan
    left = max(0.0, yy - slope * xy)
    error = math.sqrt(left / (count - 2) / xx) if count > 2 else math.nan
    return LinearFit(slope, (y - slope * x) / count, correlation, error, count)
