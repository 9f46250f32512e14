"""One independent random stream per task index.

The numbers of a task depend on the seed of the map and on the index of the task, and on nothing
else: not on the place, the number of workers, the chunks or the attempt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["in_task", "new_entropy", "rng", "task_stream"]


class _Current(threading.local):
    """The task that runs in this thread: where its stream comes from, and the stream once made."""

    key: Callable[[], tuple[int, int]] | None = None
    made: tuple[tuple[int, int], np.random.Generator] | None = None


_current = _Current()


def new_entropy() -> int:
    """Fresh entropy for a map without a seed: 128 bits, as NumPy recommends."""
    return int.from_bytes(os.urandom(16), "little")


@contextmanager
def task_stream(key: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """While it is entered, `rng` in this thread follows ``key()``: the (entropy, index) of now."""
    before = _current.key, _current.made
    _current.key, _current.made = key, None
    try:
        yield
    finally:
        _current.key, _current.made = before


def in_task() -> bool:
    """Whether this thread runs a task of a map.

    >>> in_task()
    False
    """
    return _current.key is not None


def rng() -> np.random.Generator:
    """The random generator of the running task.

    Inside a task it is the task's own stream, the same at every call, keyed by the map's ``seed``
    and the task's index through `numpy.random.SeedSequence` (``spawn_key=(index,)``). Outside a
    task it is a new generator with fresh entropy, so that a function can be tried by hand.

    >>> import fanfold as ff
    >>> def draw(_):
    ...     return int(ff.rng().integers(1000))
    >>> ff.map(draw, range(3), seed=7, on="serial") == ff.map(draw, range(3), seed=7, on="threads")
    True
    """
    import numpy as np

    if _current.key is None:
        return np.random.default_rng()
    key = _current.key()
    if _current.made is None or _current.made[0] != key:
        entropy, index = key
        stream = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(index,)))
        _current.made = (key, stream)
    return _current.made[1]
