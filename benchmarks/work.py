"""The tasks of `benchmarks.cases.regret`, in a module that loads nothing, as a user's own would.

Workers that are started anew import it; NumPy they import when they need it.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from benchmarks import tasks


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def compute_and_wait(steps: int) -> int:
    time.sleep(0.005)
    return tasks.count(steps)


def sort(seed: int) -> float:
    """NumPy lets go of the interpreter's lock meanwhile."""
    np = import_module("numpy")
    return float(np.sort(np.random.default_rng(seed).random(400_000))[0])


def stream(index: int) -> float:
    """Reads and writes memory, and does next to nothing with it."""
    np = import_module("numpy")
    return float((np.ones(4_000_000) + index)[index])


def fail_or_count(steps: int) -> int:
    """A task that fails; what it gives is the failure, as pools have no place for it."""
    try:
        if steps % 3 == 0:
            raise ValueError(steps)
    except ValueError:
        return tasks.count(steps // 4)
    return tasks.count(steps)


def blocks(index: int) -> Any:
    return tasks.block(index, 4)
