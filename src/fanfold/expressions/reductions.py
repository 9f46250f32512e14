"""Sums and other reductions, over all axes or some, by a fixed tree.

How the elements are grouped depends on the shapes alone, never on the number of threads, so one
machine always gives the same bits. Each thread keeps what it adds up in its cache; floats of less
than 64 bits are added up over tiles in 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.floating import Events
from fanfold.expressions.graph import Graph, Node
from fanfold.expressions.partial import KINDS, ROW, Reducer, Reduction, adder, store_of
from fanfold.expressions.program import Program, compile_program
from fanfold.expressions.threads import Pieces, spread
from fanfold.expressions.tiles import LONG, SHORT, Grid, tile_shape

__all__ = ["checked_axes", "finished", "partial"]

Array = np.ndarray[Any, Any]

MOST_GROUPS = 2**10
"""Into how many groups the elements are divided at most, where results are few."""

MOST_FLOATS = 2**8
"""Rows of floats of 32 bits that are added one after the other before 64 bits are used."""

MOST_PARTIAL = 2**20
"""Partial results, of all groups together, that are kept at most."""


def checked_axes(axis: tuple[int, ...] | None, dimensions: int) -> tuple[int, ...]:
    """The axes, counted from the first. Raises `UsageError` for one that is not there, or twice."""
    if axis is None:
        return tuple(range(dimensions))
    for one in axis:
        if not -dimensions <= one < dimensions:
            raise UsageError(
                f"axis {one} is not there: the array has {dimensions} dimensions, so that axes "
                f"are {-dimensions} to {dimensions - 1}"
                if dimensions
                else f"axis {one} is not there: what is reduced is a single number"
            )
    found = tuple(one % dimensions for one in axis)
    if len(set(found)) < len(found):
        raise UsageError(f"axis={axis} names an axis twice")
    return found


def partial(
    graph: Graph,
    position: int,
    program: Program,
    known: dict[int, Any],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    workers: int,
    events: Events,
) -> Array:
    """The reduction at this position of the graph, before it is `finished`: an array of the axes
    that are kept.

    ``program`` and ``shape`` are of what is reduced: at least one axis, and none of length 0.
    """
    what, kept = _reduction(graph.nodes[position].operation, graph, program, known, shape, axes)
    total = _total(what, workers, events)
    return total.reshape([shape[one] for one in kept]).transpose(np.argsort(kept).astype(int))


def finished(
    node: Node, total: Array, dtype: np.dtype[Any], shape: tuple[int, ...], axes: tuple[int, ...]
) -> Any:
    """What NumPy would give: of the right dtype, a mean divided, a number for all axes.

    ``dtype`` and ``shape`` are of what is reduced.
    """
    kind, _, (_, keepdims) = node
    if kind == "mean":
        total = np.true_divide(total, math.prod(shape[one] for one in axes))
    total = np.asarray(total).astype(KINDS[kind].dtype(dtype), copy=False)
    if keepdims:
        total = total.reshape([1 if one in axes else n for one, n in enumerate(shape)])
    return total if total.ndim else total[()]


def _reduction(
    kind: str,
    graph: Graph,
    program: Program,
    known: dict[int, Any],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> tuple[Reduction, list[int]]:
    """The reduction, and which axes its results keep, in their order."""
    order = _by_memory(max(program.arrays.values(), key=np.size), shape)
    arrays = {cell: _broadcast(one, shape).transpose(order) for cell, one in program.arrays.items()}
    merged, reduced = _merged(arrays, [axis in axes for axis in order])
    merged_shape = next(iter(merged.values())).shape
    kept = tuple(axis for axis in range(len(merged_shape)) if axis not in reduced)
    store = store_of(kind, program.dtype(program.roots[0]))
    what = Reduction(kind, program, merged, merged_shape, kept, reduced, store)
    what = what._replace(loop=adder(what))
    if kind in ("sum", "mean") and what.along and what.loop is None:
        what = what._replace(program=_with_factors(program, graph, known))
    return what, [axis for axis in order if axis not in axes]


def _broadcast(array: Array, shape: tuple[int, ...]) -> Array:
    return array if array.shape == shape else np.broadcast_to(array, shape)


def _by_memory(array: Array, shape: tuple[int, ...]) -> list[int]:
    """The axes, from the one with the longest stride to the one with the shortest."""
    strides = _broadcast(array, shape).strides
    return sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]))


def _merged(
    arrays: dict[int, Array], reduces: list[bool]
) -> tuple[dict[int, Array], tuple[int, ...]]:
    """The arrays with neighbouring axes made one where their memory allows it, and both or none of
    them are reduced; and which of the axes are reduced then."""
    reduces = list(reduces)
    for axis in range(len(reduces) - 2, -1, -1):
        if reduces[axis] == reduces[axis + 1] and all(
            one.strides[axis] == one.strides[axis + 1] * one.shape[axis + 1]
            for one in arrays.values()
        ):
            arrays = {cell: _joined(one, axis) for cell, one in arrays.items()}
            del reduces[axis]
    return arrays, tuple(axis for axis, is_reduced in enumerate(reduces) if is_reduced)


def _joined(array: Array, axis: int) -> Array:
    """A view in which this axis and the next are one."""
    before, after = array.shape[:axis], array.shape[axis + 2 :]
    return array.reshape(*before, array.shape[axis] * array.shape[axis + 1], *after)


def _with_factors(program: Program, graph: Graph, known: dict[int, Any]) -> Program:
    """For a product of floats: the program that ends with the two factors."""
    last = program.steps[-1] if program.steps else None
    if last is None or last.operation not in ("*", "square") or last.dtype.char not in "fd":
        return program
    factors = last.arguments[0], last.arguments[-1]
    if any(at in program.scalars or program.dtype(at) != last.dtype for at in factors):
        return program
    return compile_program(graph, factors, known)


def _total(what: Reduction, workers: int, events: Events) -> Array:
    """The reduction of all tiles: an array of the kept axes."""
    tile = _tile(what)
    outer = Grid([what.shape[axis] for axis in what.kept], [tile[axis] for axis in what.kept])
    inner = Grid([what.shape[axis] for axis in what.reduced], [tile[axis] for axis in what.reduced])
    results = math.prod(outer.shape)
    groups = min(len(inner), max(1, min(MOST_GROUPS // len(outer), MOST_PARTIAL // results)))
    parts = np.empty((groups, *outer.shape), what.store)

    def work(pieces: Pieces) -> None:
        reducer = Reducer(what, tile, events)
        with events.noted():
            for number in pieces:
                place, group = divmod(number, groups)
                share = range(len(inner) * group // groups, len(inner) * (group + 1) // groups)
                kept = outer[place]
                at: Any = (group, *kept)
                tiles = (_slices(what, kept, inner[at]) for at in share)
                parts[at] = _group(what, reducer, tiles)

    spread(work, len(outer) * groups, workers)
    return np.asarray(KINDS[what.kind].ufunc.reduce(parts, axis=0, dtype=what.adding))


def _tile(what: Reduction) -> tuple[int, ...]:
    narrow = ROW if len(what.shape) > 1 else None
    if what.loop is None:
        return tile_shape(what.shape, narrow)
    tile = tile_shape(what.shape, narrow, min(LONG, max(SHORT, math.prod(what.shape) // 8)))
    if what.along or what.loop.double:
        return tile
    return min(tile[0], MOST_FLOATS), tile[1]


def _slices(
    what: Reduction, kept: tuple[slice, ...], reduced: tuple[slice, ...]
) -> tuple[slice, ...]:
    place = dict(zip((*what.kept, *what.reduced), (*kept, *reduced), strict=True))
    return tuple(place[axis] for axis in range(len(what.shape)))


def _group(what: Reduction, reducer: Reducer, tiles: Iterator[tuple[slice, ...]]) -> Any:
    """Several tiles of one place, one after the other."""
    total = np.array(reducer.reduce(next(tiles)), what.store)
    for slices in tiles:
        total = KINDS[what.kind].ufunc(total, reducer.reduce(slices))
    return total
