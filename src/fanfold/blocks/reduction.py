"""One value of many blocks: tiles are reduced, and their values combined by a fixed tree.

The tree of a block is that of its tiles, and the tree of the whole that of its blocks
(`fanfold.folding`). Neither depends on who computes what, so the bits of a result are the same on
any executor and any number of workers. Blocks of a file are a power of two of tiles: there the two
trees are one, the same for any memory budget too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fanfold.blocks.grid import Grid, Region
from fanfold.blocks.source import TILE, Array, Source
from fanfold.folding import Fold

__all__ = ["OwnReduction", "Position", "Reduction", "TileReduction"]


class Position(NamedTuple):
    """Where a tile lies: its elements are those from number ``first`` of the region."""

    source: Source
    region: Region
    first: int

    def where(self, numbers: Array) -> int:
        """Of these elements of the tile the one that comes first in the flattened array."""
        return int(self.source.positions(self.region, numbers + self.first).min())


class Reduction(ABC):
    """What is made of tiles: the value of one tile, and that of two neighbours."""

    @property
    def state(self) -> int:
        """The size of a value, in bytes, where it is worth counting."""
        return 0

    def most(self, dtype: np.dtype[Any]) -> int:
        """How many elements `leaf` may be given at once: a tile, or as many tiles as give the same
        bits, a power of two of them."""
        return TILE

    @abstractmethod
    def leaf(self, at: Position, *tiles: Array) -> Any:
        """The value of a tile: of one of each source, in the same place."""

    @abstractmethod
    def combine(self, left: Any, right: Any) -> Any:
        """The value of two parts together."""


@dataclass(frozen=True)
class TileReduction:
    """The task of a block: `Reduction.leaf` of its tiles, combined. Called with its number."""

    sources: tuple[Source, ...]
    grid: Grid
    reduction: Reduction

    def __call__(self, number: int) -> Any:
        region = self.grid[number]
        tree = Fold(self.reduction.combine)
        with np.errstate(all="ignore"):  # inf - inf is NaN, as it is in NumPy
            first, most = 0, self.reduction.most(self.sources[0].dtype)
            tiles = (source.tiles(region, most) for source in self.sources)
            for parts in zip(*tiles, strict=True):
                value = self.reduction.leaf(Position(self.sources[0], region, first), *parts)
                level = max(0, (len(parts[0]) // TILE).bit_length() - 1)
                tree.add([(level, first // TILE >> level, value)])
                first += len(parts[0])
        return tree.result()

    def combine(self, left: Any, right: Any) -> Any:
        with np.errstate(all="ignore"):
            return self.reduction.combine(left, right)


@dataclass(frozen=True)
class OwnReduction:
    """The task of a block for a reduction of the user's own."""

    source: Source
    grid: Grid
    map: Callable[[Array], Any]

    def __call__(self, number: int) -> Any:
        return self.map(self.source.read(self.grid[number]))
