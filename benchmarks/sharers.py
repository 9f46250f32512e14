"""What workers do with memory that they share: importable in any worker, and light to import."""

from __future__ import annotations

import time
from typing import Any

inherited: Any = None  # a multiprocessing.Value reaches its workers by fork alone


def add_quickly(order: tuple[Any, int]) -> None:
    counter, adds = order
    for _ in range(adds):
        counter.add(1)


def add_locked(order: tuple[Any, int]) -> None:
    counter, adds = order
    for _ in range(adds):
        with counter.lock:
            counter.value += 1


def add_inherited(order: tuple[Any, int]) -> None:
    counter, adds = inherited, order[1]
    for _ in range(adds):
        with counter.get_lock():
            counter.value += 1


def attach(order: tuple[bytes, float]) -> float:
    """Seconds from a pickled handle to the first number; before, it waits for its turn."""
    import pickle

    handle, turn = order
    time.sleep(turn)
    began = time.perf_counter()
    shared = pickle.loads(handle)
    float(array_of(shared)[0])
    return time.perf_counter() - began


def add_up(handle: bytes) -> float:
    """Read the whole of a shared array."""
    import pickle

    shared = pickle.loads(handle)
    return float(array_of(shared).sum())


def array_of(shared: Any) -> Any:
    """The array that a handle stands for: a piece of memory of the standard library's has none."""
    import numpy as np

    return np.frombuffer(shared.buf) if hasattr(shared, "buf") else shared
