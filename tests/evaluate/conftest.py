"""Expressions are compared with what NumPy gives for the same text."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fanfold.expressions import machine, threads

NUMPY = {name: getattr(np, name) for name in dir(np) if not name.startswith("_")}


def in_numpy(text: str, **variables: Any) -> Any:
    """What Python and NumPy make of the text; it is the test's own, so `eval` is safe here."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return eval(text, NUMPY | variables)


def same(found: Any, expected: Any) -> None:
    """Equal in dtype, shape and every bit; the bits of a NaN do not count."""
    expected = np.asarray(expected)
    assert np.asarray(found).dtype == expected.dtype
    assert np.shape(found) == expected.shape
    np.testing.assert_array_equal(found, expected, strict=True)
    numbers = ~np.isnan(expected) if expected.dtype.kind in "fc" else np.full(expected.shape, True)
    if expected.dtype.kind == "f":
        assert (np.signbit(found) == np.signbit(expected))[numbers].all()


@pytest.fixture(scope="session", autouse=True)
def warm() -> None:
    """The threads of expressions live as long as the process, by design: they are no leak."""
    threads.spread(lambda pieces: list(pieces) and None, 64, 64)


@pytest.fixture(params=["machine code", "tiles"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to compute: in machine code where this machine has it, and by NumPy's ufuncs."""
    if request.param == "tiles":
        monkeypatch.setattr(machine, "supported", lambda: False)
    machine._loop.cache_clear()
    yield request.param
    machine._loop.cache_clear()


@pytest.fixture
def random() -> Callable[..., np.ndarray[Any, Any]]:
    """Random arrays by shape and dtype, the same in every run."""
    generator = np.random.default_rng(7)

    def make(*shape: int, dtype: Any = float) -> np.ndarray[Any, Any]:
        values = generator.normal(0, 3, shape)
        if np.dtype(dtype).kind == "c":
            return (values + 1j * generator.normal(0, 3, shape)).astype(dtype)
        if np.dtype(dtype).kind == "u":
            return generator.integers(0, 9, shape).astype(dtype)
        return values.round(1).astype(dtype)

    return make
