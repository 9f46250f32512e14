"""Pieces of one computation on several threads of this process, that are kept for the next one."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Pieces", "scratch", "spread"]

_MOST_KEPT = 2**24
"""Bytes of scratch memory that a thread keeps between two computations."""

_own = threading.local()
_pool: ThreadPoolExecutor | None = None


def _helpers() -> ThreadPoolExecutor:
    """Threads that are warm; at most as many as the machine has CPUs, whatever is asked for."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fanfold-expressions")
    return _pool


def _after_fork() -> None:
    """A child has the pool of its parent, and none of its threads."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_after_fork)


class Pieces:
    """The numbers of the pieces that nobody has begun: each is taken once, by any thread."""

    def __init__(self, count: int) -> None:
        self._numbers = itertools.count()
        self._count = count
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                number = next(self._numbers)
            if self._stopped or number >= self._count:
                return
            yield number

    def stop(self) -> None:
        """Nothing more is begun: a piece has failed, or nobody wants the result any more."""
        self._stopped = True

    def __enter__(self) -> Pieces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()


def spread(work: Callable[[Pieces], None], count: int, workers: int) -> None:
    """Have ``work(pieces)`` run on this thread and on ``workers - 1`` others.

    ``work`` goes through ``pieces``, that are ``range(count)`` shared out among all threads. The
    first error ends all of them, and is raised.
    """
    pieces = Pieces(count)

    def share() -> None:
        with pieces:
            work(pieces)

    others = [_helpers().submit(share) for _ in range(min(workers, count) - 1)]
    try:
        share()
    finally:
        _end(others)
    for other in others:
        if not other.cancelled():
            other.result()


def _end(others: list[Future[None]]) -> None:
    """Wait for those that have begun; a piece takes milliseconds. The rest is not needed."""
    for other in others:
        if not other.cancel():
            other.exception()


def scratch(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """``size`` bytes for this thread to work in, the same ones each time: fresh memory is slow."""
    kept: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = getattr(_own, "scratch", None)
    if kept is None or len(kept) < size:
        kept = np.empty(size, np.uint8)
        if size <= _MOST_KEPT:
            _own.scratch = kept
    return kept[:size]
