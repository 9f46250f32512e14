"""The sum of two arrays of float32: a loop, NumPy, numexpr, fanfold, and a GPU where there is one.

    python examples/learn/e12_gpu.py
    python examples/learn/e12_gpu.py --elements 100000000

The second is the size of the textbooks. The loop does a hundredth, and its time is multiplied.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

import fanfold as ff
from fanfold.devices import devices

LOOP_SHARE = 100
Array = np.ndarray


def loop(a: Array, b: Array) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


def on_cores(a: Array, b: Array) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "NumPy", lambda: a + b
    if find_spec("numexpr"):
        import numexpr

        yield "numexpr", lambda: numexpr.evaluate("a + b", {"a": a, "b": b})
    out = np.empty_like(a)
    yield "fanfold", lambda: ff.evaluate("a + b", {"a": a, "b": b})
    yield "fanfold, out=", lambda: ff.evaluate("a + b", {"a": a, "b": b}, out=out)


def on_gpu(a: Array, b: Array) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The way to the GPU and back counts: it takes longer than the sum."""
    found = devices()
    if not found.each:
        print(f"There is no GPU here ({found.source}): the cores are all there is to compare.")
        return
    if find_spec("cupy"):
        yield "fanfold, on=cuda", lambda: ff.evaluate("a + b", {"a": a, "b": b}, on="cuda")
    if find_spec("numba_cuda"):
        from numba import vectorize

        add = vectorize(["float32(float32, float32)"], target="cuda")(lambda x, y: x + y)
        yield "numba vectorize", lambda: add(a, b)
    if not find_spec("cupy") and not find_spec("numba_cuda"):
        print('There is a GPU, and nothing that computes on it: pip install "fanfold[cuda]"')


def seconds(add: Callable[[], Any]) -> float:
    """The shortest of three tries."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        add()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000, help="of each array")
    elements = parser.parse_args().elements
    generator = np.random.default_rng(1)
    a, b = generator.random((2, elements), dtype=np.float32)
    part = slice(elements // LOOP_SHARE)
    print(f"{'a loop':18} {1000 * LOOP_SHARE * seconds(lambda: loop(a[part], b[part])):.1f} ms")
    expected = a + b
    for contenders in (on_cores, on_gpu):
        for name, add in contenders(a, b):
            if not np.array_equal(add(), expected):
                raise SystemExit(f"{name} computes another sum than NumPy.")
            print(f"{name:18} {1000 * seconds(add):.1f} ms")


if __name__ == "__main__":
    main()
