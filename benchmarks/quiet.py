"""Whether the cores are as fast as they can be.

On a virtual machine they are not always: a neighbour on the same core makes a loop take 1.6 times
as long, for some tenths of a second, and the guest is told nothing of it. So a process bound to
each core times a short loop before and after what is measured, and what began or ended on a slow
core is measured again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SLOW = 1.25  # times the shortest loop so far: such a core is slow
SURVEY = 50  # looks to learn how fast the cores can be
PAUSE = 0.02  # seconds between two looks

_WATCHER = """
import os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
while sys.stdin.buffer.read(1):
    start, total = time.perf_counter(), 0
    for step in range(60_000):
        total += step % 7
    print(time.perf_counter() - start, flush=True)
"""


class Cores:
    """The cores of this program, each with a process that times its speed, in a ``with`` block.

    ``patience`` is how many seconds may go, in all, to waiting and to measuring again.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._quiet: list[bool] = []

    @property
    def quiet(self) -> float:
        """The share of the measurements that were not taken as they came."""
        return sum(self._quiet) / len(self._quiet)

    def __enter__(self) -> Cores:
        self._watchers = [
            subprocess.Popen(
                [sys.executable, "-c", _WATCHER, str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for core in _cores()
        ]
        self._best = [float("inf")] * len(self._watchers)
        for _ in range(SURVEY if self._patience else 0):
            self.fast()
            time.sleep(PAUSE)
        return self

    def __exit__(self, *_: object) -> None:
        for watcher in self._watchers:
            watcher.communicate()

    def fast(self) -> bool:
        """Whether each core is about as fast now as it has ever been here."""
        for watcher in self._watchers:
            assert watcher.stdin is not None
            watcher.stdin.write(b".")
            watcher.stdin.flush()
        times = []
        for watcher in self._watchers:
            assert watcher.stdout is not None
            times.append(float(watcher.stdout.readline()))
        self._best = list(map(min, self._best, times))
        return all(now < SLOW * best for now, best in zip(times, self._best, strict=True))

    def measured(self, prepare: Callable[[], Callable[[], Result]]) -> Result:
        """What the callable gives that ``prepare()`` gives, if all cores were fast before it and
        after it; else once more, while there is patience."""
        while True:
            start = time.perf_counter()
            measure = prepare()
            quiet = self._settled(self._patience)
            found = measure()
            quiet = quiet and self.fast()
            if quiet or self._patience <= 0:
                self._quiet.append(quiet)
                return found
            self._patience -= time.perf_counter() - start

    def _settled(self, seconds: float) -> bool:
        """Wait for fast cores, so long at most; whether they are fast."""
        end = time.monotonic() + seconds
        while not (fast := self.fast()) and time.monotonic() < end:
            time.sleep(PAUSE)
        return fast


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
