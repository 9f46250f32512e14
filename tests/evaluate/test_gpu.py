"""on="cuda": CuPy where there is a GPU, and one sentence where there is none."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from tests.evaluate.conftest import in_numpy

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.expressions import gpu
from fanfold.expressions.operands import bind
from fanfold.expressions.text import parse


class Host:
    """NumPy in the place of CuPy: what stands in `gpu` runs, on the processor."""

    asnumpy = staticmethod(np.asarray)

    class ndarray:  # noqa: N801
        """No operand is of this type."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


TEXTS = [
    "a**2 + b**2 + 2*a*b",
    "where(a > b, sqrt(abs(a)), b) + float32(n)",
    "a - mean(a, axis=0)",
    "sum(a * b)",
    "n + 1",
    "max(n) * 2.5",
    "1 + 2",
    "real(a) // 2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_graph_is_walked_as_numpy_would(text: str) -> None:
    """Every operation and reduction is called by its name, with NumPy's dtypes."""
    variables = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.full(4, 2.5, np.float32),
        "n": np.arange(4, dtype=np.int16),
    }
    graph = parse(text)
    found = gpu.compute(Host(), graph, bind(graph, variables), None)
    expected = in_numpy(text, **variables)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    out = np.empty(np.shape(expected), np.asarray(expected).dtype)
    assert gpu.compute(Host(), graph, bind(graph, variables), out) is out


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_without_cupy_one_sentence_says_what_to_install() -> None:
    """The extra is named, with the line for pip."""
    with pytest.raises(UsageError, match=r'pip install "fanfold\[cuda\]"'):
        ff.evaluate("a + 1", {"a": np.ones(3)}, on="cuda")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs CuPy and a GPU")
@pytest.mark.parametrize("text", TEXTS)
def test_a_gpu_gives_the_same_answer(text: str) -> None:
    """Dtype and value are those of the processor; arrays of the GPU stay there."""
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    a, b, n = np.ones((3, 4), np.float32), np.full(4, 2.5, np.float32), np.arange(4)
    variables = {"a": a, "b": b, "n": n}
    expected = ff.evaluate(text, variables)
    found = ff.evaluate(text, variables, on="cuda")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    there = ff.evaluate(text, {"a": cupy.asarray(a), "b": b, "n": n}, on="cuda")
    np.testing.assert_allclose(cupy.asnumpy(there), expected, rtol=1e-6)
