"""What a measurement holds in memory, read from /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil


def peak_resident() -> int:
    """The largest resident size of this process so far, in bytes.

    Not ``ru_maxrss``: that one is inherited from the process that started us.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: this measurement needs Linux")


def tree_memory() -> int:
    """Memory of this process and all below it, a shared page counted once (PSS), in bytes."""
    me = psutil.Process()
    return sum(_proportional(process) for process in (me, *me.children(recursive=True)))


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended while we looked
        return 0


class TreePeak:
    """While it is entered, watches `tree_memory`; ``peak`` is the most it saw."""

    def __init__(self, interval: float = 0.02) -> None:
        self.peak = 0
        self._interval = interval
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"memory-of-{os.getpid()}")

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, tree_memory())
            if self._over.wait(self._interval):
                return

    def __enter__(self) -> TreePeak:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
