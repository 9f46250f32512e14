"""The variables of an expression: found, and checked to be numbers or arrays of numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.graph import Graph

__all__ = ["bind", "checked_out"]

Array = np.ndarray[Any, Any]

_NUMBERS = "biufcmM"
"""The kinds of dtypes that an expression takes: all numbers, and times."""


def bind(
    graph: Graph, variables: Mapping[str, Any], device: type[Any] | None = None
) -> dict[int, Any]:
    """The leaves of the graph: a number, a NumPy number, or an array of one axis or more each.

    ``device`` is the type of arrays of a GPU, that stay as they are.
    """
    known = {}
    for position, node in enumerate(graph.nodes):
        if node.operation == "variable":
            name, value = node.detail, _look_up(node.detail, variables)
        elif node.operation == "value":
            name, value = "a value in the function", node.detail
        else:
            continue
        stays = device is not None and isinstance(value, device)
        known[position] = value if stays else _operand(name, value)
    return known


def _look_up(name: str, variables: Mapping[str, Any]) -> Any:
    if name in variables:
        return variables[name]
    close = difflib.get_close_matches(name, [key for key in variables if isinstance(key, str)], n=1)
    meant = f": did you mean {close[0]!r}?" if close else "."
    raise UsageError(
        f"there is no variable {name!r} here{meant} Variables are those of the code that calls, "
        'or what it passes: ff.evaluate("a + b", {"a": a, "b": b})'
    )


def _operand(name: str, value: Any) -> Any:
    """The value as NumPy takes it. A number of Python stays one: it adapts to the dtypes."""
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
        return value
    if hasattr(value, "__stored__"):
        stored = value.__stored__()
        return stored if stored.ndim else stored.read(())[()]
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        instead = "a.filled(0)" if isinstance(value, np.ma.MaskedArray) else "np.asarray(a)"
        raise UsageError(
            f"{name} is a {type(value).__name__}, which has rules of its own: pass {instead}"
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is no array ({error}): pass numpy.asarray(...) of it") from None
    if array.dtype.kind not in _NUMBERS:
        raise UsageError(_strange(name, array.dtype))
    return array if array.ndim else array[()]


def _strange(name: str, dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return (
            f"{name} holds Python objects (dtype object), and an expression takes numbers: "
            "convert it, as in a.astype(float)"
        )
    if dtype.names:
        return f"{name} is structured: pass its fields, a[{dtype.names[0]!r}], one by one"
    return f"{name} holds {dtype}, and an expression takes numbers"


def checked_out(out: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless ``out`` is an array of this shape that can be written."""
    if not isinstance(out, np.ndarray):
        raise UsageError(f"out has to be a NumPy array of shape {shape}, not {type(out).__name__}")
    if out.shape != shape:
        raise UsageError(
            f"out has the shape {out.shape}, and the result {shape}: make out = np.empty({shape})"
        )
    if not out.flags.writeable:
        raise UsageError("out is read-only: pass an array that can be written")
