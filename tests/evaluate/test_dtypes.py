"""Dtypes and values are NumPy's own: element by element, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.evaluate.conftest import in_numpy, same

import fanfold as ff
from fanfold.errors import UsageError

DTYPES = list("?bBhHiIlLefdFD")
BINARY = (*"+-*/%&|^<>", "//", "**", "<<", ">>", "<=", "==", "!=", ">=")
UNARY = ("-a", "+a", "~a", "abs(a)", "sqrt(a)", "real(a)", "imag(a)", "conj(a)", "isnan(a)")


def compare(text: str, **variables: Any) -> None:
    """The same as NumPy, or an error where NumPy has one."""
    try:
        expected = in_numpy(text, **variables)
    except (TypeError, ArithmeticError, ValueError):
        with pytest.raises(UsageError), np.errstate(all="ignore"):
            ff.evaluate(text, variables)
        return
    with np.errstate(all="ignore"):
        same(ff.evaluate(text, variables), expected)


@pytest.mark.parametrize("operator", BINARY)
def test_every_pair_of_dtypes(operator: str) -> None:
    """An operator on arrays of any two dtypes gives NumPy's dtype and values, or its refusal."""
    for first, second in itertools.product(DTYPES, DTYPES):
        a = np.array([0, 1, 5, 100]).astype(first)
        b = np.array([1, 2, 3, 4]).astype(second)
        compare(f"a {operator} b", a=a, b=b)


def test_every_dtype() -> None:
    """So does everything that takes one array."""
    for text, dtype in itertools.product(UNARY, DTYPES):
        compare(text, a=np.array([0, 1, 5, 100]).astype(dtype))


def test_numbers_of_python_adapt_and_those_of_numpy_do_not() -> None:
    """NEP 50: a Python number takes the dtype of the array; a NumPy number has its own."""
    numbers = [2, 300, -1, True, 2.5, 1j, np.float32(2.5), np.int64(3)]
    texts = ["a + c", "c * a", "a ** c", "a < c", "where(a > 0, a, c)"]
    for number, dtype, text in itertools.product(numbers, DTYPES, texts):
        compare(text, a=np.array([0, 1, 5, 100]).astype(dtype), c=number)


@pytest.mark.parametrize("text", ["a + 300", "2 * a", "a ** -1", "a < 2.5", "where(a > 0, a, 1j)"])
def test_numbers_in_the_text_are_numbers_of_python(text: str) -> None:
    """Written or passed, a number is the same."""
    for dtype in DTYPES:
        compare(text, a=np.array([0, 1, 5, 100]).astype(dtype))


def test_equal_constants_of_different_types_are_different() -> None:
    """2, 2.0 and True are equal in Python, and lead to different dtypes; so do 0.0 and -0.0."""
    a = np.arange(4)
    compare("(a * 2) + (a * 2.0) + (a * True)", a=a)
    compare("(1 / (0.0 * a + 0.0)) + (1 / (-0.0 * (a + 1)))", a=a.astype(float))


def test_constants_are_folded_as_python_does() -> None:
    """2**-1 is a half, and 7 // 2 stays a whole number that adapts to the array; what Python cannot
    divide is told as a mistake in the text."""
    compare("a * 2**-1 + 7 // 2", a=np.arange(3, dtype=np.float32))
    assert ff.evaluate("1 + 2", {}) == 3
    compare("a + (2 / (2 - 2))", a=np.arange(3.0))


SPECIAL = [0.0, -0.0, 1.0, -1.5, 1e-310, -1e300, 1e300, np.inf, -np.inf, np.nan, 0.1, 3.0]
NUMBERS = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32), st.integers(-9, 9).map(float))
LEAVES = st.sampled_from(["a", "b", "c", "2", "0.5", "3"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join)
    one = st.sampled_from(["-{}", "abs({})", "sqrt({})", "square({})", "({})**2", "{} * 2"])
    return st.one_of(
        two.map("({})".format),
        st.tuples(one, inner).map(lambda pair: pair[0].format(f"({pair[1]})")),
        st.tuples(inner, inner, inner, inner).map(
            lambda four: "where(({}) < ({}), {}, {})".format(*four)
        ),
    )


EXPRESSIONS = st.recursive(LEAVES, _grown, max_leaves=8)
PLENTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@PLENTY
@given(text=EXPRESSIONS, data=st.data(), dtype=st.sampled_from(["d", "f"]))
def test_any_arithmetic_is_numpys_bit_for_bit(
    way: str, text: str, data: st.DataObject, dtype: str
) -> None:
    """Random expressions of floats, with infinities, NaN and the smallest numbers in them: no
    rewriting, no fusing and no width of vectors changes a bit."""
    values = st.lists(NUMBERS, min_size=7, max_size=7)
    with np.errstate(over="ignore"):
        a, b, c = (np.resize(np.array(data.draw(values), dtype), 5000) for _ in "abc")
    compare(f"a + ({text})", a=a, b=b, c=c)


def test_comparisons_see_numbers_as_numpy_does(way: str) -> None:
    """What a float is compared with is rounded, or not, as NumPy does."""
    numbers = [0, 1, 0.1, -7.5, True, 16777217, 10**17, np.float32(0.1), np.int64(16777217)]
    for number, dtype in itertools.product(numbers, "df"):
        near = [float(number), np.nextafter(float(number), 1e30), 0.0, 1.0, np.nan]
        a = np.resize(np.array(near, dtype), 5000)
        for operator in ("<", "<=", "==", "!=", ">=", ">"):
            compare(f"where(a {operator} n, a, -a)", a=a, n=number)


def test_transcendental_functions_are_numpys(random: Callable[..., Any]) -> None:
    """They go through NumPy's own loops."""
    a, b = np.abs(random(3, 9000)) + 0.5, random(9000)
    for name in ("sin", "cos", "tan", "exp", "expm1", "log", "log2", "arctan", "tanh", "cbrt"):
        compare(f"{name}(a) * b", a=a, b=b)
    compare("arctan2(a, b) + hypot(a, b) + logaddexp(a, b) + a**b + a**0.3 + a**3", a=a, b=b)


def test_casts_are_written_as_functions() -> None:
    """float32(a) and the like convert, as NumPy's types do."""
    a = np.array([1.9, -1.9, 300.0])
    same(ff.evaluate("int32(a) + float32(a)"), np.int32(a) + np.float32(a))
    assert ff.evaluate("uint8(2)", {}).dtype == np.uint8


def test_times_can_be_computed_with() -> None:
    """Dates and durations follow NumPy's rules."""
    a = np.array(["2024-01-01", "2024-03-01"], "M8[D]")
    compare("max(a) - a > b", a=a, b=np.timedelta64(7, "D"))


def test_byte_swapped_operands() -> None:
    """Numbers in the other byte order are read right; results are in the machine's own."""
    a = np.arange(9000.0).astype(">f8")
    compare("a * 2 + 1", a=a)
    assert ff.evaluate("sum(a)") == a.sum()
