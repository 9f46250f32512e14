"""Tiles, pieces of arrays that fit the cache, and the workbench on which a thread computes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fanfold.expressions.program import Program
from fanfold.expressions.threads import scratch

__all__ = ["LONG", "SHORT", "TILE", "Grid", "Workbench", "tile_shape"]

Array = np.ndarray[Any, Any]

TILE = 2**16
"""Elements in a tile: the buffers stay in the caches of a core, and an operation on them takes
long enough that threads seldom meet at the lock of the interpreter."""


SHORT, LONG = 2**18, 2**20
"""Elements in a tile for machine code, which needs no buffers, but of which each call costs some
microseconds: in small arrays, where all threads are to have a share, and in large ones."""


def tile_shape(
    shape: Sequence[int], innermost: int | None = None, most: int = TILE
) -> tuple[int, ...]:
    """The lengths of a tile: ``most`` elements, the last axes first, and of the very last at most
    ``innermost``.

    >>> tile_shape((5, 100_000)), tile_shape((1000, 300)), tile_shape((9, 9999), 4096)
    ((1, 50048), (218, 300), (9, 3392))
    """
    room, lengths = most, []
    for number, length in enumerate(reversed(shape)):
        limit = room if number or innermost is None else min(room, innermost)
        size = _even(length, limit)
        lengths.append(size)
        room //= size
    return tuple(reversed(lengths))


def _even(length: int, limit: int) -> int:
    """At most ``limit``, so that tiles are of about the same length; in whole cache lines."""
    if length <= limit:
        return max(1, length)
    size = -(-length // -(-length // max(1, limit)))
    return min(-(-size // 64) * 64, limit) if limit >= 64 else size


class Grid:
    """The tiles of an array as tuples of slices: ``grid[k]`` is any of them, ``len`` counts them.

    >>> list(Grid((2, 5), (1, 3)))[:2]
    [(slice(0, 1, None), slice(0, 3, None)), (slice(0, 1, None), slice(3, 5, None))]
    """

    def __init__(self, shape: Sequence[int], tile: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.tile = tuple(tile)
        self._counts = [-(-n // size) for n, size in zip(shape, tile, strict=True)]

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __getitem__(self, number: int) -> tuple[slice, ...]:
        slices = []
        axes = zip(self.shape, self.tile, self._counts, strict=True)
        for length, size, count in reversed(list(axes)):
            number, place = divmod(number, count)
            slices.append(slice(place * size, min(length, place * size + size)))
        return tuple(reversed(slices))

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        return (self[number] for number in range(len(self)))


class Workbench:
    """The buffers of one thread for one program, and the loop over its steps.

    ``largest`` is the number of elements of the largest tile.
    """

    def __init__(self, program: Program, largest: int) -> None:
        self._program = program
        self._buffers: list[Array] = []
        sizes = [-(-largest * dtype.itemsize // 64) * 64 for dtype in program.slots]
        memory, offset = scratch(sum(sizes) + 64), 0
        offset = -memory.ctypes.data % 64  # so that no vector crosses a cache line
        for dtype, size in zip(program.slots, sizes, strict=True):
            self._buffers.append(memory[offset : offset + largest * dtype.itemsize].view(dtype))
            offset += size
        self._shaped: dict[tuple[int, ...], list[Array]] = {}

    def run(
        self, tiles: dict[int, Array], shape: tuple[int, ...], out: Array | None = None
    ) -> list[Any]:
        """The roots for one tile, the cells of the arrays being ``tiles``.

        The results are buffers or tiles, valid until the next call. With ``out``, which has to be
        of the dtype of the only root, the result is written there.
        """
        cells = {**self._program.scalars, **tiles}
        buffers = self._of_shape(shape)
        last = self._program.roots[0] if out is not None else None
        for step in self._program.steps:
            target: Any = out if step.target == last else buffers[step.slot]
            step.into(*[cells[at] for at in step.arguments], target)
            cells[step.target] = target
        return [cells[root] for root in self._program.roots]

    def _of_shape(self, shape: tuple[int, ...]) -> list[Array]:
        if shape not in self._shaped:
            size = math.prod(shape)
            self._shaped[shape] = [buffer[:size].reshape(shape) for buffer in self._buffers]
        return self._shaped[shape]
