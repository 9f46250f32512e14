"""Keeps workers x BLAS threads within the cores, for libraries that are already loaded.

A worker process that has not loaded NumPy yet is limited by its environment instead (see
`fanfold.resources.thread_environment`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from time import monotonic

from fanfold.resources import blas_threads, cores

__all__ = ["ThreadLimit"]

_PAUSE = 0.02  # seconds between two looks

_lock = threading.Lock()
_users = 0
_restore = contextlib.ExitStack()


class ThreadLimit:
    """Limits the BLAS and OpenMP threads of this process, which shares its cores with ``workers``.

    It does so as soon as `look` finds such threads, and not before: asked for fewer, OpenBLAS
    starts those that it has not yet, and each keeps a core busy for a tenth of a second (0.3.31,
    its first time in a process, or in one that has forked). The limit belongs to the process: with
    several at once the first one's holds until the last is closed.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._limits = False
        self._next = 0.0

    def look(self) -> None:
        """As often as one likes, but always in the thread that closes it: where threads share a
        BLAS, only the one that has limited it can undo that."""
        if self._workers < 2 or self._limits or (now := monotonic()) < self._next:
            return
        self._next = now + _PAUSE
        if "numpy" in sys.modules and _has_native_threads():
            _enter(blas_threads(self._workers, int(cores())))
            self._limits = True

    def close(self) -> None:
        if self._limits:
            self._limits = False
            _leave()


def _has_native_threads() -> bool:
    """Has this process threads that are not Python's? (Where nobody knows: it may have.)"""
    try:
        return len(os.listdir("/proc/self/task")) > threading.active_count()
    except OSError:  # not Linux
        return True


def _enter(threads: int) -> None:
    global _users
    from threadpoolctl import threadpool_limits  # late: it takes milliseconds

    with _lock:
        if _users == 0:
            _restore.enter_context(threadpool_limits(limits=threads))
        _users += 1


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _restore.close()
