"""A piece of a graph without reductions, as steps with the dtypes that NumPy would give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.graph import Graph
from fanfold.expressions.operations import OPERATIONS

__all__ = ["Program", "Step", "compile_program", "sample_of", "sampled", "shape_of"]

Array = np.ndarray[Any, Any]


class Step(NamedTuple):
    """``into(*cells[arguments], out)``; the result goes to the cell ``target``, in the dtype, and
    may lie in the buffer number ``slot``."""

    operation: str
    arguments: tuple[int, ...]
    target: int
    dtype: np.dtype[Any]
    slot: int

    @property
    def into(self) -> Callable[..., Any]:
        """Computes the step: ``into(*arguments, out)``."""
        return OPERATIONS[self.operation].into


class Program(NamedTuple):
    """``arrays`` (cell: array) and ``scalars`` (cell: number) are what the steps begin with;
    ``roots`` are the cells that are wanted, ``slots`` the dtypes of the buffers."""

    arrays: dict[int, Array]
    scalars: dict[int, Any]
    steps: list[Step]
    roots: tuple[int, ...]
    slots: list[np.dtype[Any]]

    def dtype(self, cell: int) -> np.dtype[Any]:
        """What NumPy would give for this cell."""
        for step in self.steps:
            if step.target == cell:
                return step.dtype
        if cell in self.arrays:
            return np.dtype(self.arrays[cell].dtype)
        return np.asarray(self.scalars[cell]).dtype


def compile_program(graph: Graph, roots: tuple[int, ...], known: dict[int, Any]) -> Program:
    """The program for the nodes ``roots``; ``known`` has the leaves, and reductions already done.

    What has only numbers to work on is computed at once, as NumPy and Python do with numbers.
    Raises `UsageError` for an operation that NumPy does not have for such dtypes.
    """
    needed = graph.below(roots, known)
    leaves = {at: known[at] for at in needed if at in known}
    key = (roots, *((at, *_signature(leaf)) for at, leaf in leaves.items()))
    plan = graph.plans.get(key)
    if plan is None:
        plan, folds = _plan(graph, roots, needed, leaves)
        if not folds:  # numbers may overflow, and then NumPy says so each time
            graph.plans[key] = plan
    steps, scalars, slots = plan
    arrays = {at: leaf for at, leaf in leaves.items() if np.ndim(leaf)}
    return Program(arrays, scalars, steps, roots, slots)


def _signature(leaf: Any) -> tuple[Any, ...]:
    """What the program depends on: of an array the dtype, of a number its type and value."""
    return (leaf.dtype,) if np.ndim(leaf) else (type(leaf), repr(leaf))


def _plan(
    graph: Graph, roots: tuple[int, ...], needed: list[int], leaves: dict[int, Any]
) -> tuple[tuple[list[Step], dict[int, Any], list[np.dtype[Any]]], bool]:
    """Steps, numbers and buffers; and whether numbers were computed."""
    samples = {at: sample_of(leaf) for at, leaf in leaves.items()}
    steps, folds = [], False
    for position in needed:
        if position in leaves:
            continue
        operation, arguments, _ = graph.nodes[position]
        samples[position] = sampled(operation, [samples[at] for at in arguments])
        if np.ndim(samples[position]):
            operation, arguments = _cheaper(operation, arguments, samples)
            steps.append((operation, arguments, position, samples[position].dtype))
        else:
            folds = True
    used = {at for step in steps for at in step[1]} | set(roots)
    scalars = {at: samples[at] for at in used if not np.ndim(samples[at])}
    placed, slots = _placed(steps, roots)
    return (placed, scalars, slots), folds


def sample_of(value: Any) -> Any:
    """An empty array tells the dtypes as well as a full one; a number is its own sample."""
    return np.empty(0, value.dtype) if np.ndim(value) else value


def sampled(operation: str, arguments: list[Any]) -> Any:
    """What NumPy makes of samples. Raises `UsageError` where it has no such operation."""
    try:
        return OPERATIONS[operation].compute(*arguments)
    except UsageError:
        raise
    except (TypeError, OverflowError, ValueError, ZeroDivisionError) as error:
        kinds = " and ".join(_kind(argument) for argument in arguments)
        raise UsageError(f"{operation} of {kinds}: {error}") from None


def _cheaper(
    operation: str, arguments: tuple[int, ...], samples: dict[int, Any]
) -> tuple[str, tuple[int, ...]]:
    """``a**2`` of floats as a square, which is what NumPy's operator does, too."""
    if operation == "**":
        base, exponent = (samples[at] for at in arguments)
        if type(exponent) in (int, float) and exponent == 2 and base.dtype.kind == "f":
            return "square", arguments[:1]
    return operation, arguments


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float, complex)) else str(value.dtype)


def _placed(
    steps: list[tuple[str, tuple[int, ...], int, np.dtype[Any]]], roots: tuple[int, ...]
) -> tuple[list[Step], list[np.dtype[Any]]]:
    """Give every step a buffer; one whose content is not needed any more is used again."""
    last = {at: number for number, step in enumerate(steps) for at in step[1]}
    last |= dict.fromkeys(roots, len(steps))
    slots: list[np.dtype[Any]] = []
    free: list[int] = []
    slot_of: dict[int, int] = {}
    placed = []
    for number, (operation, arguments, target, dtype) in enumerate(steps):
        done = [slot_of[at] for at in set(arguments) if at in slot_of and last[at] == number]
        if OPERATIONS[operation].overlaps:
            free += done
        slot = next((one for one in reversed(free) if slots[one] == dtype), len(slots))
        if slot == len(slots):
            slots.append(dtype)
        else:
            free.remove(slot)
        if not OPERATIONS[operation].overlaps:
            free += done
        slot_of[target] = slot
        placed.append(Step(operation, arguments, target, dtype, slot))
    return placed, slots


def shape_of(arrays: dict[str, Array]) -> tuple[int, ...]:
    """What the arrays broadcast to. Raises `UsageError`, with every name and shape."""
    shapes: set[tuple[int, ...]] = {array.shape for array in arrays.values()}
    if len(shapes) == 1:
        return shapes.pop()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        named = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UsageError(
            f"these shapes do not go together: {named}. Counted from the last, axes have to be "
            "of the same length, or of length 1"
        ) from None
