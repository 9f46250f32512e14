"""When to ask a scheduler again: less and less often, and never all at the same moment."""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Iterator

from fanfold.units import format_duration

__all__ = ["Clock", "Pace", "Patience", "Random", "Tell", "growing"]

Tell = Callable[[str], object]
Random = Callable[[], float]


class Clock:
    """The time, and waiting. Tests have one that is moved by hand."""

    def time(self) -> float:
        """Seconds since 1970: what other processes can compare."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment: what nobody can turn back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Pace:
    """How long to wait until the next look at the queue.

    It begins with ``shortest`` seconds, grows while nothing changes, up to ``longest``, and begins
    again when something has changed. Jobs of many elements change all the time: of looks that come
    sooner than every ``usual`` seconds there are ``burst``, and one more each ``usual`` seconds, so
    in the long run one look in ``usual`` seconds is the most. Waits are a quarter longer or shorter
    by chance, so that many processes do not ask at the same moment.

    >>> pace = Pace(random=lambda: 0.5)
    >>> [round(pace.wait(changed=False), 1) for _ in range(5)]
    [0.5, 0.8, 1.1, 1.7, 2.5]
    >>> pace.wait(changed=True)
    0.5
    """

    def __init__(
        self,
        *,
        shortest: float = 0.5,
        usual: float = 30.0,
        longest: float = 120.0,
        burst: int = 12,
        clock: Clock | None = None,
        random: Random = _random.random,
    ) -> None:
        self._shortest = shortest
        self._usual = usual
        self._longest = longest
        self._burst = burst
        self._clock = clock or Clock()
        self._random = random
        self._next = shortest
        self._credit = float(burst)
        self._last = self._clock.monotonic()

    def wait(self, changed: bool) -> float:
        """The seconds until the next look, after one that showed something new, or nothing."""
        now = self._clock.monotonic()
        earned = (now - self._last) / self._usual
        self._credit = min(self._burst, self._credit + earned) - 1
        self._last = now
        seconds = self._shortest if changed else self._next
        self._next = min(self._longest, 1.5 * seconds)
        return max(seconds, (1 - self._credit) * self._usual) * (0.75 + self._random() / 2)


class Patience:
    """Waits between tries at something that fails, for ``seconds`` in all.

    ``tell`` gets a sentence before each wait: what failed, and when it is tried again.
    """

    def __init__(self, seconds: float, tell: Tell | None, clock: Clock, random: Random) -> None:
        self._tell = tell
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self._delays = growing(1.0, 60.0, random)

    def wait(self, error: Exception) -> None:
        """Wait before the next try; raises the error when there is no patience left."""
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise error
        delay = min(left, next(self._delays))
        if self._tell is not None:
            self._tell(f"{error}; tried again in {format_duration(delay)}")
        self._clock.sleep(delay)


def growing(shortest: float, longest: float, random: Random) -> Iterator[float]:
    """Waits that double, each between half and the whole of that by chance.

    >>> waits = growing(1.0, 5.0, random=lambda: 1.0)
    >>> [next(waits) for _ in range(5)]
    [1.0, 2.0, 4.0, 5.0, 5.0]
    """
    seconds = shortest
    while True:
        yield seconds * (0.5 + random() / 2)
        seconds = min(longest, 2 * seconds)
