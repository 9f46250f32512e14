"""What travels between a driver and a site: calls, lots of tasks, and trips, which carry lots."""

from __future__ import annotations

import concurrent.futures
import pickle
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from fanfold.errors import PoolClosed, TaskError
from fanfold.executors.pool.delivery import Answer
from fanfold.executors.remote.errand import Freight, LotSpec, Parcel, copied, reader
from fanfold.executors.remote.site import Site
from fanfold.tasks import Call, Report
from fanfold.transport.pickling import Packed, pack, pack_function, pack_small

__all__ = ["Lot", "SiteCall", "Trip"]

_INLINE = 1 << 15  # bytes; a larger function is published, and does not travel with each errand
_UNKNOWN = float("inf")
_numbers = count(1)


class SiteCall:
    """A call at a site: its functions packed once, and how long its tasks take.

    ``definition`` travels with each errand; it is None where it was published, as ``handle``.
    ``report`` gets what happens to its tasks. ``pace`` is the running mean of seconds a task.
    """

    def __init__(
        self, call: Call, site: Site, report: Callable[[Report], None] | None = None
    ) -> None:
        self.id = next(_numbers)
        self.call = call
        self.report = report
        self.pace: float | None = None
        self.closed = False
        self._site = site
        freight = Freight()
        functions = pack_function((call.func, call.fold), freight.put)
        packed = pickle.dumps((call.style, call.entropy, call.timeout, call.evidence, functions), 5)
        inline = not freight.buffers and len(packed) < _INLINE
        self.definition = packed if inline else None
        self.handle = None if inline else site.publish([packed, *freight.buffers])

    def lot(
        self,
        first: int,
        items: Sequence[Any],
        attempt: int = 1,
        future: concurrent.futures.Future[Any] | None = None,
    ) -> Lot:
        """The tasks of ``items`` as a lot; they are packed now. Raises `NotSerializable`."""
        freight = Freight(None if self.call.stable or self._site.takes else self._site.copy)
        packed = pack_small(items) or pack(items, freight.put)
        return Lot(self, first, items, packed, freight.buffers, attempt, 0, len(items), future)

    def kept(self, buffers: Parcel) -> Parcel:
        """The buffers of a lot that is sent later, as they are now."""
        safe = self.call.stable or not self._site.takes
        return buffers if safe else [copied(buffer) for buffer in buffers]

    def learn(self, seconds: float, tasks: int) -> None:
        pace = max(seconds / tasks, 1e-7)
        self.pace = pace if self.pace is None else 0.7 * self.pace + 0.3 * pace


class Lot:
    """The tasks ``start`` ... ``stop - 1`` of a chunk, of which there is no result yet.

    ``losses`` counts the workers that died with them.
    """

    __slots__ = (
        "attempt", "begun", "buffers", "call", "first", "future", "items", "losses", "packed",
        "start", "stop",
    )  # fmt: skip

    def __init__(
        self,
        call: SiteCall,
        first: int,
        items: Sequence[Any],
        packed: bytes | Packed,
        buffers: Parcel,
        attempt: int,
        start: int,
        stop: int,
        future: concurrent.futures.Future[Any] | None = None,
    ) -> None:
        self.call = call
        self.first = first
        self.items = items
        self.packed = packed
        self.buffers = buffers
        self.attempt = attempt
        self.start = start
        self.stop = stop
        self.future = future
        self.begun = False
        self.losses = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def begin(self) -> bool:
        """It is about to be sent; False when its future has been cancelled."""
        if self.future is None or self.begun:
            return True
        self.begun = True
        return self.future.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """Tell whoever waits that it will not run; False when it has begun."""
        if self.future is None:
            error = PoolClosed("the executor was shut down before this could start")
            self.fail(range(self.start, self.stop), error)
            return True
        cancelled = self.future.cancel()
        if cancelled:
            self.future.set_running_or_notify_cancel()
        return cancelled

    def alone(self, offset: int) -> Lot:
        """A lot of one task, packed anew: its neighbours may be what cannot be loaded."""
        lot = self.call.lot(
            self.first + offset, [self.items[offset]], self.attempt, future=self.future
        )
        lot.begun = self.begun
        lot.losses = self.losses
        return lot

    def detach(self) -> None:
        """It will be sent later: keep what it carries as it is now."""
        self.buffers = self.call.kept(self.buffers)

    @property
    def size(self) -> int:
        """Bytes that it brings with it."""
        small = len(self.packed) if isinstance(self.packed, bytes) else 0
        return small + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def expected(self) -> float:
        """Seconds it should take; infinite when nothing is known."""
        pace = self.call.pace
        return _UNKNOWN if pace is None else pace * len(self)

    def spec(self, base: int) -> LotSpec:
        return LotSpec(
            self.call.id, self.first, self.attempt, self.start, self.stop, self.packed, base
        )

    # Telling whoever waits, without any lock: callbacks may submit again

    def deliver(self, answer: Answer, worker: str, buffers: Parcel) -> None:
        """Results of some of its tasks have come."""
        loaded, bad = answer.load(reader(buffers, writable=True))
        for offset in bad:
            self._name(loaded[offset - answer.offset], offset, worker)
        if self.future is not None:
            _finish(self.future, loaded[0], failed=bool(bad))
            return
        self._report(
            Report(
                first=self.first + answer.offset,
                values=loaded,
                seconds=answer.seconds,
                failed=tuple(self.first + offset for offset in bad),
                attempt=self.attempt,
                worker=worker,
                peak_memory=answer.peak_memory,
                folded=answer.folded if not bad else 0,
                evidence=answer.evidence,
            )
        )

    def fail(self, offsets: range, error: BaseException, worker: str = "") -> None:
        """Some of its tasks ended without a result, all for the same reason."""
        if len(offsets) == 1:
            self._name(error, offsets.start, worker)
        if self.future is not None:
            _finish(self.future, error, failed=True)
            return
        first = self.first + offsets.start
        self._report(
            Report(
                first=first,
                values=[error] * len(offsets),
                failed=tuple(range(first, first + len(offsets))),
                attempt=self.attempt,
                worker=worker,
            )
        )

    def _report(self, report: Report) -> None:
        assert self.call.report is not None  # only a submit has none  # noqa: S101
        self.call.report(report)

    def _name(self, error: BaseException, offset: int, worker: str) -> None:
        """Say which task an error is of, where it does not say so yet."""
        if not isinstance(error, TaskError):
            return
        index = self.first + offset
        if self.future is None and error.index is None:
            error.index = index
        if not any(note.startswith("fanfold: ") for note in getattr(error, "__notes__", ())):
            task = self.call.call.describe(index, self.items[offset])
            where = f", {worker}" if worker else ""
            error.add_note(f"fanfold: {task}, attempt {self.attempt}{where}")


class Trip:
    """Lots on their way to a worker and back. ``solo``: nothing else is at the site meanwhile."""

    __slots__ = ("future", "lots", "solo", "suspect")

    def __init__(self, lots: list[Lot], *, solo: bool = False) -> None:
        self.lots = lots
        self.solo = solo
        self.suspect = solo or any(lot.losses for lot in lots)
        self.future: concurrent.futures.Future[Parcel] | None = None

    @property
    def wanted(self) -> bool:
        return not all(lot.call.closed for lot in self.lots)

    def __len__(self) -> int:
        return sum(map(len, self.lots))


def _finish(future: concurrent.futures.Future[Any], value: Any, *, failed: bool) -> None:
    if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
        return
    if failed:
        future.set_exception(value)
    else:
        future.set_result(value)
