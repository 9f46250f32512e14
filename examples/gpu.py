"""The sum of two arrays on a GPU and on the cores: what is gained, and what the way there costs.

    python examples/gpu.py --elements 100000000

NumPy and numexpr compute on the cores. CuPy (pip install "fanfold[cuda]") and the vectorize of
numba-cuda compute on a GPU: once with the way there and back, and once with arrays that are there
already. Each is run five times, and the median is told. What is not installed is left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from fanfold.devices import devices

ROUNDS = 5
Sum = Callable[[], Any]


def on_cores(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, Sum]]:
    """NumPy on one core, and numexpr on several."""
    yield "NumPy", lambda: a + b
    if find_spec("numexpr"):
        import numexpr

        yield "numexpr", lambda: numexpr.evaluate("a + b", {"a": a, "b": b})


def with_cupy(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, Sum]]:
    """CuPy's arrays lie on the GPU: `asarray` takes them there, `asnumpy` back."""
    import cupy

    there = cupy.asarray(a), cupy.asarray(b)

    def add() -> Any:
        total = there[0] + there[1]
        cupy.cuda.get_current_stream().synchronize()  # else only its beginning would be timed
        return total

    yield "CuPy, there and back", lambda: cupy.asnumpy(cupy.asarray(a) + cupy.asarray(b))
    yield "CuPy, arrays are there", add


def with_numba(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, Sum]]:
    """A function of two numbers becomes one of arrays: numba compiles it for the GPU."""
    from numba import cuda, vectorize

    add = vectorize(["float32(float32, float32)"], target="cuda")(lambda x, y: x + y)
    there = cuda.to_device(a), cuda.to_device(b)

    def add_there() -> Any:
        total = add(*there)
        cuda.synchronize()
        return total

    yield "numba, there and back", lambda: add(a, b)
    yield "numba, arrays are there", add_there


def contenders(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, Sum]]:
    """Those that can run here."""
    yield from on_cores(a, b)
    gpus = devices()
    if not gpus.each:
        print(f"There is no GPU to use ({gpus.source}): only the cores are compared.")
        return
    if find_spec("cupy"):
        yield from with_cupy(a, b)
    if find_spec("numba_cuda"):
        yield from with_numba(a, b)
    if not find_spec("cupy") and not find_spec("numba_cuda"):
        print('There is a GPU, and nothing that computes on it: pip install "fanfold[cuda]"')


def median_seconds(add: Sum) -> float:
    """The median time of some sums, after one that warms up."""
    add()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        add()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def same(total: Any, expected: np.ndarray) -> bool:
    """Is it the sum? An array that lies on a GPU is fetched, by CuPy's name for that or numba's."""
    fetch = getattr(total, "get", None) or getattr(total, "copy_to_host", lambda: total)
    return bool(np.array_equal(fetch(), expected))


def compare(elements: int) -> None:
    """Print the time of each contender, and how many times as fast as NumPy it is."""
    rng = np.random.default_rng(1)
    a, b = rng.random(elements, np.float32), rng.random(elements, np.float32)
    expected, numpy_seconds = a + b, 0.0
    print(f"the sum of two arrays of {elements:,} float32, median of {ROUNDS}")
    for name, add in contenders(a, b):
        if not same(add(), expected):
            raise SystemExit(f"{name} computes another sum than NumPy.")
        seconds = median_seconds(add)
        numpy_seconds = numpy_seconds or seconds
        print(f"  {name:24} {seconds * 1000:9.2f} ms  {numpy_seconds / seconds:6.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=20_000_000, help="of each array")
    compare(parser.parse_args().elements)
