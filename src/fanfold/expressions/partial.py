"""The reduction of a tile: in machine code where there is some for it, or by NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fanfold.expressions import machine
from fanfold.expressions.assembler import VECTOR
from fanfold.expressions.floating import Events
from fanfold.expressions.program import Program, Step
from fanfold.expressions.tiles import Workbench

__all__ = ["KINDS", "ROW", "Kind", "Reducer", "Reduction", "adder", "store_of"]

Array = np.ndarray[Any, Any]

ROW = 2**11
"""Elements that are added up one after the other, or by one inner product: the error of a sum
grows with them."""


class Kind(NamedTuple):
    """``whole`` is NumPy's function of that name, ``ufunc`` what puts partial results together."""

    whole: Callable[..., Any]
    ufunc: np.ufunc

    def dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """What NumPy would give for an array of this dtype."""
        return _dtype_of(self.whole, dtype)


@functools.lru_cache(maxsize=256)
def _dtype_of(whole: Callable[..., Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    found: np.dtype[Any] = whole(np.ones(1, dtype)).dtype
    return found


KINDS = {
    "sum": Kind(np.sum, np.add),
    "prod": Kind(np.prod, np.multiply),
    "min": Kind(np.min, np.minimum),
    "max": Kind(np.max, np.maximum),
    "mean": Kind(np.mean, np.add),
    "any": Kind(np.any, np.logical_or),
    "all": Kind(np.all, np.logical_and),
}

_WIDER = {"float16": "float64", "float32": "float64", "complex64": "complex128"}


class Reduction(NamedTuple):
    """A reduction whose arrays have been broadcast, sorted as they lie in memory, and merged.

    ``kept`` and ``reduced`` are axes of the ``shape``, ``store`` is the dtype of partial results.
    A program with two roots asks for the sum of their product along the last axis. Where there is
    a ``loop``, it adds up what the program computes.
    """

    kind: str
    program: Program
    arrays: dict[int, Array]
    shape: tuple[int, ...]
    kept: tuple[int, ...]
    reduced: tuple[int, ...]
    store: np.dtype[Any]
    loop: machine.Loop | None = None

    @property
    def along(self) -> bool:
        """Whether the last axis is reduced."""
        return len(self.shape) - 1 in self.reduced

    @property
    def adding(self) -> np.dtype[Any] | None:
        """What to ask of a ufunc that puts partial results together; it knows about times."""
        return None if self.store.kind in "mM" else self.store


def store_of(kind: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of partial results, of elements of this dtype: sums are kept in 64 bits."""
    dtype = KINDS[kind].dtype(dtype)
    return dtype if kind in ("min", "max") else np.dtype(_WIDER.get(dtype.name, dtype))


def adder(what: Reduction) -> machine.Loop | None:
    """Machine code for the sums of this reduction, or None. Its arrays come before the sums."""
    if what.kind not in ("sum", "mean") or len(what.shape) > 2 or what.shape[-1] < 2 * VECTOR:
        return None
    if what.along:
        return machine.adding(what.program, what.arrays)
    dtype = what.program.dtype(what.program.roots[0])
    root, sums, target = what.program.roots[0], -1, -2
    step = Step("+", (sums, root), target, dtype, 0)
    program = what.program._replace(steps=[*what.program.steps, step], roots=(target,))
    row = np.empty(what.shape[-1], dtype)
    return machine.storing(program, {**what.arrays, sums: row}, row)


class Reducer:
    """Reduces tiles, in one thread."""

    def __init__(self, what: Reduction, tile: tuple[int, ...], events: Events) -> None:
        self._what = what
        self._bench = Workbench(what.program, math.prod(tile))
        self._events = events
        self._windows = []
        if what.loop is not None:
            self._windows = [machine.Window(array) for array in what.arrays.values()]
            dtype = what.program.dtype(what.program.roots[0])
            rows = max(tile[0], tile[-1] // ROW + 1)
            self._sums = np.empty((rows, 4)) if what.along else np.empty(tile[-1], dtype)

    def reduce(self, slices: tuple[slice, ...]) -> Any:
        """The reduction of the tile: an array of the kept axes, or a number."""
        loop = self._what.loop
        if loop is None:
            return self._by_numpy(slices)
        *rows, last = slices
        whole = last.start + (last.stop - last.start) // loop.lanes * loop.lanes
        vectors, rest = slice(last.start, whole), slice(whole, last.stop)
        found: Any = None
        if last.start < whole:
            found = (self._along if self._what.along else self._columns)(loop, (*rows, vectors))
        if whole == last.stop:
            return found
        left = self._by_numpy((*rows, rest))
        if found is None:
            return left
        return found + left if self._what.along else np.concatenate([found, left])

    def _along(self, loop: machine.Loop, slices: tuple[slice, ...]) -> Any:
        """The sum of each row, or the sum of them all."""
        *outer, last = slices
        length = last.stop - last.start
        if outer:
            (row,) = outer
            count = row.stop - row.start
            places = [window.at(row.start, last.start) for window in self._windows]
            self._add_up(loop, places, count, length)
            return np.add.reduce(self._sums[:count], axis=1 if self._what.kept else None)
        count, left = divmod(length, ROW)  # one axis: rows that lie one after the other, and a rest
        if count:
            begins = [window.at(0, last.start) for window in self._windows]
            beyond = [window.at(0, last.start + ROW) for window in self._windows]
            steps = [(one, two - one) for (one, _), (two, _) in zip(begins, beyond, strict=True)]
            self._add_up(loop, steps, count, ROW)
        if left:
            places = [window.at(0, last.stop - left) for window in self._windows]
            self._add_up(loop, places, 1, left, count)
        return np.add.reduce(self._sums[: count + (left > 0)], axis=None)

    def _add_up(
        self, loop: machine.Loop, places: list[machine.Place], rows: int, columns: int, at: int = 0
    ) -> None:
        """Into the rows of the sums, from ``at`` on."""
        sums = machine.Window(self._sums).at(at, 0)
        self._events.note(loop.run([*places, sums], rows, columns))

    def _columns(self, loop: machine.Loop, slices: tuple[slice, ...]) -> Array:
        """The sum of each column: the rows are added to it one after the other."""
        row, last = slices
        places = [window.at(row.start, last.start) for window in self._windows]
        columns = last.stop - last.start
        sums = self._sums[:columns]
        sums[:] = 0
        there = machine.Window(sums).at(0, 0)
        self._events.note(loop.run([*places, there, there], row.stop - row.start, columns))
        return sums

    def _by_numpy(self, slices: tuple[slice, ...]) -> Any:
        what = self._what
        tiles = {cell: array[slices] for cell, array in what.arrays.items()}
        roots = self._bench.run(tiles, tuple(one.stop - one.start for one in slices))
        if len(roots) == 2:
            first, second = roots
            return _inner(first, second, what.reduced[:-1])
        values: Array = roots[0]
        if what.kind not in ("sum", "mean", "prod"):
            return KINDS[what.kind].ufunc.reduce(values, axis=what.reduced)
        if values.dtype == bool and not what.kept:
            return np.all(values) if what.kind == "prod" else np.count_nonzero(values)
        return KINDS[what.kind].ufunc.reduce(values, axis=what.reduced, dtype=_adding(what, values))


def _adding(what: Reduction, values: Array) -> np.dtype[Any] | None:
    """In which dtype a tile is added up. NumPy adds pairwise along the last axis only."""
    rows = math.prod(values.shape[axis] for axis in what.reduced)
    narrow = values.dtype.char in "fF" and (what.along or rows <= 64)
    return np.dtype(values.dtype) if narrow else what.adding


def _inner(first: Array, second: Array, others: tuple[int, ...]) -> Any:
    """The sum of the products along the last axis, and then along the others."""
    if first.ndim > 1:
        return np.add.reduce(_products(first, second), axis=others, dtype=np.float64)
    whole = len(first) // ROW * ROW
    rows = _products(first[:whole].reshape(-1, ROW), second[:whole].reshape(-1, ROW))
    rest = _products(first[None, whole:], second[None, whole:])
    return np.add.reduce(np.concatenate([rows, rest]), dtype=np.float64)


def _products(first: Array, second: Array) -> Array:
    if hasattr(np, "vecdot"):
        return np.asarray(np.vecdot(first, second))
    return np.asarray(np.einsum("...i,...i->...", first, second))  # NumPy 1 has no vecdot
