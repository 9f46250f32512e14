"""How an array is cut: blocks, which are the tasks, and the runs of bytes that a block is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

__all__ = ["Grid", "Region", "block_shape", "row_runs", "shape_of"]

Region = tuple[slice, ...]
"""Where a block lies: one slice an axis, from a start to a stop, in steps of 1."""


class Grid:
    """The blocks of an array, cut at the same places everywhere; ``grid[k]`` is one of them.

    ``cuts`` are for each axis the places of the cuts, 0 and the length included.

    >>> grid = Grid.regular((3, 4), (2, 4))
    >>> len(grid), grid[1]
    (2, (slice(2, 3, None), slice(0, 4, None)))
    """

    def __init__(self, cuts: Sequence[Sequence[int]]) -> None:
        self.cuts = tuple(cuts)

    @classmethod
    def regular(cls, shape: Sequence[int], block: Sequence[int]) -> Grid:
        """Blocks of one shape, but for the last ones of an axis."""
        axes = zip(shape, block, strict=True)
        return cls([[*range(0, length, max(1, size)), length] for length, size in axes])

    def __len__(self) -> int:
        return math.prod(len(cuts) - 1 for cuts in self.cuts)

    def __getitem__(self, number: int) -> Region:
        slices = []
        for cuts in reversed(self.cuts):
            number, place = divmod(number, len(cuts) - 1)
            slices.append(slice(cuts[place], cuts[place + 1]))
        return tuple(reversed(slices))

    def largest(self) -> int:
        """The number of elements in the largest block."""
        return math.prod(
            max((b - a for a, b in itertools.pairwise(cuts)), default=0) for cuts in self.cuts
        )


def shape_of(region: Region) -> tuple[int, ...]:
    """The shape of the part of an array that a region is."""
    return tuple(part.stop - part.start for part in region)


def block_shape(shape: Sequence[int], chunk: Sequence[int], most: int) -> tuple[int, ...]:
    """Whole chunks side by side, the last axes first, of at most ``most`` elements together.

    A chunk that is larger stays whole: storage gives it only so.

    >>> block_shape((1000, 300), (1, 1), 2000), block_shape((1000, 300), (100, 100), 20_000)
    ((6, 300), (100, 200))
    """
    block, room = list(chunk), max(1, most // max(1, math.prod(chunk)))
    for axis in reversed(range(len(block))):
        count = max(1, min(room, -(-shape[axis] // chunk[axis])))
        block[axis] = max(1, min(shape[axis], count * chunk[axis]))
        if block[axis] < shape[axis]:
            break
        room //= count
    return tuple(min(max(1, length), size) for length, size in zip(shape, block, strict=True))


def row_runs(shape: Sequence[int], region: Region) -> Iterator[tuple[int, int]]:
    """The runs of neighbours, in an array in C order, that a region is, in its own order: for each
    the first element and their number.

    >>> list(row_runs((3, 4), (slice(1, 3), slice(0, 2))))
    [(4, 2), (8, 2)]
    >>> list(row_runs((3, 4), (slice(1, 3), slice(0, 4))))
    [(4, 8)]
    """
    length, axis = 1, len(shape)
    while axis:  # the axes that one run spans: whole ones, and part of the one before
        axis -= 1
        part = region[axis]
        length *= part.stop - part.start
        if part.stop - part.start < shape[axis]:
            break
    strides = [math.prod(shape[at + 1 :]) for at in range(len(shape))]
    first = sum(part.start * stride for part, stride in zip(region, strides, strict=True))
    outer = [region[at].stop - region[at].start for at in range(axis)]
    for number in range(math.prod(outer)):
        place = first
        for at in reversed(range(axis)):
            number, step = divmod(number, outer[at])
            place += step * strides[at]
        yield place, length
