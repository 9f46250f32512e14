"""One expression, three ways: NumPy, ff.evaluate in memory, ff.evaluate on files.

    python examples/expressions.py --elements 20000000

The three results are the same, bit for bit.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fanfold as ff

EXPRESSION = "a**2 + b**2 + 2*a*b"


def seconds(compute: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some tries."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return min(times)


def in_memory(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy against one pass over the operands; returns the result."""
    out = np.zeros_like(a)
    numpy = seconds(lambda: a**2 + b**2 + 2 * a * b)
    ours = seconds(lambda: ff.evaluate(EXPRESSION, {"a": a, "b": b}, out=out))
    assert np.array_equal(out, a**2 + b**2 + 2 * a * b)
    print(f"in memory: NumPy {numpy * 1e3:.1f} ms, ff.evaluate {ours * 1e3:.1f} ms, the same bits")
    return out


def on_files(a: np.ndarray, b: np.ndarray, expected: np.ndarray, folder: Path) -> None:
    """The same text, with operands and result in files that need not fit into memory."""
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    blocks = {name: ff.Blocks(folder / f"{name}.npy", memory="64MB") for name in "ab"}
    out = ff.evaluate(EXPRESSION, blocks, out=folder / "out.npy")
    assert np.array_equal(out, expected)
    print(f"on files: {out.nbytes / 1e6:.0f} MB written, the same bits")


def main() -> None:
    parser = argparse.ArgumentParser(description="One expression, three ways.")
    parser.add_argument("--elements", type=int, default=20_000_000, help="of each array")
    options = parser.parse_args()
    generator = np.random.default_rng(1)
    a, b = generator.random((2, options.elements))
    result = in_memory(a, b)
    with tempfile.TemporaryDirectory() as folder:
        on_files(a, b, result, Path(folder))
    variance = ff.evaluate("mean((a - mean(a))**2)", {"a": a})
    print(f"the variance of a uniform number is 1/12: {variance:.4f}")


if __name__ == "__main__":
    main()
