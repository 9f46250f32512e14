"""A whole expression on a GPU of NVIDIA, by CuPy: one kernel for each operation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.graph import Graph
from fanfold.expressions.operations import CASTS, OPERATIONS, OPERATORS
from fanfold.expressions.partial import KINDS
from fanfold.expressions.program import sample_of, sampled
from fanfold.expressions.stored import Stored
from fanfold.extras import need

__all__ = ["compute", "library"]


def library() -> Any:
    """CuPy, where there is a GPU that it can use. Raises `UsageError`."""
    need("cupy", "cuda", 'on="cuda"')
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise UsageError(f'on="cuda": CuPy cannot be imported: {error}; compute on="cpu"') from None
    if not cupy.cuda.is_available():
        raise UsageError('on="cuda": CuPy finds no GPU that it can use; compute on="cpu"')
    return cupy


def compute(cupy: Any, graph: Graph, known: dict[int, Any], out: Any) -> Any:
    """The root of the graph: a CuPy array if any operand is one, else a NumPy array.

    ``cupy`` is the library. Every node gets the dtype that NumPy would give it.
    """
    if any(isinstance(one, Stored) for one in known.values()):
        raise UsageError('on="cuda" takes arrays; Blocks are read and computed on="cpu"')
    values = {at: cupy.asarray(one) if np.ndim(one) else one for at, one in known.items()}
    samples = {at: sample_of(one) for at, one in known.items()}
    for position in graph.below((graph.root,), known):
        if position not in values:
            operation, arguments, detail = graph.nodes[position]
            given = [samples[at] for at in arguments]
            samples[position] = _sample(operation, given)
            operands = [values[at] for at in arguments]
            values[position] = _value(cupy, operation, operands, detail, samples[position])
    result = values[graph.root]
    if out is not None:
        out[...] = result if isinstance(out, cupy.ndarray) else cupy.asnumpy(result)
        return out
    stays = any(isinstance(one, cupy.ndarray) for one in known.values())
    return result if stays else cupy.asnumpy(result)[()]


def _sample(operation: str, given: list[Any]) -> Any:
    if operation in KINDS:
        return np.empty(0, KINDS[operation].dtype(np.asarray(given[0]).dtype))
    return sampled(operation, given)


def _value(cupy: Any, operation: str, operands: list[Any], detail: Any, sample: Any) -> Any:
    if not any(np.ndim(one) for one in operands) and operation not in KINDS:
        return OPERATIONS[operation].compute(*operands)
    if operation in KINDS:
        axis, keepdims = detail
        value = getattr(cupy, operation)(cupy.asarray(operands[0]), axis=axis, keepdims=keepdims)
    elif operation in OPERATORS:
        value = OPERATORS[operation].compute(*operands)
    elif operation in CASTS:
        (value,) = operands
    elif hasattr(cupy, operation):
        value = getattr(cupy, operation)(*operands)
    else:
        raise UsageError(f'CuPy has no {operation}(): compute on="cpu"')
    return value.astype(sample.dtype, copy=False)
