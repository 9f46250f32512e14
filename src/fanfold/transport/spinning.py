"""Waiting awake for a moment before going to sleep.

To sleep until a message comes, and to be woken, costs tens of microseconds on either side: more
than a small task. A wait that may well be short is therefore begun awake, for about as long as
sleeping would cost, which at worst doubles what the wait costs (the ski-rental argument; Karlin,
Manasse, McGeoch and Owicki, "Competitive randomized algorithms for non-uniform problems", 1994).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

__all__ = ["SpinWait"]

_MOMENT = 1e-4  # seconds awake
_SHORT = 5e-4  # seconds of a wait, sleep included, after which the next one is begun awake

_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)

T = TypeVar("T")


class SpinWait:
    """How one thread waits for one thing, again and again.

    It stays awake only when the last wait was short, and never where there is a single core: the
    other side could not work meanwhile.

    >>> SpinWait().wait(lambda: None, lambda: "slept")
    'slept'
    """

    def __init__(self) -> None:
        self._short = False
        self._allowed = cores() > 1

    def wait(self, poll: Callable[[], T], sleep: Callable[[], T]) -> T:
        """What ``poll()`` says as soon as it is true, for a moment; then what ``sleep()`` says."""
        began = perf_counter()
        if self._short:
            while perf_counter() - began < _MOMENT:
                found = poll()
                if found:
                    return found
                _yield()  # the other side may wait for this very core
        found = sleep()
        self._short = self._allowed and perf_counter() - began < _SHORT
        return found


def cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
