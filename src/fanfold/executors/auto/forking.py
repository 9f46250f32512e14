"""Whether worker processes can be forks of this program, which start sooner than new ones."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from contextlib import suppress

from fanfold.executors.auto.choice import Start
from fanfold.executors.auto.watch import WATCHING

__all__ = ["bury", "can_fork", "forks", "start_here"]

_forked: list[int] = []


def start_here() -> Start:
    """How worker processes would be started by the thread that asks."""
    if threading.current_thread() is threading.main_thread() and can_fork():
        return "forked"
    return "warm" if "fanfold.executors.pool.starter" in sys.modules else "cold"


def can_fork() -> bool:
    """Could the main thread fork the program, between two tasks?

    Where it has no other thread but the watching one and, it may be, those of NumPy's library, and
    no MPI: whatever another thread holds would be held for ever in the copy.
    """
    if sys.platform != "linux" or "mpi4py.MPI" in sys.modules:
        return False
    names = [one.name for one in threading.enumerate()]
    return len(names) == 1 + names.count(WATCHING) and (
        "numpy" in sys.modules or not _native_threads()
    )


def forks() -> bool:
    """Can the thread that asks fork the program now? What may be is made sure, in milliseconds.

    OpenBLAS ends its threads before a fork, to begin them again when they are needed: who is there
    after a first fork belongs to somebody else.
    """
    if start_here() != "forked":
        return False
    if _native_threads():
        _fork_once()
    return not _native_threads()


def _native_threads() -> int:
    """How many of the program's threads are not Python's."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


def bury() -> None:
    """Wait for those who were forked only to see who stays. (To end takes them milliseconds.)"""
    while _forked:
        with suppress(ChildProcessError):  # somebody else has waited for it
            os.waitpid(_forked.pop(), 0)


def _fork_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: that is the question
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.kill(child, signal.SIGKILL)  # whatever it waits for
    _forked.append(child)
