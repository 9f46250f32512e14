"""A part of a file, mapped into memory where that is safe.

Mapping spares a copy, so it is about twice as fast as reading. But who touches a page behind the
end of a file dies of SIGBUS, and any other process may cut a file. So the file is mapped under a
read lease (fcntl(2), F_SETLEASE): while we have it, the kernel holds up whoever wants to open the
file for writing or to cut it, until we give it back or its patience ends (45 s). The owner of a
file may have a lease, on a local file system, while nobody has the file open for writing;
everybody else reads.

What is not in the cache of the system yet, it is asked to read in large pages: they are mapped, and
read again later, about twice as fast as single ones, which `posix_fadvise` would leave there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import mmap
import os
import signal
from typing import Any

import numpy as np

__all__ = ["Window"]

_POPULATE_READ = 22  # MADV_POPULATE_READ, Linux 5.14


class Window:
    """The bytes ``start`` up to ``stop`` of the open file ``fd``, mapped; see `Window.open`."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd = fd
        base = start - start % mmap.ALLOCATIONGRANULARITY
        memory = mmap.mmap(fd, stop - base, prot=mmap.PROT_READ, offset=base)
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.uint8)
        _populate(whole.__array_interface__["data"][0], len(whole))
        self._bytes = whole[start - base :]
        self._start = start

    @classmethod
    def open(cls, fd: int, start: int, stop: int) -> Window | None:
        """The window, or None where the file cannot be mapped safely: then it is to be read."""
        if not _lease(fd):
            return None
        if os.fstat(fd).st_size >= stop:
            with contextlib.suppress(OSError, ValueError):
                return cls(fd, start, stop)
        _give_back(fd)
        return None

    def holds(self) -> bool:
        """Whether nobody waits for us to let the file go. To be asked before each touch."""
        return fcntl.fcntl(self._fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK

    def release(self) -> None:
        """Give the lease back; what `view` gave may not be touched any more."""
        _give_back(self._fd)

    def view(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """These bytes of the file."""
        return self._bytes[start - self._start : stop - self._start]


@functools.cache
def _madvise() -> Any:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _populate(address: int, length: int) -> None:
    """Have the pages read and mapped. Raises `OSError` where a page cannot be read, and touching
    it would end us. `mmap.madvise` would keep the lock of the interpreter all the while."""
    if _madvise()(address, length, _POPULATE_READ):
        raise OSError(ctypes.get_errno(), "the file cannot be mapped")


def _lease(fd: int) -> bool:
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # By default the holder is told by SIGIO, which would end us; SIGURG is ignored. We ask.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _give_back(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
