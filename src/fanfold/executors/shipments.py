"""What the pool of processes moves: calls, parcels and shipments."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from fanfold.tasks import Call, Report
from fanfold.transport.pickling import Packed, pack, pack_function
from fanfold.transport.segments import SegmentFolder
from fanfold.transport.sharing import SharedBuffers

__all__ = ["Parcel", "PooledCall", "Shipment"]

_numbers = count(1)


class PooledCall:
    """A call in a pool: its function packed once, and how long its tasks take.

    ``report`` gets what happens to its tasks. ``pace`` is the running mean of seconds a task; None
    until one has ended.
    """

    def __init__(
        self, call: Call, folder: SegmentFolder, report: Callable[[Report], None] | None = None
    ) -> None:
        self.id = next(_numbers)
        self.call = call
        self.report = report
        self.pace: float | None = None
        self.closed = False
        self.shared = SharedBuffers(folder.put, stable=call.stable)
        self._folder = folder
        self._function = SharedBuffers(folder.put)
        self.packed = pack_function((call.func, call.fold), folder.put, self._function.share)

    def definition(self) -> tuple[Any, ...]:
        """The operation that tells a worker of this call."""
        call = self.call
        return ("call", self.id, call.style, call.entropy, call.timeout, self.packed)

    def pack_items(self, items: list[Any]) -> Parcel:
        """Raises `NotSerializable`."""
        return Parcel(pack(items, self._folder.put, self.shared.share), self.shared)

    def learn(self, seconds: float, tasks: int) -> None:
        pace = max(seconds / tasks, 1e-7)
        self.pace = pace if self.pace is None else 0.7 * self.pace + 0.3 * pace

    def free(self) -> None:
        """Give back what the call holds in shared memory."""
        self.closed = True
        self.shared.close()
        for segment in self.packed.segments():
            self._function.done(segment)
        self._function.close()


class Parcel:
    """Packed items. Its segments are freed with the last shipment that carries it."""

    __slots__ = ("_lock", "_shared", "_users", "packed")

    def __init__(self, packed: Packed, shared: SharedBuffers) -> None:
        self.packed = packed
        self._shared = shared
        self._users = 0
        self._lock = _parcel_lock

    def keep(self) -> None:
        self._users += 1

    def let_go(self) -> None:
        if self.packed.buffers or not isinstance(self.packed.stream, bytes):
            with self._lock:
                self._users -= 1
                last = self._users == 0
            if last:
                for segment in self.packed.segments():
                    self._shared.done(segment)


_parcel_lock = threading.Lock()


class Shipment:
    """The tasks ``start`` ... ``stop - 1`` of a chunk, on their way to one worker.

    ``left`` counts those not yet answered; ``deaths`` the workers that died of, perhaps, them;
    ``cost`` is how long it was expected to take, in seconds, when it was sent.
    """

    __slots__ = (
        "attempt", "call", "cost", "deaths", "first", "future", "id", "items", "left", "parcel",
        "start", "stop",
    )  # fmt: skip

    def __init__(
        self,
        call: PooledCall,
        first: int,
        items: list[Any],
        parcel: Parcel,
        *,
        attempt: int = 1,
        start: int = 0,
        stop: int | None = None,
        deaths: int = 0,
        future: concurrent.futures.Future[Any] | None = None,
    ) -> None:
        self.id = next(_numbers)
        self.call = call
        self.first = first
        self.items = items
        self.parcel = parcel
        self.attempt = attempt
        self.start = start
        self.stop = len(items) if stop is None else stop
        self.left = self.stop - start
        self.deaths = deaths
        self.cost = 0.0
        self.future = future
        parcel.keep()

    def part(self, start: int, stop: int, *, died: bool = False) -> Shipment:
        """A new shipment of the same parcel for some of the tasks."""
        return Shipment(
            self.call,
            self.first,
            self.items,
            self.parcel,
            attempt=self.attempt,
            start=start,
            stop=stop,
            deaths=self.deaths + died,
            future=self.future,
        )

    def operation(self) -> tuple[Any, ...]:
        """The operation that has a worker run it."""
        return (
            "run",
            self.id,
            self.call.id,
            self.first,
            self.attempt,
            self.start,
            self.stop,
            self.parcel.packed,
        )

    def expected(self) -> float:
        """Seconds it should take; infinite when nothing is known."""
        pace = self.call.pace
        return float("inf") if pace is None else pace * (self.stop - self.start)
