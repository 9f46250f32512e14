"""What this process has used, and what the kernel tells of those that it ended to get memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

__all__ = ["KernelKills", "ProcessMeter", "peak_memory"]

_SCALE = 1 if sys.platform == "darwin" else 1024
_CGROUPS = "/sys/fs/cgroup"
_MACHINE = "/proc/vmstat"
_highest = 0  # as it was whenever a meter let it begin anew


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    return max(_highest, getrusage(RUSAGE_SELF).ru_maxrss * _SCALE)


class ProcessMeter:
    """CPU time of this process so far, in seconds, and its peak memory since the last call.

    Processes that it has waited for count for the time. The peak is in bytes; where the system
    cannot let it begin anew (only Linux can), it is the peak so far.
    """

    def __init__(self) -> None:
        self._peaks: int | None = None
        with suppress(OSError):
            self._peaks = os.open("/proc/self/clear_refs", os.O_WRONLY)

    def __call__(self, inside: bool) -> tuple[float, int]:
        global _highest
        own, others = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        peak = own.ru_maxrss * _SCALE
        if self._peaks is not None:
            _highest = max(_highest, peak)
            with suppress(OSError):  # a task has closed it
                os.write(self._peaks, b"5")  # see proc(5)
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
