"""What the pool of processes moves: calls, parcels and shipments."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from fanfold.tasks import Call, Report
from fanfold.transport.pickling import THRESHOLD, Packed, pack, pack_function, pack_small
from fanfold.transport.segments import SegmentFolder
from fanfold.transport.sharing import SharedBuffers
from fanfold.transport.surroundings import surroundings

__all__ = ["Parcel", "PooledCall", "Shipment"]

_numbers = count(1)
_UNKNOWN = float("inf")


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
        self.remembered = False  # for the next submit of the same function
        self.shared = SharedBuffers(folder.put, stable=call.stable)
        self._folder = folder
        self._function = SharedBuffers(folder.put)
        self.packed = pack_function((call.func, call.fold), folder.put, self._function.share)

    def definition(self) -> tuple[Any, ...]:
        """The operation that tells a worker of this call."""
        call = self.call
        return (
            "call",
            self.id,
            surroundings(),
            call.style,
            call.entropy,
            call.timeout,
            call.evidence,
            self.packed,
        )

    def pack_items(self, items: Sequence[Any]) -> tuple[bytes | Packed, Parcel | None]:
        """The items packed, and their parcel where they have segments. Raises `NotSerializable`."""
        packed = pack_small(items) or pack(items, self._folder.put, self.shared.share)
        if isinstance(packed, bytes):
            if len(packed) < THRESHOLD:
                return packed, None
            packed = Packed(self._folder.put(memoryview(packed)), ())
        return packed, Parcel(packed, self.shared) if packed.segments() else None

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
    """The segments of packed items; freed with the last shipment that carries them."""

    def __init__(self, packed: Packed, shared: SharedBuffers) -> None:
        self._segments = packed.segments()
        self._shared = shared
        self._users = 0

    def keep(self) -> None:
        with _parcel_lock:
            self._users += 1

    def let_go(self) -> None:
        with _parcel_lock:
            self._users -= 1
            last = self._users == 0
        if last:
            for segment in self._segments:
                self._shared.done(segment)


_parcel_lock = threading.Lock()


class Shipment:
    """The tasks ``start`` ... ``stop - 1`` of a chunk, on their way to one worker.

    ``left`` counts those not yet answered; ``deaths`` the workers that died of, perhaps, them;
    ``losses`` the workers that died with them;
    ``cost`` is how long it was expected to take, in seconds, when it was sent.
    """

    __slots__ = (
        "attempt", "call", "cost", "deaths", "first", "future", "id", "items", "left", "losses",
        "packed", "parcel", "sent", "start", "stop",
    )  # fmt: skip

    def __init__(
        self,
        call: PooledCall,
        first: int,
        items: Sequence[Any],
        packed: bytes | Packed,
        parcel: Parcel | None,
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
        self.packed = packed
        self.parcel = parcel
        self.attempt = attempt
        self.start = start
        self.stop = len(items) if stop is None else stop
        self.left = self.stop - start
        self.deaths = deaths
        self.losses = 0
        self.cost = 0.0
        self.future = future
        self.sent = False
        if parcel is not None:
            parcel.keep()

    @property
    def pending(self) -> range:
        """The offsets of the tasks that are not answered; answers come in order."""
        return range(self.stop - self.left, self.stop)

    def begin(self) -> bool:
        """It is about to be sent; False when its future has been cancelled."""
        if self.future is None or self.sent:
            return True
        self.sent = True
        return self.future.set_running_or_notify_cancel()

    def part(self, start: int, stop: int, *, died: bool = False) -> Shipment:
        """A new shipment of the same parcel for some of the tasks."""
        part = Shipment(
            self.call,
            self.first,
            self.items,
            self.packed,
            self.parcel,
            attempt=self.attempt,
            start=start,
            stop=stop,
            deaths=self.deaths + died,
            future=self.future,
        )
        part.sent = self.sent
        return part

    def alone(self, offset: int, *, died: bool = False) -> Shipment:
        """A new shipment of one task, packed anew: its neighbours may be what cannot be loaded."""
        items = [self.items[offset]]
        packed, parcel = self.call.pack_items(items)
        part = Shipment(
            self.call,
            self.first + offset,
            items,
            packed,
            parcel,
            attempt=self.attempt,
            deaths=self.deaths + died,
            future=self.future,
        )
        part.sent = self.sent
        return part

    def operation(self) -> tuple[Any, ...]:
        """The operation that has a worker run it."""
        if self.future is not None:
            return ("one", self.id, self.call.id, self.packed)
        return (
            "run",
            self.id,
            self.call.id,
            self.first,
            self.attempt,
            self.start,
            self.stop,
            self.packed,
        )

    def let_go(self) -> None:
        """It is answered, or will not be sent: free what it carried."""
        if self.parcel is not None:
            self.parcel.let_go()

    def expected(self) -> float:
        """Seconds it should take; infinite when nothing is known."""
        pace = self.call.pace
        return _UNKNOWN if pace is None else pace * (self.stop - self.start)
