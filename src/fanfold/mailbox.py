"""A queue between threads whose `get` never waits longer than it was told."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from queue import Empty
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """As `queue.SimpleQueue`, whose ``get(timeout=...)`` may wait for ever: where the time is over
    before it begins to wait a second time, it waits without end (CPython 3.11 to 3.13, seen with
    microseconds; a busy machine does the same to milliseconds).

    >>> box = Mailbox()
    >>> box.put(1)
    >>> box.get(), box.empty()
    (1, True)
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = Lock()  # held while there is nothing to be told
        self._bell.acquire()

    def put(self, item: T) -> None:
        self._items.append(item)
        self._ring()

    def get(self, timeout: float | None = None) -> T:
        """The oldest item; raises `queue.Empty` when none came in ``timeout`` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            try:
                return self.get_nowait()
            except Empty:
                left = -1.0 if deadline is None else deadline - monotonic()
                if deadline is not None and left <= 0:
                    raise
                self._bell.acquire(timeout=left)

    def get_nowait(self) -> T:
        try:
            item = self._items.popleft()
        except IndexError:
            raise Empty from None
        if self._items:
            self._ring()  # for another thread that waits: the bell tells of any number of items
        return item

    def empty(self) -> bool:
        return not self._items

    def _ring(self) -> None:
        if self._bell.locked():
            with suppress(RuntimeError):  # another thread was faster
                self._bell.release()
