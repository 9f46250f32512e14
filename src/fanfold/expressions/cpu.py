"""A whole expression on the processor: its reductions, each after those that it needs, and the
rest."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions import stored
from fanfold.expressions.elementwise import check_cast, elementwise
from fanfold.expressions.floating import Events
from fanfold.expressions.graph import Graph
from fanfold.expressions.mapped import check_file, reserve
from fanfold.expressions.newfile import new_file
from fanfold.expressions.operands import checked_out
from fanfold.expressions.partial import KINDS
from fanfold.expressions.program import Program, compile_program, shape_of
from fanfold.expressions.reductions import checked_axes, finished, partial

__all__ = ["compute"]

Array = np.ndarray[Any, Any]

SHARE = 2**16
"""Elements that it pays to wake a thread for."""


def compute(graph: Graph, known: dict[int, Any], out: Any, workers: int) -> Any:
    """The root of the graph, from its leaves; see `front.evaluate`."""
    for position, value in known.items():
        check_file(_name(graph, position), value)
    events = Events()
    try:
        result = _computed(graph, dict(known), out, workers, events)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(str(error)) from None  # NumPy's own words
    events.tell()
    return result


def _computed(graph: Graph, known: dict[int, Any], out: Any, workers: int, events: Events) -> Any:
    for position in graph.below((graph.root,), known):
        if position not in known and graph.nodes[position].reduces:
            known[position] = _reduction(graph, position, known, workers, events)
    return _rest(graph, known, out, workers, events)


def _rest(graph: Graph, known: dict[int, Any], out: Any, workers: int, events: Events) -> Any:
    """What is left when the reductions are known: often all of it, or nothing."""
    root = graph.root
    program = compile_program(graph, (root,), known)
    shape = _shape(graph, program)
    if isinstance(out, (str, os.PathLike)):
        with new_file(out, program.dtype(root), shape) as new:
            target = np.memmap(new.path, program.dtype(root), "r+", new.offset, shape)
            _rest(graph, known, target, workers, events)
            target.flush()
            events.tell()  # an event that is an error leaves no file
        return np.load(out, mmap_mode="r")
    if out is not None:
        checked_out(out, shape)
        check_cast(program.dtype(root), out)
        reserve(out)
    if program.arrays and not (graph.nodes[root].reduces and out is None):
        return _elements(program, shape, out, _threads(shape, workers), events)
    value = known[root] if root in known else program.scalars[root]
    if out is None:
        return value if np.ndim(value) else np.asarray(value)[()]
    out[...] = value
    return out


def _elements(
    program: Program, shape: tuple[int, ...], out: Array | None, workers: int, events: Events
) -> Array:
    compute = stored.elements if stored.is_stored(program) else elementwise
    return compute(program, shape, out, workers, events)


def _reduction(
    graph: Graph, position: int, known: dict[int, Any], workers: int, events: Events
) -> Any:
    kind, (inner,), (axis, keepdims) = graph.nodes[position]
    program = compile_program(graph, (inner,), known)
    shape = _shape(graph, program)
    axes = checked_axes(axis, len(shape))
    if program.arrays and math.prod(shape) and axes:
        reduced = stored.total if stored.is_stored(program) else partial
        threads = _threads(shape, workers)
        total = reduced(graph, position, program, known, shape, axes, threads, events)
        with events.noted():
            return finished(graph.nodes[position], total, program.dtype(inner), shape, axes)
    values = program.scalars.get(inner)
    if program.arrays:  # no elements, or no axes: NumPy knows what is to come of it
        values = _elements(program, shape, None, 1, events)
    return KINDS[kind].whole(values, axis=axes, keepdims=keepdims)


def _shape(graph: Graph, program: Program) -> tuple[int, ...]:
    return shape_of({_name(graph, cell): array for cell, array in program.arrays.items()})


def _name(graph: Graph, position: int) -> str:
    node = graph.nodes[position]
    return str(node.detail) if node.operation == "variable" else f"{node.operation} {position}"


def _threads(shape: tuple[int, ...], workers: int) -> int:
    return min(workers, 1 + math.prod(shape) // SHARE)
