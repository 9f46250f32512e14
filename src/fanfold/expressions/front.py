"""`evaluate`: a text or a function, its variables, and the place where it is computed."""

from __future__ import annotations

import functools
import os
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from fanfold.errors import UsageError
from fanfold.expressions import gpu
from fanfold.expressions.cpu import compute
from fanfold.expressions.operands import bind
from fanfold.expressions.text import parse
from fanfold.expressions.trace import trace
from fanfold.resources import cores

__all__ = ["evaluate"]


def evaluate(
    expression: str | Callable[..., Any],
    variables: Mapping[str, Any] | None = None,
    *,
    out: Any = None,
    on: str = "cpu",
    workers: int | None = None,
) -> Any:
    """Compute an expression of arrays, without the temporary arrays that NumPy would make.

    ``expression`` is text in the syntax of NumPy and numexpr, or a function of arrays, which is
    called once to see what it does. Its variables (of a function, the parameters) are those of the
    code that calls, or come from ``variables``: arrays and numbers, which broadcast. `Blocks` and
    memory maps are read as they are needed. Text is read by a list of what is allowed, and never
    run.

    ``out`` is an array for the result, one of the operands if you like; a `numpy.memmap` keeps
    the result on disk; a path is that of a new ``.npy`` file, of which you get the map. ``on`` is
    ``"cpu"``, with ``workers`` threads (default: every core), or ``"cuda"``, which needs the extra
    ``cuda``.

    Dtypes are those that NumPy would give. Element by element the results are NumPy's, bit for bit
    where the operation is one of IEEE 754; sums are within the error bound of NumPy's, and of the
    same bits for any number of workers (docs/guides/expressions.md).

    Raises `UsageError` for what is not an expression, variables that are not there or not numbers,
    shapes that do not broadcast and an ``out`` that does not fit; `NoSpace` when the disk has no
    room for an ``out`` in a file; `SourceChanged` when a file of `Blocks` is cut meanwhile.

    >>> import numpy as np, fanfold as ff
    >>> a, b = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    >>> ff.evaluate("a**2 + 2*a*b")
    array([ 21.,  84., 189.])
    >>> float(ff.evaluate("sum(x * b)", {"x": a, "b": b}))
    140.0
    >>> ff.evaluate(lambda a, b: np.where(a > 1, a, -b))
    array([-10.,   2.,   3.])
    """
    if isinstance(expression, str):
        graph = parse(expression)
    elif callable(expression):
        graph = trace(expression)
    else:
        raise UsageError(
            f"an expression is text or a function, not {type(expression).__name__}: "
            'write ff.evaluate("a + b")'
        )
    names = _visible(sys._getframe(1)) if variables is None else variables
    if on == "cpu":
        return compute(graph, bind(graph, names), out, _workers(workers))
    if on == "cuda":
        cupy = gpu.library()
        return gpu.compute(cupy, graph, bind(graph, names, cupy.ndarray), out)
    raise UsageError(f'on={on!r}: expressions are computed on="cpu" or on="cuda"')


def _visible(frame: FrameType) -> Mapping[str, Any]:
    """The variables of the code that calls; a comprehension is a frame of its own, up to 3.11."""
    names = [frame.f_locals]
    while frame.f_code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>") and frame.f_back:
        frame = frame.f_back
        names.append(frame.f_locals)
    return ChainMap(*names, frame.f_globals)


def _workers(workers: int | None) -> int:
    if workers is None:
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        return _cores(affinity, os.environ.get("FANFOLD_CORES"))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UsageError(f"workers={workers!r}: write a whole number of threads, 1 or more")
    return workers


@functools.lru_cache(maxsize=8)
def _cores(affinity: int, share: str | None) -> int:
    """`fanfold.resources.cores` reads a dozen files; only what can change asks again."""
    return int(cores())
