"""The functions that the pools run: importable in any worker, and light to import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def same(item: Any) -> Any:
    """The no-op, with an answer that can be checked."""
    return item


def call(func: Callable[[Any], Any], item: Any) -> Any:
    """For the peers that keep a large function apart from the tasks that use it."""
    return func(item)


def hold(seconds: float) -> None:
    """Keep a worker occupied, with NumPy imported: this is how all of them are warmed."""
    import_module("numpy")
    time.sleep(seconds)


def end_worker(seconds: float | None) -> None:
    """`hold`; without a time it ends its worker, as a segmentation fault does."""
    if seconds is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        hold(seconds)


def spin(seconds: float) -> float:
    """Use exactly so many seconds of a core, however fast it is; returns them."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def count(steps: int) -> int:
    """Pure Python work: the sum of the remainders by seven."""
    total = 0
    for step in range(steps):
        total += step % 7
    return total


def numbers(megabytes: int) -> np.ndarray[Any, Any]:
    """0.0, 1.0, 2.0 ...: so many megabytes of them."""
    import numpy as np

    return np.arange(megabytes * 1_000_000 // 8, dtype=float)


def pick(array: np.ndarray[Any, Any], index: int) -> float:
    """One number of a large array."""
    return float(array[index])


def add(array: np.ndarray[Any, Any], index: int) -> float:
    """Read the whole of a large array."""
    return float(array.sum()) + index


def total(array: np.ndarray[Any, Any]) -> float:
    """Read the whole of an array that is the argument itself."""
    return float(array.sum())


def block(index: int, megabytes: int) -> np.ndarray[Any, Any]:
    """A large result, full of its index."""
    import numpy as np

    return np.full(megabytes * 1_000_000 // 8, index, dtype=float)
