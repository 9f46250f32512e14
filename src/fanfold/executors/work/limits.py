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
_LITTLE = 1e-3  # seconds of work that need no limit
_SEVERAL = 4  # threads that are looked at: a BLAS gives work to its first ones first

_lock = threading.Lock()
_users = 0
_restore = contextlib.ExitStack()


class ThreadLimit:
    """Limits the BLAS and OpenMP threads of this process, which shares its cores with ``workers``.

    It does so as soon as `look` finds that such threads have worked, and not before: to find the
    libraries takes milliseconds, for nothing where tasks wait for something else; and asked for
    fewer, OpenBLAS starts those that it has not yet, and each keeps a core busy for a tenth of a
    second (0.3.31, its first time in a process, or in one that has forked). The limit belongs to
    the process: with several at once the first one's holds until the last is closed.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._limits = False
        self._next = 0.0
        self._worked = _native_time() if workers > 1 else None

    def look(self) -> None:
        """As often as one likes, but always in the thread that closes it: where threads share a
        BLAS, only the one that has limited it can undo that."""
        if self._workers < 2 or self._limits or (now := monotonic()) < self._next:
            return
        self._next = now + _PAUSE
        if "numpy" not in sys.modules:
            return
        worked = _native_time()
        if worked is None or self._worked is None or worked > self._worked + _LITTLE:
            _enter(blas_threads(self._workers, int(cores())))
            self._limits = True

    def close(self) -> None:
        if self._limits:
            self._limits = False
            _leave()


def _native_time() -> float | None:
    """Seconds of cores that the threads of this process have used which are not Python's. None
    where nobody knows."""
    try:
        ours = {str(thread.native_id) for thread in threading.enumerate()}
        ours.add(str(os.getpid()))  # who has forked knows its parent's (Python 3.11)
        others = sorted(set(os.listdir("/proc/self/task")) - ours, key=int)
        return sum(map(_thread_time, others[:_SEVERAL]))
    except (OSError, ValueError):  # not Linux, or an old kernel
        return None


def _thread_time(thread: str) -> float:
    try:
        with open(f"/proc/self/task/{thread}/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[0]) * 1e-9
    except FileNotFoundError:  # it has ended
        return 0.0


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
