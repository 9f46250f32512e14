"""Operands that lie elsewhere: in files larger than memory, which are read block by block.

A block of the result is computed as if it were all: its part of each operand is read, and goes
through `elementwise` or `reductions` in one thread, while other threads have other blocks. How the
array is cut depends on shapes and files alone, and the reductions of blocks are joined by a fixed
tree (`fanfold.folding`), so the bits are the same for any number of workers and any budget.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.elementwise import elementwise
from fanfold.expressions.floating import Events
from fanfold.expressions.graph import Graph
from fanfold.expressions.mapped import let_go, lies_in
from fanfold.expressions.partial import KINDS, store_of
from fanfold.expressions.program import Program
from fanfold.expressions.reductions import partial
from fanfold.expressions.threads import Pieces, spread
from fanfold.expressions.tiles import Grid, tile_shape
from fanfold.folding import Fold
from fanfold.units import format_size

__all__ = ["Stored", "elements", "is_stored", "total"]

Array = np.ndarray[Any, Any]

BLOCK = 2**18
"""Elements of a block: it stays in the caches of a core between being read and being computed."""

_WRITTEN = 2
"""Blocks of the result whose pages a thread keeps: where it has written, others may go on."""

NARROW = 2**14
"""Elements of its last axis, where it is reduced: for sums of columns it must have some rows."""


@dataclass(frozen=True)
class Stored:
    """An array that is read in parts. An object that has one gives it by ``__stored__()``.

    ``read(region)`` gives a part, for a slice of each axis; ``part(most)`` the shape of parts of
    about so many elements that are read well, None where all are. While an element is read,
    ``held`` bytes are; all threads together may hold ``memory`` bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: str
    read: Callable[[tuple[slice, ...]], Array]
    part: Callable[[int], tuple[int, ...] | None]
    held: int
    memory: int

    @property
    def ndim(self) -> int:
        return len(self.shape)


def is_stored(program: Program) -> bool:
    """Whether any operand has to be read."""
    return any(isinstance(one, Stored) for one in program.arrays.values())


def elements(
    program: Program, shape: tuple[int, ...], out: Array | None, workers: int, events: Events
) -> Array:
    """The only root of the program, in ``out`` or a new array; see `elementwise.elementwise`."""
    operands = _stored(program)
    dtype = program.dtype(program.roots[0])
    memory = min(one.memory for one in operands)
    if out is None and math.prod(shape) * dtype.itemsize > memory:
        raise UsageError(
            f"the result has {format_size(math.prod(shape) * dtype.itemsize)}, and "
            f'memory={format_size(memory)!r}: write it to a file, out="result.npy"'
        )
    if out is not None and any(lies_in(out, one.path) for one in operands):
        raise UsageError("out lies in the file of an operand: write to another file")
    target = np.empty(shape, dtype) if out is None else out
    grid = Grid(shape, _block(operands, shape))
    workers = _fitting(operands, grid.tile, (_WRITTEN + 2) * target.itemsize, workers)

    def work(pieces: Pieces) -> None:
        written: deque[tuple[slice, ...]] = deque()
        for number in pieces:
            region = grid[number]
            part = _part(program, region)
            elementwise(part, _shape_of(region), target[region], 1, events)
            written.append(region)
            if len(written) > _WRITTEN:
                let_go(target[written.popleft()])

    spread(work, len(grid), workers)
    let_go(target)
    return target


def total(
    graph: Graph,
    position: int,
    program: Program,
    known: dict[int, Any],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    workers: int,
    events: Events,
) -> Array:
    """The reduction at this position, before it is finished; see `reductions.partial`."""
    kind, operands = graph.nodes[position].operation, _stored(program)
    tile = _block(operands, shape, NARROW)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    outer = Grid([shape[axis] for axis in kept], [tile[axis] for axis in kept])
    inner = Grid([shape[axis] for axis in axes], [tile[axis] for axis in axes])
    result = np.empty(outer.shape, store_of(kind, program.dtype(program.roots[0])))
    trees, lock = [Fold(KINDS[kind].ufunc) for _ in range(len(outer))], threading.Lock()

    def work(pieces: Pieces) -> None:
        with events.noted():
            for number in pieces:
                place, nth = divmod(number, len(inner))
                at = dict(zip((*kept, *axes), (*outer[place], *inner[nth]), strict=True))
                region = tuple(at[axis] for axis in range(len(shape)))
                part = _part(program, region)
                there = {**known, **part.arrays}
                value = partial(graph, position, part, there, _shape_of(region), axes, 1, events)
                with lock:
                    trees[place].add([(0, nth, value)])

    spread(work, len(outer) * len(inner), _fitting(operands, tile, 0, workers))
    with events.noted():
        for place, tree in enumerate(trees):
            result[outer[place]] = tree.result()
    return result


def _stored(program: Program) -> list[Stored]:
    return [one for one in program.arrays.values() if isinstance(one, Stored)]


def _part(program: Program, region: tuple[slice, ...]) -> Program:
    """The program for a part of the result: what is stored is read."""
    arrays = {cell: _read(array, region) for cell, array in program.arrays.items()}
    return program._replace(arrays=arrays)


def _read(array: Any, region: tuple[slice, ...]) -> Array:
    """The part of an operand that broadcasts to this part of the result."""
    own = region[len(region) - array.ndim :]
    axes = zip(own, array.shape, strict=True)
    place = tuple(slice(0, 1) if length == 1 else one for one, length in axes)
    return array.read(place) if isinstance(array, Stored) else array[place]


def _block(
    operands: list[Stored], shape: tuple[int, ...], innermost: int | None = None
) -> tuple[int, ...]:
    """The shape of blocks: as the file that is read in the largest parts has them."""
    parts = [one.part(BLOCK) for one in operands if one.shape == shape]
    asked = [part for part in parts if part is not None]
    block = max(asked, key=math.prod, default=tile_shape(shape, innermost, BLOCK))
    return tuple(max(1, length) for length in block)


def _shape_of(region: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(one.stop - one.start for one in region)


def _fitting(operands: list[Stored], tile: tuple[int, ...], more: int, workers: int) -> int:
    """As many workers as the budget has room for. Raises `UsageError` where that is none.

    ``more`` bytes are held for each element of a block, besides the operands.
    """
    memory = min(one.memory for one in operands)
    each = math.prod(tile) * (sum(one.held for one in operands) + more)
    if each > memory:
        raise UsageError(
            f"memory={format_size(memory)!r} is too little: a block of {math.prod(tile)} elements "
            f'takes {format_size(each)}. Give memory="{-(-each // 2**20)}MB" or more'
        )
    return max(1, min(workers, memory // max(1, each)))
