"""A Python function as an expression: it is called once, on stand-ins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tests.evaluate.conftest import same

import fanfold as ff
from fanfold.errors import UsageError


def polynomial(a: Any, b: Any) -> Any:
    return a**2 + b**2 + 2 * a * b


def test_a_function_is_its_text() -> None:
    """Parameters are variables; the result is that of the text, and of the function itself."""
    a, b = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
    same(ff.evaluate(polynomial), polynomial(a, b))
    same(ff.evaluate(polynomial, {"a": b, "b": a}), polynomial(b, a))


def test_numpys_functions_and_methods_are_understood() -> None:
    """np.sqrt(x), np.where, np.sum(x, axis=0), x.mean(), x.real, abs(x)."""
    a, b = np.arange(1.0, 7).reshape(2, 3), np.array([1.0, 2.0, 3.0])

    def func(a: Any, b: Any) -> Any:
        spread = np.sqrt(np.mean((a - a.mean(axis=0)) ** 2, axis=0, keepdims=True))
        return np.where((a > 2) & ~(b == 2), abs(-a) / spread, b.real) + np.sum(a, axis=0) + a.max()

    np.testing.assert_allclose(ff.evaluate(func), func(a, b), rtol=1e-14)


def test_arrays_that_the_function_brings_along() -> None:
    """What a function closes over, arrays on either side of an operator too, is taken as it is."""
    a, weights = np.arange(3.0), np.array([10.0, 20.0, 30.0])
    same(ff.evaluate(lambda a: weights * a + a / weights), weights * a + a / weights)


def test_parameters_with_defaults_keep_them() -> None:
    """Only what the function must be given is a variable."""
    variables = {"a": np.arange(3.0), "power": 7}
    assert ff.evaluate(lambda a, power=2: a**power, variables).tolist() == [0, 1, 4]


def test_a_loop_in_the_function_is_unrolled() -> None:
    """Each step is noted once, so 60 doublings are 60 operations."""

    def doubled(a: Any) -> Any:
        for _ in range(60):
            a = a + a
        return a

    assert ff.evaluate(doubled, {"a": np.ones(3)}).tolist() == [2.0**60] * 3


REFUSED = {
    "asks whether an array is true": lambda a: a if a > 0 else -a,
    "makes a number of an array": lambda a: math.sin(a),
    "goes through the elements": lambda a: sum(a),
    "takes a part of an array": lambda a: a[0],
    "asks for the length": lambda a: a / len(a),
    "it does not work element by element": lambda a: a @ a,
    "calls np.cumsum": lambda a: np.cumsum(a),
    "calls np.add.accumulate": lambda a: np.add.accumulate(a),
    "calls np.frexp": lambda a: np.frexp(a),
    "it has to return one expression": lambda a: (a, a),
    "gives nothing": lambda a: None,
    "dtype object": lambda a: a + np.array([None]),
    "axis='x'": lambda a: a.sum(axis="x"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_noted_is_refused(words: str) -> None:
    """A branch, an element, a function that is not NumPy's: the message says what to write."""
    with pytest.raises(UsageError, match=words):
        ff.evaluate(REFUSED[words], {"a": np.ones(3)})


def test_functions_without_named_arrays_are_refused() -> None:
    """The parameters name the variables, so there must be names."""
    with pytest.raises(UsageError, match=r"parameter \*arrays"):
        ff.evaluate(lambda *arrays: arrays[0], {})
    with pytest.raises(UsageError, match="does not tell its parameters"):
        ff.evaluate(max, {})


def test_an_error_of_the_function_is_its_own() -> None:
    """What the function itself raises comes back as it is."""

    def broken(a: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ff.evaluate(broken, {"a": 1})


def test_stand_ins_of_two_evaluations_do_not_mix() -> None:
    """A stand-in that was smuggled out is refused, rather than taken for another array."""
    kept: list[Any] = []
    ff.evaluate(lambda a: kept.append(a) or a + 1, {"a": 1})
    with pytest.raises(UsageError, match="mixes arrays of two evaluations"):
        ff.evaluate(lambda a: a + kept[0], {"a": 1})
