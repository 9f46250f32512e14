"""What a pool gives for work that has been begun: `AsyncResult` and `Results`."""

from __future__ import annotations

import multiprocessing
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

from fanfold.errors import FanfoldError, PoolClosed, UsageError

__all__ = ["AsyncResult", "Lane", "Results"]

_AHEAD = 1000  # results of inputs that come one by one which may wait for their consumer


class _NotYetError(FanfoldError, multiprocessing.TimeoutError, TimeoutError):
    """The result was not there in time."""


class AsyncResult:
    """A result that may not be there yet, as of `multiprocessing.pool`.

    >>> import fanfold as ff
    >>> with ff.Pool(2, on="threads") as pool:
    ...     result = pool.apply_async(pow, (2, 5))
    ...     result.get(timeout=10), result.ready(), result.successful()
    (32, True, True)
    """

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def get(self, timeout: float | None = None) -> Any:
        """The result, or the exception that the task raised, raised here.

        Raises `multiprocessing.TimeoutError`, which is a `TimeoutError` too, when it is not there
        in ``timeout`` seconds, and `PoolClosed` when the pool was terminated before.
        """
        self.wait(timeout)
        if not self.ready():
            raise _NotYetError(f"the result is not there after {timeout:g} s: the task goes on")
        try:
            return self._future.result()
        except CancelledError:
            raise PoolClosed("the pool was terminated before this could run") from None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, at most ``timeout`` seconds."""
        with suppress(TimeoutError, CancelledError):
            self._future.exception(timeout)

    def ready(self) -> bool:
        """Is the result, or the failure, there?"""
        return self._future.done()

    def successful(self) -> bool:
        """Did it end without an exception? Raises `ValueError` when it is not `ready`."""
        if not self.ready():
            raise UsageError("the result is not ready: ask wait() or ready() first")
        return not self._future.cancelled() and self._future.exception() is None


class Lane:
    """Results on their way from the thread of a map to its consumer.

    While it is ``bounded``, who puts waits when too many are there.
    """

    def __init__(self, *, bounded: bool) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bool, Any]] = deque()
        self._bounded = bounded
        self._ended = False
        self.left = False  # nobody will ask any more

    def put(self, values: Iterable[tuple[bool, Any]]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._bounded or len(self._waiting) < _AHEAD)
            self._waiting.extend(values)
            self._changed.notify_all()

    def lift(self) -> None:
        """Let whoever puts go on, however much is here."""
        with self._changed:
            self._bounded = False
            self._changed.notify_all()

    def leave(self) -> None:
        self.left = True
        self.lift()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def get(self, timeout: float | None) -> tuple[bool, Any] | None:
        """What is next: has it failed, and its value; None at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._ended, timeout):
                raise _NotYetError(f"the next result is not there after {timeout:g} s")
            value = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return value


class Results(Iterator[Any]):
    """The results of `Pool.imap`, one by one; a failed task raises in its place, and others follow.

    When it is no longer referred to, what is left of the map is stopped.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        weakref.finalize(self, lane.leave)

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises `multiprocessing.TimeoutError` as `AsyncResult.get` does."""
        following = self._lane.get(timeout)
        if following is None:
            raise StopIteration
        failed, value = following
        if failed:
            raise value
        return value
