"""A future that costs little until somebody waits for it.

A `concurrent.futures.Future` makes a lock, a condition and two lists for itself, nine objects that
the garbage collector visits again and again: half of what a small task costs its driver. Of most
futures nobody ever needs them, because the result is there first, or because the waiter runs the
pool meanwhile. So they are made when they are first asked for.
"""

from __future__ import annotations

import concurrent.futures
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanfold.executors.pool.pool import Pool

__all__ = ["Future"]

_PENDING = "PENDING"  # the names that concurrent.futures gives to the states
_RUNNING = "RUNNING"
_FINISHED = "FINISHED"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")


class Future(concurrent.futures.Future[Any]):
    """A future of a pool; who waits for it helps the pool meanwhile.

    Its state changes under the pool's ``guard`` as long as it has no condition, and under its
    condition from then on.
    """

    _made: threading.Condition | None = None
    _result: Any = None
    _exception: BaseException | None = None
    _state = _PENDING

    def __init__(self, pool: Pool) -> None:  # not the parent's: that is the point
        self._pool = pool

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        made = self._made
        if made is None:
            with self._pool.guard:
                made = self._made
                if made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    made = self._made = threading.Condition()
        return made

    def done(self) -> bool:
        return self._state == _FINISHED or self._state in _CANCELLED

    def set_running_or_notify_cancel(self) -> bool:
        with self._pool.guard:
            if self._made is None and self._state == _PENDING:
                self._state = _RUNNING
                return True
        return super().set_running_or_notify_cancel()

    def set_result(self, result: Any) -> None:
        with self._pool.guard:
            if self._made is None and self._state == _RUNNING:
                self._result = result
                self._state = _FINISHED
                return
        super().set_result(result)

    def result(self, timeout: float | None = None) -> Any:
        if self._state == _FINISHED and self._exception is None:
            return self._result
        return super().result(self._help(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._help(timeout))

    def _help(self, timeout: float | None) -> float | None:
        """Help until it is done; the seconds that are left of ``timeout``."""
        if self.done():
            return timeout
        if timeout is None:
            self._pool.help(self.done)
            return None
        deadline = monotonic() + timeout
        self._pool.help(self.done, timeout)
        return max(0.0, deadline - monotonic())
