"""Arrays in files, and how close to NumPy's the answers have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def numbers(count: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Numbers of both signs and many sizes."""
    random = np.random.default_rng(seed)
    return random.normal(size=count) * 10.0 ** random.integers(-3, 4, count)


def ulps_of_sum(array: np.ndarray[Any, Any]) -> float:
    """What the page promises for a sum: log2(n) + 12 roundings of the sum of the absolutes."""
    return (math.log2(max(2, array.size)) + 12) * 2.0**-53 * float(np.abs(array).sum())


def same_bits(found: Any, expected: Any) -> bool:
    return np.asarray(found).tobytes() == np.asarray(expected).tobytes()
