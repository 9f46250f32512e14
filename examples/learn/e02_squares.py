"""Squares by the built-in map, by a pool and by fanfold; then the same for work that takes longer.

python examples/learn/e02_squares.py
"""

import multiprocessing
import time
from collections.abc import Callable

import fanfold as ff

WORKERS = 2


def square(x: int) -> int:
    return x * x


def slow_square(x: int) -> int:
    """A square that takes a moment: it adds x to itself, x times, and does so many times over."""
    for _ in range(200_000):
        total = sum([x] * x)
    return total


def timed(name: str, work: Callable[[], list[int]]) -> None:
    began = time.perf_counter()
    squares = work()
    print(f"  {name:16} {squares} in {1000 * (time.perf_counter() - began):.3f} ms")


def with_pool(func: Callable[[int], int], numbers: range) -> list[int]:
    with multiprocessing.Pool(WORKERS) as pool:
        return pool.map(func, numbers)


def compare(func: Callable[[int], int], numbers: range) -> None:
    print(f"{func.__name__}:")
    timed("map", lambda: list(map(func, numbers)))
    timed("multiprocessing", lambda: with_pool(func, numbers))
    timed("fanfold", lambda: ff.map(func, numbers, workers=WORKERS, on="processes"))


def main() -> None:
    compare(square, range(1, 7))
    compare(slow_square, range(1, 7))


if __name__ == "__main__":
    main()
