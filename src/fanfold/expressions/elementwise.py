"""Expressions element by element: tile after tile through NumPy, or one loop in machine code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions import machine
from fanfold.expressions.assembler import VECTOR
from fanfold.expressions.floating import Events
from fanfold.expressions.operations import OPERATIONS
from fanfold.expressions.program import Program
from fanfold.expressions.threads import Pieces, spread
from fanfold.expressions.tiles import LONG, SHORT, Grid, Workbench, tile_shape

__all__ = ["check_cast", "elementwise"]

Array = np.ndarray[Any, Any]

SMALLEST, SHORTEST = 2**12, 2**6
"""Elements of a result, and of its rows, that machine code is not worth its while below."""

STREAM = 2**25
"""Bytes of a result from which on it goes to memory past the caches, that could not keep it."""


def elementwise(
    program: Program, shape: tuple[int, ...], out: Array | None, workers: int, events: Events
) -> Array:
    """The only root of the program, in ``out`` or a new array that lies in memory as NumPy's would.

    Memory that ``out`` shares with the operands is seen to: the values are as if all were read
    before anything is written.
    """
    operands = [*program.arrays.values(), out]
    dtype: Any = program.dtype(program.roots[0]) if out is None else out.dtype
    reading: Any = ["readonly"] + ["overlap_assume_elementwise"] * _by_elements(program)
    writing: Any = ["writeonly", "allocate", "no_broadcast", "overlap_assume_elementwise"]
    iterator: Any = np.nditer(
        operands,
        flags=["copy_if_overlap", "zerosize_ok"],
        op_flags=[reading] * len(program.arrays) + [writing],
        op_dtypes=[None] * len(program.arrays) + [dtype],
        itershape=shape,
        order="K",
    )
    with iterator:
        result = iterator.operands[-1]
        if result.size:
            # views of the operands whose axes are merged and sorted as they lie in memory
            *views, target = iterator.itviews
            _fill(program, dict(zip(program.arrays, views, strict=True)), target, workers, events)
    return result if out is None else out


def _by_elements(program: Program) -> bool:
    """Whether the last step, which writes to ``out``, reads an element before it writes it."""
    return not program.steps or OPERATIONS[program.steps[-1].operation].overlaps


def check_cast(dtype: np.dtype[Any], out: Array) -> None:
    """Raise `UsageError` when ``out`` cannot take numbers of this dtype."""
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise UsageError(
            f"the result is of dtype {dtype}, which out of dtype {out.dtype} cannot take: make "
            f"out of dtype {dtype}"
        )


def _fill(
    program: Program, arrays: dict[int, Array], target: Array, workers: int, events: Events
) -> None:
    """Most of it in machine code, where there is some for it; the rest by NumPy."""
    streams = _streams(arrays, target)
    inner = _vectors(target, streams)
    whole = {cell: array[..., inner] for cell, array in arrays.items()}
    loop = None
    if target[..., inner].size >= SMALLEST and target.shape[-1] >= SHORTEST:
        loop = machine.storing(program, whole, target[..., inner], streams)
    if loop is None:
        _by_tiles(program, arrays, target, workers, events)
        return
    _by_loop(loop, whole, target[..., inner], workers, events)
    for edge in (slice(0, inner.start), slice(inner.stop, target.shape[-1])):
        if edge.start < edge.stop:
            piece = {cell: array[..., edge] for cell, array in arrays.items()}
            _by_tiles(program, piece, target[..., edge], 1, events)


def _vectors(target: Array, aligned: bool) -> slice:
    """The part of each row that is whole vectors, the first at a multiple of their size if so
    asked."""
    length, size = target.shape[-1], target.itemsize
    lanes = max(1, VECTOR // size)
    begin = min(length, -target.ctypes.data % VECTOR // size) if aligned else 0
    return slice(begin, begin + (length - begin) // lanes * lanes)


def _streams(arrays: dict[int, Array], target: Array) -> bool:
    """Whether to store past the caches: the target is too large for them, and not read as well."""
    if target.nbytes < STREAM or any(step % VECTOR for step in target.strides[:-1]):
        return False
    return not any(np.may_share_memory(array, target) for array in arrays.values())


def _by_loop(
    loop: machine.Loop, arrays: dict[int, Array], target: Array, workers: int, events: Events
) -> None:
    rows, columns = target.shape if target.ndim == 2 else (1, len(target))
    most = min(LONG, max(SHORT // workers, target.size // (4 * workers)))
    grid = Grid((rows, columns), tile_shape((rows, columns), most=most))
    windows = [machine.Window(array) for array in (*arrays.values(), target)]

    def work(pieces: Pieces) -> None:
        for number in pieces:
            row, column = grid[number]
            places = [window.at(row.start, column.start) for window in windows]
            told = loop.run(places, row.stop - row.start, column.stop - column.start)
            events.note(told)

    spread(work, len(grid), workers)


def _by_tiles(
    program: Program, arrays: dict[int, Array], target: Array, workers: int, events: Events
) -> None:
    grid = Grid(target.shape, tile_shape(target.shape))
    direct = bool(program.steps) and program.dtype(program.roots[0]) == target.dtype

    def work(pieces: Pieces) -> None:
        bench = Workbench(program, math.prod(grid.tile))
        with events.noted():
            for number in pieces:
                slices = grid[number]
                tiles = {cell: array[slices] for cell, array in arrays.items()}
                _tile(bench, tiles, target[slices], direct)

    spread(work, len(grid), workers)


def _tile(bench: Workbench, tiles: dict[int, Array], target: Array, direct: bool) -> None:
    if direct:
        bench.run(tiles, target.shape, target)
    else:
        np.copyto(target, bench.run(tiles, target.shape)[0], casting="same_kind")
