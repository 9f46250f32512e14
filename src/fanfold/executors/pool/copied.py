"""A launcher whose workers begin as copies of this program, with all that it has imported.

It is forked from the program at a moment when that is safe, and forks the workers from itself: so
they can be started at any later moment, whatever the program does then, and sooner than new ones.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from typing import NoReturn

from fanfold.executors.pool import launcher
from fanfold.executors.pool.generators import Generators
from fanfold.executors.pool.loop import uninterrupted
from fanfold.executors.work.memory import own_memory
from fanfold.executors.work.standard import flush

__all__ = ["Copied", "can_copy"]

_LARGEST = 1 << 28  # bytes: to copy the tables of more memory takes more than a few milliseconds
_STANDARD = {0, 1, 2}
_HARMLESS = ("/proc/", "/dev/null", "/dev/tty", "/dev/pts/", "/dev/urandom")


def can_copy(beside: str = "") -> bool:
    """Can the main thread fork the program, between two tasks, as far as is quickly seen?

    Not where another thread is, but one of the name ``beside``: whatever it holds would be held for
    ever in the copy. (The threads of NumPy's library may be: see `Copied.made`.) Not where files or
    connections are open: several workers would read and write there in turn. And not with MPI.
    """
    if sys.platform != "linux" or "mpi4py.MPI" in sys.modules:
        return False
    names = [one.name for one in threading.enumerate()]
    return (
        len(names) == 1 + names.count(beside)
        and ("numpy" in sys.modules or not _native_threads())
        and own_memory(os.getpid()) < _LARGEST
        and not _has_open_files()
    )


class Copied:
    """A launcher that is a fork of this program, from when it was made; see `Copied.made`."""

    def __init__(self) -> None:
        flush(sys.stdout)  # else it would be told again, by the copies
        flush(sys.stderr)
        self._socket, theirs = socket.socketpair()
        with theirs, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: whether there are any is seen then
            self._pid = os.fork()
            if self._pid == 0:
                _be_launcher(theirs.fileno())

    @classmethod
    def made(cls, beside: str = "") -> Copied | None:
        """Fork the program now; None where that cannot be: see `can_copy`.

        OpenBLAS ends its threads before a fork, to begin them again when they are needed: who is
        still there after it belongs to somebody else.
        """
        if threading.current_thread() is not threading.main_thread() or not can_copy(beside):
            return None
        copied = None
        try:
            with uninterrupted():
                copied = cls()
        except OSError:  # there is no room for one more process
            return None
        except KeyboardInterrupt:
            if copied is not None:
                copied.close()
            raise
        if _native_threads():
            copied.close()
            return None
        return copied

    def connect(self) -> socket.socket:
        """A connection to it, as that of `fanfold.executors.pool.launcher`; to a usual launcher
        when it has died."""
        try:
            return launcher.connection(self._socket)
        except OSError:
            return launcher.connect()

    def close(self) -> None:
        """End it, and what it has started."""
        self._socket.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # somebody else has waited for it
            os.waitpid(self._pid, 0)


def _be_launcher(descriptor: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        launcher.close_all_but({*_STANDARD, descriptor})
        sys.settrace(None)
        sys.setprofile(None)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        launcher.main(descriptor, Generators())
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the program's code
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _native_threads() -> int:
    """How many of the program's threads are not Python's."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


def _has_open_files() -> bool:
    """Has the program opened anything in which several processes would read and write in turn?"""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            path = os.readlink(f"/proc/self/fd/{name}")
            inherited_pipe = path.startswith("pipe:") and os.get_inheritable(int(name))
            if not (int(name) in _STANDARD or path.startswith(_HARMLESS) or inherited_pipe):
                return True
    return False
