"""What may stand in an expression: operators, functions and reductions, by name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fanfold.errors import UsageError

__all__ = [
    "ALIASES",
    "CASTS",
    "FUNCTIONS",
    "OPERATIONS",
    "OPERATORS",
    "REDUCTIONS",
    "UFUNC_SYMBOLS",
    "Operation",
]

Array = np.ndarray[Any, Any]


class Operation(NamedTuple):
    """``compute(*arguments)`` is what NumPy code would do; ``into(*arguments, out)`` does the same
    into an array that is there. ``overlaps`` says that ``out`` may be one of the arguments."""

    compute: Callable[..., Any]
    into: Callable[..., Any]
    overlaps: bool = True


# The symbol, Python's operator, and the ufunc behind it.
_BY_SYMBOL: dict[str, tuple[Callable[..., Any], str]] = {
    "+": (operator.add, "add"),
    "-": (operator.sub, "subtract"),
    "*": (operator.mul, "multiply"),
    "/": (operator.truediv, "divide"),
    "//": (operator.floordiv, "floor_divide"),
    "%": (operator.mod, "remainder"),
    "&": (operator.and_, "bitwise_and"),
    "|": (operator.or_, "bitwise_or"),
    "^": (operator.xor, "bitwise_xor"),
    "<<": (operator.lshift, "left_shift"),
    ">>": (operator.rshift, "right_shift"),
    "<": (operator.lt, "less"),
    "<=": (operator.le, "less_equal"),
    "==": (operator.eq, "equal"),
    "!=": (operator.ne, "not_equal"),
    ">=": (operator.ge, "greater_equal"),
    ">": (operator.gt, "greater"),
    "neg": (operator.neg, "negative"),
    "pos": (operator.pos, "positive"),
    "~": (operator.invert, "invert"),
}

_FUNCTIONS = (
    "sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh hypot "
    "deg2rad rad2deg exp exp2 expm1 log log2 log10 log1p logaddexp sqrt cbrt square reciprocal "
    "absolute fabs sign copysign heaviside floor ceil trunc rint fmod power float_power maximum "
    "minimum fmax fmin isnan isinf isfinite signbit logical_and logical_or logical_xor "
    "logical_not conjugate"
)

_CASTS = (
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
)
CASTS = tuple(_CASTS.split())

# Other spellings, as numexpr, NumPy and Python have them.
ALIASES = {
    "abs": "absolute",
    "conj": "conjugate",
    "amin": "min",
    "amax": "max",
    "pow": "power",
    "acos": "arccos",
    "asin": "arcsin",
    "atan": "arctan",
    "atan2": "arctan2",
}

_LARGEST = 1024
"""No dtype holds a whole number of more bits; to compute one could take forever."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        _refuse_giants(max(1, base.bit_length()) * exponent)
    return base**exponent


def _left_shift(value: Any, bits: Any) -> Any:
    if isinstance(value, int) and isinstance(bits, int):
        _refuse_giants(value.bit_length() + bits)
    return value << bits


def _refuse_giants(bits: int) -> None:
    if bits > _LARGEST:
        raise UsageError(
            "the expression computes a whole number that no dtype holds: write it as a float"
        )


def _power_into(base: Array, exponent: Any, out: Array) -> None:
    """NumPy's operator takes short cuts for some exponents that its ufunc does not take."""
    out[...] = base**exponent


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return np.where(condition, yes, no)


def _where_into(condition: Any, yes: Any, no: Any, out: Array) -> None:
    np.copyto(out, np.asarray(no), casting="unsafe")  # a number that is too large wraps round
    np.copyto(out, np.asarray(yes), casting="unsafe", where=np.asarray(condition, bool))


def _cast(name: str) -> Operation:
    def into(value: Any, out: Array) -> None:
        np.copyto(out, value, casting="unsafe")

    return Operation(np.dtype(name).type, into, overlaps=False)


def _part(name: str) -> Operation:
    def into(value: Array, out: Array) -> None:
        np.copyto(out, getattr(value, name))

    return Operation(getattr(np, name), into, overlaps=False)


OPERATORS = {
    symbol: Operation(compute, getattr(np, ufunc))
    for symbol, (compute, ufunc) in _BY_SYMBOL.items()
} | {
    "**": Operation(_power, _power_into),
    "<<": Operation(_left_shift, np.left_shift),
}

FUNCTIONS = {
    **{name: Operation(getattr(np, name), getattr(np, name)) for name in _FUNCTIONS.split()},
    **{name: _cast(name) for name in CASTS},
    **{name: _part(name) for name in ("real", "imag")},
    "where": Operation(_where, _where_into, overlaps=False),
}

OPERATIONS = OPERATORS | FUNCTIONS

UFUNC_SYMBOLS = {ufunc: symbol for symbol, (_, ufunc) in _BY_SYMBOL.items()}

REDUCTIONS = ("sum", "prod", "min", "max", "mean", "any", "all")
