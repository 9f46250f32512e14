"""What every source of blocks answers: what the array is, how to cut it, and how to read a part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from fanfold.blocks.grid import Grid, Region, block_shape, shape_of
from fanfold.errors import UsageError

__all__ = ["SPAN", "TILE", "Array", "Source", "check_dtype"]

Array = np.ndarray[Any, Any]

TILE = 2**17
"""Elements in a tile, the leaves of the tree: they stay in the cache of a core. The same always,
for the bits of a result depend on it."""

SPAN = 16 * TILE
"""Elements that a reduction may take at once instead of so many tiles, where that gives the same
bits: after each tile Python comes back to caches that hold nothing of it any more, and that takes
as long as a tenth of the tile."""


class Source(ABC):
    """An array that lies elsewhere. Small, and can be sent: a worker opens what it reads.

    ``path`` is where it lies. ``shape`` and ``dtype`` are the array's, as NumPy says them, and
    ``stored`` is the dtype that it is stored in; ``copies`` is how many arrays of the size of a
    block are held while one is read and reduced. A ``flat`` source can be cut anywhere:
    `tiles` takes regions of the array as one axis, too.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    copies: int = 2
    flat: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def chunk(self) -> tuple[int, ...]:
        """The shape of what storage reads at once."""
        return (1,) * len(self.shape)

    def grid(self, most: int) -> Grid:
        """Blocks of about ``most`` elements, by the shape of the array."""
        return Grid.regular(self.shape, block_shape(self.shape, self.chunk, most))

    def part(self, most: int) -> tuple[int, ...] | None:
        """The shape of parts of about ``most`` elements that are read well; None where all are."""
        return block_shape(self.shape, self.chunk, most)

    @abstractmethod
    def read(self, region: Region) -> Array:
        """A copy of that part of the array, in C order, in the byte order of this machine."""

    def tiles(self, region: Region, most: int = TILE) -> Iterator[Array]:
        """The elements of a region in one dimension, `TILE` at a time; each until the next. Where
        they need not be copied, ``most`` at a time, as long as there are as many."""
        flat = self.read(region).reshape(-1)
        for first in range(0, len(flat), TILE):
            yield flat[first : first + TILE]

    def positions(self, region: Region, numbers: Array) -> Array:
        """Where the elements with these numbers in `tiles` stand in the flattened array."""
        inside = np.unravel_index(numbers, shape_of(region))
        starts = [part.start for part in region]
        places = tuple(axis + start for axis, start in zip(inside, starts, strict=True))
        return np.asarray(np.ravel_multi_index(places, self.shape))


def check_dtype(dtype: np.dtype[Any], what: str) -> np.dtype[Any]:
    """The dtype, when it is one of numbers. Raises `UsageError`."""
    if dtype.hasobject:
        raise UsageError(
            f"{what} holds Python objects (dtype {dtype}), and Blocks reads numbers: save it with "
            "a type such as float, numpy.save(path, array.astype(float))"
        )
    if dtype.names:
        raise UsageError(f"{what} is structured: say which field, as column={dtype.names[0]!r}")
    if dtype.kind not in "biufc":
        raise UsageError(f"{what} holds {dtype}, and Blocks reads numbers")
    return dtype
