"""A lock that processes share: the kernel keeps it, and takes it back when its holder dies.

It is flock(2) on a file that they all have open. It belongs to what open() made, and ends with the
process, however that ends; network file systems pass it on to their other nodes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import warnings
import weakref
from mmap import mmap

from fanfold.errors import UsageError

__all__ = ["SharedLock", "mark", "reopen"]

_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)  # Linux alone has it
_MAGIC = b"ffholder"
_FIRST_PAUSE, _LONGEST_PAUSE = 5e-5, 1e-2  # seconds between two tries of a wait with a limit


def mark(size: int) -> bytes:
    """The end of a file that can be locked, a note of who holds it; ``size`` is that of the rest.

    >>> len(mark(10))
    22
    """
    return bytes(-size % 8) + _MAGIC + bytes(8)


class SharedLock:
    """The lock of a shared array or value: ``with counter.lock: counter.value += 1``.

    It is a `threading.RLock` between processes: the thread that holds it may take it again. When a
    process dies while it holds the lock, the next one gets it, is warned (`RuntimeWarning`) that
    what the lock guards may be half changed, and finds the dead one's process id in
    ``abandoned_by``, which is None otherwise.

    >>> from fanfold.arrays.value import SharedValue
    >>> with SharedValue(0) as counter:
    ...     with counter.lock:
    ...         print(counter.lock.held)
    ...     print(counter.lock.acquire(timeout=1.0))
    ...     counter.lock.release()
    True
    True
    """

    def __init__(self, descriptor: int, mapping: mmap, path: str) -> None:
        """``descriptor`` is open for writing, by nobody else, and closed with the lock;
        ``mapping`` is of the same file, and not kept by it."""
        self.path = path
        self.abandoned_by: int | None = None
        self.turn = 0  # how often this process has taken it
        self._descriptor = descriptor
        self._mapping = weakref.ref(mapping) if mapping[-16:-8] == _MAGIC else _nothing
        self._start()
        weakref.finalize(self, os.close, descriptor)
        _locks.add(self)

    def _start(self) -> None:
        self._threads = threading.RLock()
        self._holder = 0
        self._depth = 0

    @property
    def held(self) -> bool:
        """Does the calling thread hold it?"""
        return self._holder == threading.get_ident()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False when that took longer than ``timeout`` seconds (-1: no limit).

        The wait is for a process that lives: a dead one holds nothing. Raises `UsageError` where
        the file system has no locks.
        """
        deadline = None if timeout < 0 else time.monotonic() + timeout
        if not self._threads.acquire(blocking, timeout):
            return False
        taken = False
        try:
            taken = self._depth > 0 or self._take(deadline if blocking else 0.0)
        finally:
            if not taken:
                self._give_up()
        self._depth += taken
        if taken and self._depth == 1 and self.abandoned_by is not None:
            self._warn()
        return taken

    def release(self) -> None:
        """Give the lock back. Raises RuntimeError when the calling thread does not hold it."""
        if not self.held:
            raise RuntimeError("this thread does not hold the lock: acquire() comes first")
        self._depth -= 1
        if self._depth == 0:
            self._holder = 0
            self._sign(0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def __enter__(self) -> SharedLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self, deadline: float | None) -> bool:
        pause = _FIRST_PAUSE
        while not self._lock(wait=deadline is None):
            left = 0.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._holder = threading.get_ident()
        self.turn += 1
        self.abandoned_by = self._sign(os.getpid()) or None
        return True

    def _give_up(self) -> None:
        """An interrupt may have come when the file was locked, and nothing else done yet."""
        if self._depth == 0:
            self._holder = 0
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def _warn(self) -> None:
        try:
            warnings.warn(
                f"process {self.abandoned_by} died while it held the lock of {self.path}: what "
                "the lock guards may be half changed",
                RuntimeWarning,
                stacklevel=4,
            )
        except BaseException:  # warnings are errors here: then this one has not got the lock
            self.release()
            raise

    def _lock(self, *, wait: bool) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be locked: {error.strerror}. Its file system has no locks "
                "that programs share; choose a path on another one"
            ) from error
        return True

    def keep_byte(self, byte: int) -> bool:
        """Lock one byte of the file until this process ends (fcntl(2), F_OFD_SETLK), which is
        apart from the lock itself on local file systems. False where that fails."""
        if _SETLK is None:
            return False
        flock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)  # C's struct flock
        try:
            fcntl.fcntl(self._descriptor, _SETLK, flock)
        except OSError:
            return False
        return True

    def _sign(self, holder: int) -> int:
        """Note who holds the lock, 0 for nobody; who stood there before."""
        mapping = self._mapping()
        if mapping is None:
            return 0
        before = int.from_bytes(mapping[-8:], "little")
        mapping[-8:] = holder.to_bytes(8, "little")
        return before

    def _become_own(self) -> None:
        """In a forked child: it holds nothing, nor does it keep what its parent holds."""
        self._start()
        try:
            fresh = reopen(self._descriptor, self.path)
        except OSError:  # the name is gone, and there is no /proc to find the file by
            return
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)


def reopen(descriptor: int, path: str) -> int:
    """Open an open file once more, for writing: a lock belongs to what open() has made."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_NOFOLLOW)


def _nothing() -> None:
    """Stands for the mapping of a file that has no place to sign."""


_locks: weakref.WeakSet[SharedLock] = weakref.WeakSet()


def _become_own() -> None:
    for lock in list(_locks):
        lock._become_own()


os.register_at_fork(after_in_child=_become_own)
