"""What this process has used, and what the kernel tells of those that it ended to get memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter

from fanfold.executors.work.mark import Mark

__all__ = ["Growth", "KernelKills", "ProcessMeter", "own_memory", "peak_memory"]

_SCALE = 1 if sys.platform == "darwin" else 1024
_CGROUPS = "/sys/fs/cgroup"
_MACHINE = "/proc/vmstat"
_PAGE = os.sysconf("SC_PAGESIZE")
_MOMENT = 5e-3  # seconds in which nobody leaves much behind


def _high_water() -> int:
    """The largest resident size in bytes, of this program alone; 0 elsewhere than on Linux."""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _inherited_peak() -> int:
    """What getrusage tells of the time before this program: 0 where that was not larger.

    A process that is made by vfork, as `subprocess` does, has its parent's memory until it becomes
    another program, and Linux goes on to count the peak of that (exec_mmap in its fs/exec.c).
    """
    own, told = _high_water(), getrusage(RUSAGE_SELF).ru_maxrss * _SCALE
    return told if 0 < own < told else 0


_inherited = _inherited_peak()
_highest = 0  # as it was whenever a meter let it begin anew


def _own_peak(told: int) -> int:
    """The peak of this program in bytes, of what getrusage has ``told``; the files are slower."""
    peak = told * _SCALE
    return peak if peak > _inherited else _high_water() or peak


def peak_memory() -> int:
    """The largest resident size so far, in bytes, of this process or of one that it waited for."""
    own, others = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    return max(_highest, _own_peak(own.ru_maxrss), others.ru_maxrss * _SCALE)


def own_memory(pid: int) -> int:
    """The memory that a process has for itself now, in bytes: 0 when it is gone, or cannot be seen.

    It is the resident size without what lies in files and in shared memory (statm in proc(5)): an
    array that many workers see is nobody's growth. The kernel keeps both numbers, so this costs
    some microseconds; the unique set size (USS) is found by going through all pages, for
    milliseconds, in which the process stands still. What it has in common with the process that
    forked it, until one of them writes there, counts; programs that it has started do not.

    Elsewhere than on Linux it is the USS, or where that is a secret the resident size, by psutil.

    >>> from subprocess import PIPE, Popen
    >>> line = [sys.executable, "-uc", "large = b'.' * (128 << 20); print(); input()"]
    >>> with Popen(line, stdin=PIPE, stdout=PIPE) as process:
    ...     ready = process.stdout.readline()
    ...     128 << 20 < own_memory(process.pid) < 192 << 20
    ...     told, _ = process.communicate(b"\\n")
    True
    """
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _, resident, shared, *_ = file.read().split()
    except FileNotFoundError:
        return 0 if os.path.isdir("/proc/self") else _own_memory_elsewhere(pid)
    except OSError:  # it ended since the file was opened, or no descriptor is free: look later
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _own_memory_elsewhere(pid: int) -> int:
    import psutil  # late: no worker needs it on Linux

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with suppress(psutil.AccessDenied):
            return int(process.memory_full_info().uss)
        return int(process.memory_info().rss)
    return 0


class Growth:
    """How much memory a worker has of its own, of which it may have ``limit`` bytes.

    What it was born with is its parent's too, and does not count. The mark tells the driver of
    that, and of what earlier tasks have left behind: the one that runs is not to blame for it.
    """

    def __init__(self, limit: int, mark: Mark) -> None:
        self._limit = limit
        self._mark = mark
        _trim()
        self._born = own_memory(os.getpid())
        self._ready = own_memory(os.getpid())
        self._next = 0.0  # when it is worth to look again

    def ready(self) -> int | None:
        """Tasks come from now on; what there is now, where that is too much."""
        self._ready = own_memory(os.getpid())
        return self.look()

    def look(self) -> int | None:
        """Between two tasks: what it has, where that is more than it may.

        What is there beyond what was there at first has been left by the tasks so far. A look costs
        as much as some small tasks, so between those not everybody looks.
        """
        began = perf_counter()
        if began < self._next:
            return None
        self._next = began + _MOMENT
        now = own_memory(os.getpid())
        left = max(0, now - self._ready)
        self._mark.found(self._born, self._born + left)
        return now - self._born if now - self._born > self._limit else None


def _trim() -> None:
    """Have the C library give back what it keeps for later: in a forked process the parent may have
    left so much that a large task would seem to need little."""
    import ctypes  # late: only a worker whose memory is limited needs it

    with suppress(OSError, AttributeError):  # it is glibc's
        ctypes.CDLL(None).malloc_trim(0)


class ProcessMeter:
    """CPU time of this process so far, in seconds, and its peak memory since the last call.

    Processes that it has waited for count for the time; for the peak, those that were larger than
    all before. The peak is in bytes; where the system cannot let it begin anew (only Linux can), it
    is the peak so far.
    """

    def __init__(self) -> None:
        self._peaks: int | None = None
        self._largest_other = getrusage(RUSAGE_CHILDREN).ru_maxrss
        with suppress(OSError):
            self._peaks = os.open("/proc/self/clear_refs", os.O_WRONLY)

    def __call__(self, inside: bool) -> tuple[float, int]:
        global _highest
        own, others = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        peak = _own_peak(own.ru_maxrss)
        if self._peaks is not None:
            _highest = max(_highest, peak)
            with suppress(OSError):  # a task has closed it
                os.write(self._peaks, b"5")  # see proc(5)
        if others.ru_maxrss > self._largest_other:
            self._largest_other = others.ru_maxrss
            peak = max(peak, others.ru_maxrss * _SCALE)
        return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime, peak

    def close(self) -> None:
        if self._peaks is not None:
            with suppress(OSError):
                os.close(self._peaks)


class KernelKills:
    """Counts the processes of our control group that the kernel has ended for want of memory.

    The counts are of Linux: ``oom_kill`` in the files of the group, or of the whole machine.
    """

    def __init__(self) -> None:
        self._path, self._known = "", 0
        for path in _files():
            count = _count(path)
            if count is not None:
                self._path, self._known = path, count
                break

    def explain_one(self) -> bool | None:
        """Whether one more has been ended than was asked for before; None: nobody can tell.

        That the machine has ended one more says little: it may have been anybody's.
        """
        count = _count(self._path)
        if count is None:
            return None
        if count <= self._known:
            return False
        self._known += 1
        return None if self._path == _MACHINE else True


def _files() -> list[str]:
    """Where the count may be, the best place first."""
    places = []
    with suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, group = line.rstrip("\n").split(":", 2)
            if not controllers:
                places += [f"{_CGROUPS}{group}/memory.events"]
            elif "memory" in controllers.split(","):
                places += [
                    f"{_CGROUPS}/memory{group}/memory.oom_control",
                    f"{_CGROUPS}/memory/memory.oom_control",  # our group is all that can be seen
                ]
    return [*places, _MACHINE]


def _count(path: str) -> int | None:
    with suppress(OSError, ValueError), open(path) as file:
        for line in file:
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return None
