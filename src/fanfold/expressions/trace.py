"""From a Python function to a graph: it runs once, on stand-ins that note what is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.graph import Graph, Node
from fanfold.expressions.operations import (
    ALIASES,
    FUNCTIONS,
    OPERATIONS,
    REDUCTIONS,
    UFUNC_SYMBOLS,
)
from fanfold.expressions.text import ALLOWED, checked_axis

__all__ = ["trace"]

_BINARY = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
}
_COMPARISONS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!=", "ge": ">=", "gt": ">"}
_UNARY = {"neg": "neg", "pos": "pos", "invert": "~", "abs": "absolute"}


def trace(func: Callable[..., Any]) -> Graph:
    """The graph of a function of arrays; its parameters are the variables.

    Raises `UsageError` where the function does what an expression cannot: branch on values, take
    elements, call what is not NumPy's.

    >>> trace(lambda a, b: np.sqrt(a) + b).names()
    ['a', 'b']
    """
    graph = Graph()
    stand_ins = [Traced(graph, Node("variable", detail=name)) for name in _parameters(func)]
    result = func(*stand_ins)
    if isinstance(result, (list, tuple, dict)) or result is None:
        raise UsageError(
            f"the function gives {'nothing' if result is None else type(result).__name__}: "
            "it has to return one expression"
        )
    graph.root = _position(graph, result)
    return graph


def _parameters(func: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        raise UsageError(
            f"{func!r} does not tell its parameters: pass a function that is written in Python"
        ) from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [one for one in parameters if one.default is inspect.Parameter.empty]
    strange = [str(one) for one in required if one.kind not in positional]
    if strange:
        raise UsageError(
            f"the function has the parameter {strange[0]}: name each array, (a, b), for these "
            "are the variables"
        )
    return [one.name for one in required]


def _position(graph: Graph, value: Any) -> int:
    if isinstance(value, Traced):
        if value._graph is not graph:
            raise UsageError("the function mixes arrays of two evaluations: use its own parameters")
        return value._position
    return graph.add(Node("value", detail=value))


def _refuse(what: str, instead: str) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise UsageError(f"the function {what}: {instead}. {ALLOWED[0].upper()}{ALLOWED[1:]}")

    return method


class Traced:
    """Stands for an array, and notes in the graph what is done with it."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph = graph
        self._position = graph.add(node)

    def _apply(self, operation: str, *arguments: Any) -> Traced:
        positions = tuple(_position(self._graph, argument) for argument in arguments)
        return Traced(self._graph, Node(operation, positions))

    def _reduce(self, operation: str, axis: Any = None, keepdims: bool = False) -> Traced:
        try:
            detail = (checked_axis(axis), bool(keepdims))
        except TypeError:
            raise UsageError(
                f"axis={axis!r} of {operation}(): give a whole number, several in a tuple, or None"
            ) from None
        return Traced(self._graph, Node(operation, (self._position,), detail))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        name = UFUNC_SYMBOLS.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or options or name not in OPERATIONS:
            shown = ufunc.__name__ + ("" if method == "__call__" else f".{method}")
            _refuse(f"calls np.{shown} in a way that cannot be noted", "use it without options")()
        return self._apply(name, *inputs)

    def __array_function__(self, func: Any, types: Any, arguments: Any, options: Any) -> Any:
        name = ALIASES.get(func.__name__, func.__name__)
        if name in REDUCTIONS:
            array, *rest = arguments
            return array._reduce(name, *rest, **options)
        if name not in FUNCTIONS or options:
            _refuse(f"calls np.{func.__name__}", "it is none of the functions of an expression")()
        return self._apply(name, *arguments)

    @property
    def real(self) -> Traced:
        return self._apply("real", self)

    @property
    def imag(self) -> Traced:
        return self._apply("imag", self)

    def conj(self) -> Traced:
        return self._apply("conjugate", self)

    __bool__ = _refuse("asks whether an array is true", "write np.where(a > 0, a, 0) for if")
    __iter__ = _refuse("goes through the elements of an array", "for a sum write a.sum()")
    __len__ = _refuse("asks for the length of an array", "give it as another variable")
    __getitem__ = _refuse("takes a part of an array", "give the part as another variable")
    __setitem__ = _refuse("writes into an array", "an expression only computes")
    __float__ = _refuse("makes a number of an array", "use NumPy's functions, not those of math")
    __int__ = __index__ = __complex__ = __float__
    __matmul__ = __rmatmul__ = _refuse("uses @", "it does not work element by element")


def _operator(symbol: str) -> Callable[..., Traced]:
    return lambda self, *others: self._apply(symbol, self, *others)


def _reflected(symbol: str) -> Callable[..., Traced]:
    return lambda self, other: self._apply(symbol, other, self)


def _reduction(name: str) -> Callable[..., Traced]:
    return lambda self, axis=None, keepdims=False: self._reduce(name, axis, keepdims)


for _name, _symbol in {**_BINARY, **_COMPARISONS, **_UNARY}.items():
    setattr(Traced, f"__{_name}__", _operator(_symbol))
for _name, _symbol in _BINARY.items():
    setattr(Traced, f"__r{_name}__", _reflected(_symbol))
for _name in REDUCTIONS:
    setattr(Traced, _name, _reduction(_name))
