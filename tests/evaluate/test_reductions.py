"""Sums, products, extremes, means, any and all: NumPy's answers, and the same bits each time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.evaluate.conftest import in_numpy

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.expressions import machine

KINDS = ("sum", "prod", "min", "max", "mean", "any", "all")
DTYPES = list("?bHiLefdFD")


def close(found: Any, expected: Any) -> None:
    """NumPy's dtype and shape; equal where nothing is rounded, and else nearly so."""
    expected = np.asarray(expected)
    assert np.asarray(found).dtype == expected.dtype
    assert np.shape(found) == expected.shape
    if expected.dtype.kind in "fc":
        tolerance = 20 * float(np.finfo(expected.dtype).eps)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_and_axis(way: str, kind: str, random: Callable[..., Any]) -> None:
    """Dtype, shape and value are NumPy's for any dtype and any choice of axes."""
    axes = ["None", "0", "1", "-1", "(0, 2)", "(1, 2)", "(0, 1, 2)", "1, keepdims=True"]
    for dtype, axis in itertools.product(DTYPES, axes):
        a = random(3, 4, 5, dtype=dtype) / 3 if kind == "prod" else random(3, 4, 5, dtype=dtype)
        a = a.astype(dtype)
        with np.errstate(all="ignore"):
            found = ff.evaluate(f"{kind}(a, axis={axis})")
        close(found, in_numpy(f"{kind}(a, axis={axis})", a=a))


SHAPES = [(70001,), (300, 701), (2, 70001), (20000, 7), (7, 20000), (40, 50, 60)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_more_than_a_tile(way: str, shape: tuple[int, ...], random: Callable[..., Any]) -> None:
    """Large arrays, whose ends fit neither a vector nor a tile, lose no element."""
    axes = [None, *range(len(shape))]
    for dtype, axis in itertools.product("df", axes):
        a, b = random(*shape, dtype=dtype), random(*shape, dtype=dtype)
        scale = np.sum(np.abs(a * b), axis=axis, dtype=float)
        found = ff.evaluate(f"sum(a * b, axis={axis})", {"a": a, "b": b})
        exact = np.sum(a.astype(float) * b, axis=axis)
        assert np.all(np.abs(found - exact) <= 4 * np.finfo(dtype).eps * scale)
        whole = np.ones(shape, dtype)
        counts = ff.evaluate(f"sum(whole, {axis}) + mean(whole, {axis})")
        np.testing.assert_array_equal(counts, whole.sum(axis=axis, dtype=float) + 1)


ORDERS = [
    lambda a: a.T,
    lambda a: a[::-1, ::-1],
    lambda a: a[:, ::2],
    lambda a: a[::3],
    lambda a: np.asfortranarray(a),
    lambda a: a[:, 1:-1],
    lambda a: np.broadcast_to(a[0], a.shape),
    lambda a: a[:, :1],
    lambda a: a.reshape(41, 5, 733).swapaxes(0, 1),
]


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_any_layout_in_memory(way: str, number: int, random: Callable[..., Any]) -> None:
    """Transposed, reversed, strided, broadcast: the elements are the same."""
    a = ORDERS[number](random(205, 733))
    for axis in (None, *range(a.ndim)):
        for text in ("sum(a * a, {})", "mean(a - 1, {})", "max(a, {})", "sum(a > 0, {})"):
            expected = in_numpy(text.format(axis), a=a)
            np.testing.assert_allclose(ff.evaluate(text.format(axis)), expected, rtol=1e-12)


def test_operands_broadcast_inside_a_reduction(way: str, random: Callable[..., Any]) -> None:
    """A row, a column and a number take part in the sum of a table."""
    a, row, column, number = random(301, 203), random(203), random(301, 1), np.float64(3)
    for axis in (None, 0, 1):
        text = f"sum(a * row + column * number, axis={axis})"
        expected = in_numpy(text, a=a, row=row, column=column, number=number)
        np.testing.assert_allclose(ff.evaluate(text), expected, rtol=1e-11)


def test_the_number_of_threads_changes_no_bit(way: str, random: Callable[..., Any]) -> None:
    """The tree of additions is fixed by the shapes."""
    a, b = random(1001, 613), random(1001, 613)
    for text in ("sum(a*b)", "sum(a*b, axis=0)", "mean(a - b, axis=1)", "sum(sqrt(abs(a)))"):
        results = [ff.evaluate(text, {"a": a, "b": b}, workers=n) for n in (1, 2, 5)]
        found = {np.asarray(result).tobytes() for result in results}
        assert len(found) == 1


def test_a_long_sum_keeps_its_digits(way: str) -> None:
    """A million tenths in 32 bits: the error is that of the operands and of the result."""
    a = np.full(10**6, 0.1, np.float32)
    exact = math.fsum(a.tolist())
    assert abs(float(ff.evaluate("sum(a)")) / exact - 1) < 2e-7
    most = 2e-7 if machine.supported() else 1e-5  # NumPy adds up products in 32 bits
    assert abs(float(ff.evaluate("sum(a * a)")) / math.fsum((a * a).tolist()) - 1) < most
    for width, most in ((4, 2e-7), (100, 1.5e-5)):
        columns = ff.evaluate("sum(a, axis=0)", {"a": a.reshape(-1, width)})
        assert np.abs(columns / (exact / width) - 1).max() < most


def test_whole_numbers_wrap_round_as_numpys(random: Callable[..., Any]) -> None:
    """Small whole numbers are added up in 64 bits; those of 64 bits wrap round, exactly."""
    a = np.full(10**5, 2**60 + 3)
    assert ff.evaluate("sum(a)") == a.sum()
    assert ff.evaluate("sum(a)", {"a": np.full(10**5, 200, np.uint8)}) == 200 * 10**5


def test_nan_and_infinity_are_kept(way: str) -> None:
    """One NaN makes the sum, the mean and the extremes NaN, wherever it is."""
    for place in (0, 40_000, 69_999):
        a = np.ones(70_000)
        a[place] = np.nan
        for kind in ("sum", "mean", "min", "max", "prod"):
            assert np.isnan(ff.evaluate(f"{kind}(a)"))
        a[place] = np.inf
        assert ff.evaluate("sum(a)") == ff.evaluate("max(a)") == np.inf


def test_reductions_inside_an_expression(random: Callable[..., Any]) -> None:
    """A reduction is a number or an array like others, at any depth."""
    a = random(30, 40)
    text = "(a - mean(a, axis=0)) / sqrt(mean((a - mean(a, axis=0))**2, axis=0)) + max(sum(a, 1))"
    np.testing.assert_allclose(ff.evaluate(text), in_numpy(text, a=a), rtol=1e-12)


def test_no_elements(way: str) -> None:
    """Of nothing the sum is 0 and the product 1; there is no smallest, and the mean is NaN."""
    empty = {"a": np.empty((0, 3))}
    assert ff.evaluate("sum(a)", empty) == 0
    assert ff.evaluate("prod(a, axis=0)", empty).tolist() == [1, 1, 1]
    assert ff.evaluate("sum(a, axis=1)", empty).shape == (0,)
    assert ff.evaluate("a + 1", empty).shape == (0, 3)
    with pytest.raises(UsageError, match="no identity"):
        ff.evaluate("min(a)", empty)
    with pytest.warns(RuntimeWarning):
        assert np.isnan(ff.evaluate("mean(a)", empty))


def test_axes_that_are_not_there_are_refused() -> None:
    """The message says which axes there are."""
    given = {"a": np.ones((2, 3)), "x": 1.5}
    with pytest.raises(UsageError, match=r"axis 2 is not there.* axes are -2 to 1"):
        ff.evaluate("sum(a, axis=2)", given)
    with pytest.raises(UsageError, match="names an axis twice"):
        ff.evaluate("sum(a, axis=(0, -2))", given)
    with pytest.raises(UsageError, match="a single number"):
        ff.evaluate("sum(x, axis=0)", given)
    assert ff.evaluate("sum(x) + sum(a, axis=())", given)[0, 0] == 2.5


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    text=st.sampled_from(["a", "a * b", "a - b * 2", "a**2", "sqrt(abs(a)) + b", "a < b"]),
    kind=st.sampled_from(["sum", "mean", "max", "any"]),
    data=st.data(),
)
def test_any_shape(way: str, shape: list[int], text: str, kind: str, data: st.DataObject) -> None:
    """Random shapes, orders of memory, broadcast operands and axes."""
    generator = np.random.default_rng(sum(shape))
    a = generator.normal(size=shape).transpose(data.draw(st.permutations(range(len(shape)))))
    b = generator.normal(size=[data.draw(st.sampled_from([1, n])) for n in a.shape])
    axes = data.draw(st.none() | st.sets(st.integers(0, a.ndim - 1), min_size=1).map(tuple))
    expression = f"{kind}({text}, axis={axes})"
    expected = in_numpy(expression, a=a, b=b)
    found = ff.evaluate(expression)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
