"""a**2 + b**2 + 2*a*b of a million doubles: NumPy, numexpr and fanfold.

python examples/learn/e15_expressions.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

import fanfold as ff

EXPRESSION = "a**2 + b**2 + 2*a*b"
ELEMENTS, ROUNDS = 1_000_000, 15


def timed(name: str, compute: Callable[[], np.ndarray], expected: np.ndarray) -> None:
    """Print the median time, when the result is right."""
    assert np.allclose(compute(), expected, rtol=1e-15)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - began)
    print(f"{name:20} {1000 * statistics.median(seconds):.2f} ms")


def main() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random((2, ELEMENTS))
    expected, arrays = a**2 + b**2 + 2 * a * b, {"a": a, "b": b}
    timed("NumPy", lambda: a**2 + b**2 + 2 * a * b, expected)
    try:
        import numexpr
    except ImportError:
        print("numexpr is not installed: pip install numexpr")
    else:
        for threads in (1, 2):
            numexpr.set_num_threads(threads)
            named = f"numexpr, {threads} thread{'s' * (threads > 1)}"
            timed(named, lambda: numexpr.evaluate(EXPRESSION, arrays), expected)
    for workers in (1, 2):
        named = f"fanfold, {workers} thread{'s' * (workers > 1)}"
        timed(named, lambda n=workers: ff.evaluate(EXPRESSION, arrays, workers=n), expected)
    out = np.empty_like(a)
    timed("fanfold, out=", lambda: ff.evaluate(EXPRESSION, arrays, out=out), expected)


if __name__ == "__main__":
    main()
