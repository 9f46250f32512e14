"""Keeps workers x BLAS threads within the cores, for libraries that are already loaded.

A worker process that has not loaded NumPy yet is limited by its environment instead (see
`fanfold.resources.thread_environment`).
"""

from __future__ import annotations

import contextlib
import sys
import threading

from fanfold.resources import blas_threads, cores

__all__ = ["limited_threads"]

_lock = threading.Lock()
_users = 0
_restore = contextlib.ExitStack()


def limited_threads(workers: int) -> contextlib.ExitStack:
    """Limit the BLAS and OpenMP threads of this process until the returned stack is closed.

    The limit belongs to the process: with several at once the first one's holds until the last is
    closed.
    """
    stack = contextlib.ExitStack()
    if workers > 1 and "numpy" in sys.modules:
        _enter(blas_threads(workers, int(cores())))
        stack.callback(_leave)
    return stack


def _enter(threads: int) -> None:
    global _users
    from threadpoolctl import threadpool_limits

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
