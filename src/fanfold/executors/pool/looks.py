"""When a pool looks at its workers: at those that may be stuck, too late or too large."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from fanfold.executors.pool.shipments import PooledCall

__all__ = ["Looks"]

_PAUSE = 0.5  # seconds between two looks
_MEMORY_PAUSE = 0.1  # the same where the memory of workers has a limit
_SHORTEST = 0.005


class Looks:
    """The pause between two looks, in seconds, and when the next one is due."""

    def __init__(self, *, at_memory: bool) -> None:
        self.pause = self._longest = _MEMORY_PAUSE if at_memory else _PAUSE
        self._next = 0.0

    def suit(self, calls: Iterable[PooledCall]) -> None:
        """Look as often as the shortest timeout needs."""
        limits = [one.call.timeout for one in calls if one.call.timeout is not None]
        self.pause = max(_SHORTEST, min([self._longest, *(limit / 4 for limit in limits)]))

    def due(self) -> bool:
        """Is it time? Then the next look is a pause away."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + self.pause
        return True
