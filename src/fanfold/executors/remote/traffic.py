"""The traffic between a driver and a site: what is sent when, and what becomes of what is lost.

A thread waits for the answers; any thread may hand lots over, and sends them itself while there is
room. Small tasks gather in the queue while all workers are busy, so that they travel together
exactly when that pays.

When a worker dies, nobody knows which of its tasks did it: each is sent again on its own. One that
was the only one at a worker twice is guilty. Where several are lost together again, as those of the
threads of one worker are, each gets its turn alone at the whole site.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import pickle
import queue
import sys
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from time import monotonic
from typing import Any

from fanfold.errors import EngineLost, FanfoldError, PoolClosed, WorkerDied
from fanfold.executors.base import StartupFailed
from fanfold.executors.pool.culprit import in_words
from fanfold.executors.pool.delivery import Answer, unpack_error
from fanfold.executors.remote.cargo import Lot, SiteCall, Trip
from fanfold.executors.remote.errand import Errand, Parcel, reader, versions
from fanfold.executors.remote.site import Loss, Site
from fanfold.mailbox import Mailbox
from fanfold.transport.pickling import Packed

__all__ = ["Traffic"]

Outbox = list[Callable[[], None]]

_logger = logging.getLogger("fanfold")
_LENGTH = 0.05  # seconds of work in an errand of several lots
_MOST = 1000  # lots in an errand
_WEIGHT = 1 << 20  # bytes in an errand of several lots
_DEPTH = 3  # errands a worker, so that it need not wait for the next one
_SHORT = 0.5  # seconds; no errand waits at a worker behind one that is longer
_BUDGET = 0.25  # seconds after which an errand begins no further task
_LOOK = 0.5  # seconds between looks whether the site is still there
_SETTLE = 0.2  # seconds until all that was lost with a worker has been told


class Traffic:
    """What `RemoteExecutor` drives. Its thread holds no reference to the executor."""

    def __init__(self, site: Site, initializer: bytes | None) -> None:
        self.site = site
        self.broken: FanfoldError | None = None
        self._driver = uuid.uuid4().hex
        self._initializer = initializer
        self._lock = threading.RLock()
        self._queue: deque[Lot] = deque()
        self._doubtful: deque[Lot] = deque()
        self._trips: set[Trip] = set()
        self._losses: list[tuple[Loss, Trip]] = []
        self._settled = 0.0  # when the losses may be judged
        self._calls: dict[int, SiteCall] = {}
        self._events: Mailbox[Trip | None] = Mailbox()
        self._thread: threading.Thread | None = None
        self._shutting_down = False
        self._next_look = 0.0
        _finish_at_exit(self)

    # Called from any thread

    def put(self, lot: Lot) -> None:
        """Queue a lot, and send it at once if a worker is free."""
        with self._lock:
            if self.broken is not None:
                raise self.broken
            if self._shutting_down:
                raise PoolClosed("cannot schedule new futures after shutdown")
            self._start()
            idle = not self._waiting()
            self._queue.append(lot)
            self._fill()
            if self._queue and self._queue[-1] is lot:
                lot.detach()
        if idle:
            self._events.put(None)  # the thread waits without end: now it must look around

    def _start(self) -> None:
        if self._thread is None:
            self._next_look = monotonic() + _LOOK
            self._thread = threading.Thread(target=self._main, name="fanfold-site", daemon=True)
            self._thread.start()

    def begin(self, call: SiteCall) -> None:
        """Lots of a call will come."""
        with self._lock:
            self._calls[call.id] = call

    def end(self, call: SiteCall) -> None:
        """Drop what is queued of a call, and what is on its way, as far as that can be stopped."""
        with self._lock:
            call.closed = True
            self._queue = deque(lot for lot in self._queue if lot.call is not call)
            self._doubtful = deque(lot for lot in self._doubtful if lot.call is not call)
            unwanted = [trip for trip in self._trips if not trip.wanted]
            self._trips.difference_update(unwanted)
        for trip in unwanted:
            if trip.future is not None:
                self.site.cancel(trip.future)
        self.forget(call)
        self._events.put(None)

    def forget(self, call: SiteCall) -> None:
        """Free a call of which nothing is queued or on its way."""
        with self._lock:
            known = self._calls.pop(call.id, None)
        if known is not None and call.handle is not None:
            self.site.retract(call.handle)

    def cancel_queued(self) -> None:
        """Cancel what has not begun."""
        with self._lock:
            waiting, self._queue = self._queue, deque()
        going_on = [lot for lot in waiting if not lot.cancel()]
        with self._lock:
            self._queue.extend(going_on)
        self._events.put(None)

    def abandon(self) -> None:
        """Wait for nothing that is on its way: it fails, and is stopped where it can be."""
        self.cancel_queued()
        with self._lock:
            trips = list(self._trips)
            outbox = self._collapse(PoolClosed("the executor was interrupted"))
        for trip in trips:
            if trip.future is not None:
                self.site.cancel(trip.future)
        _deliver(outbox)

    def shut_down(self) -> None:
        """Take no more work; the thread closes the site when all is done."""
        with self._lock:
            unused = self._thread is None and not self._shutting_down
            self._shutting_down = True
        if unused:
            self._close()
        self._events.put(None)

    def join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # Handing out, under the lock

    def _fill(self) -> None:
        while self._queue or self._doubtful:
            workers = self.site.workers
            if not workers or any(trip.solo for trip in self._trips):
                return
            if self._doubtful:
                if not self._trips:
                    self._send(Trip([self._doubtful.popleft()], solo=True))
                return
            if len(self._trips) >= workers * self._depth():
                return
            lots = self._next_lots(workers)
            if lots:
                self._send(Trip(lots))

    def _depth(self) -> int:
        """How many errands a worker may have: no suspect waits behind another errand."""
        lot = self._queue[0]
        if any(trip.suspect for trip in self._trips) or lot.losses or lot.expected() > _SHORT:
            return 1
        return _DEPTH

    def _next_lots(self, workers: int) -> list[Lot]:
        """The lots of the next errand: so little that others get their share."""
        waiting = self._queue
        share = max(1, min(_MOST, len(waiting) // (2 * workers)))
        lots: list[Lot] = []
        seconds, weight = 0.0, 0
        while waiting and len(lots) < share:
            lot = waiting[0]
            seconds, weight = seconds + lot.expected(), weight + lot.size
            if lots and (
                lot.losses
                or lot.call.handle is not lots[0].call.handle
                or seconds > _LENGTH
                or weight > _WEIGHT
            ):
                break
            waiting.popleft()
            if lot.begin():
                lots.append(lot)
            if lot.losses:
                break
        return lots

    def _send(self, trip: Trip) -> None:
        self._trips.add(trip)
        try:
            trip.future = self.site.post(trip.lots[0].call.handle, self._parcel(trip))
        except Exception as error:  # noqa: BLE001 - whatever the engine says, told as its answer
            trip.future = concurrent.futures.Future()
            trip.future.set_exception(error)
        trip.future.add_done_callback(lambda _: self._events.put(trip))

    def _parcel(self, trip: Trip) -> Parcel:
        buffers: Parcel = []
        specs = []
        calls = {}
        for lot in trip.lots:
            specs.append(lot.spec(len(buffers)))
            buffers.extend(lot.buffers)
            if lot.call.definition is not None:
                calls[lot.call.id] = lot.call.definition
        errand = Errand(
            self._driver,
            _path(),
            self._initializer,
            calls,
            min(self._calls, default=0),
            specs,
            _BUDGET,
        )
        return [errand.pack(), *buffers]

    # The thread

    def _main(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # whoever waits must not wait for ever
            _logger.exception("the thread of a %s ended: please report this", self.site.name)
            with self._lock:
                outbox = self._collapse(EngineLost(f"an error of fanfold's own: {error!r}"))
            _deliver(outbox)
        self._close()

    def _turn(self) -> bool:
        """Handle what has happened; False when all is done."""
        answers = [(trip, _open(trip, self.site)) for trip in self._wait()]
        lost = self._look()
        outbox: Outbox = []
        with self._lock:
            for trip, answer in answers:
                if trip in self._trips:
                    self._trips.discard(trip)
                    self._ended(trip, answer, outbox)
            if lost is not None:
                outbox += self._collapse(lost)
            self._judge(outbox)
            self._fill()
            going_on = not self._shutting_down or self._waiting()
        _deliver(outbox)
        return going_on

    def _waiting(self) -> bool:
        """Is there anything of which no end is known?"""
        return bool(self._queue or self._doubtful or self._trips or self._losses)

    def _close(self) -> None:
        _open_ones.discard(self)
        self.site.close()

    def _wait(self) -> list[Trip]:
        """The trips that ended; nothing when it is time to look around."""
        with self._lock:
            idle = not self._waiting()
            times = [self._next_look, *([self._settled] if self._losses else [])]
        found: list[Trip | None] = []
        with suppress(queue.Empty):
            found.append(self._events.get(timeout=None if idle else _until(min(times))))
            while True:
                found.append(self._events.get_nowait())
        return [trip for trip in found if trip is not None]

    def _look(self) -> FanfoldError | None:
        """Is the site still there? Asked only while something is awaited."""
        if monotonic() < self._next_look:
            return None
        self._next_look = monotonic() + _LOOK
        with self._lock:
            if not (self._trips or self._queue or self._doubtful):
                return None
        try:
            self.site.check()
        except FanfoldError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an engine that cannot say is no engine
            lost = EngineLost(f"{self.site.name} cannot be asked any more: {error!r}")
            lost.__cause__ = error
            return lost
        return None

    def _collapse(self, error: FanfoldError) -> Outbox:
        """Nothing more will come: everything fails."""
        self.broken = error
        lots = [*self._queue, *self._doubtful]
        lots += [lot for trip in self._trips for lot in trip.lots]
        lots += [lot for _, trip in self._losses for lot in trip.lots]
        self._queue.clear()
        self._doubtful.clear()
        self._trips.clear()
        self._losses.clear()
        return [_failure(lot, error) for lot in lots if not lot.call.closed]

    # What came back, under the lock

    def _ended(
        self, trip: Trip, answer: Loss | BaseException | tuple[Any, ...], outbox: Outbox
    ) -> None:
        if isinstance(answer, Loss):
            self._lose(answer, trip)
        elif isinstance(answer, BaseException):
            outbox += [_failure(lot, answer) for lot in trip.lots if not lot.call.closed]
        elif answer[0] == "done":
            _, worker, peak, entries, buffers = answer
            self._answered(trip, worker, peak, entries, buffers, outbox)
        else:
            self._losses.append((Loss(), trip))  # it fails with the rest
            outbox += self._collapse(_unfit(self.site, answer))

    def _lose(self, loss: Loss, trip: Trip) -> None:
        self._losses.append((loss, trip))
        self._settled = monotonic() + _SETTLE

    def _answered(
        self,
        trip: Trip,
        worker: str,
        peak: int,
        entries: list[tuple[Any, ...]],
        buffers: Parcel,
        outbox: Outbox,
    ) -> None:
        again: list[Lot] = []
        for entry in entries:
            lot = trip.lots[entry[1]]
            if entry[0] == "done":
                self._results(lot, Answer(*entry[1:]), worker, buffers, outbox)
            else:
                _, _, whole, packed = entry
                again += self._unloadable(lot, whole, packed, worker, buffers, outbox)
        if not entries:  # a worker that did nothing: as if it had died
            self._lose(Loss(), trip)
            return
        again += [lot for lot in trip.lots if len(lot)]
        self._queue.extendleft(lot for lot in reversed(again) if not lot.call.closed)

    def _results(
        self, lot: Lot, answer: Answer, worker: str, buffers: Parcel, outbox: Outbox
    ) -> None:
        if answer.offset != lot.start:  # else a result would be taken for another's
            raise RuntimeError(f"task {answer.offset} was answered before task {lot.start}")
        lot.start += answer.tasks
        lot.call.learn(answer.work_time, answer.tasks)
        if not lot.call.closed:
            outbox.append(lambda: lot.deliver(answer, worker, buffers))

    def _unloadable(
        self, lot: Lot, whole: bool, packed: Any, worker: str, buffers: Parcel, outbox: Outbox
    ) -> list[Lot]:
        """A lot could not be loaded; where that may be one task's fault, each goes alone."""
        pending = range(lot.start, lot.stop)
        lot.start = lot.stop
        if not whole and len(pending) > 1:
            return [lot.alone(offset) for offset in pending]
        error = unpack_error(Packed(*packed), reader(buffers, writable=True))
        if not lot.call.closed:
            outbox.append(lambda: lot.fail(pending, error, worker))
        return []

    # What was lost, under the lock

    def _judge(self, outbox: Outbox) -> None:
        """Send the tasks of dead workers again, except those that are guilty."""
        if not self._losses or monotonic() < self._settled:
            return
        losses, self._losses = self._losses, []
        losses.sort(key=lambda loss: loss[0].worker)
        for worker, together in groupby(losses, key=lambda loss: loss[0].worker):
            group = list(together)
            single = bool(worker) and len(group) == 1 and len(group[0][1]) == 1
            for loss, trip in group:
                for lot in trip.lots:
                    if not lot.call.closed:
                        self._judge_lot(lot, loss, single or trip.solo, trip.solo, outbox)

    def _judge_lot(self, lot: Lot, loss: Loss, alone: bool, solo: bool, outbox: Outbox) -> None:
        if loss.blameless:
            self._queue.appendleft(lot)
            return
        lot.losses += 1
        if solo or (alone and lot.losses > 1):
            error = _death(loss, lot.losses)
            outbox.append(lambda: lot.fail(range(lot.start, lot.stop), error, loss.worker))
            return
        parts = [lot] if len(lot) == 1 else [lot.alone(n) for n in range(lot.start, lot.stop)]
        if lot.losses > 1 and not alone:
            self._doubtful.extend(parts)
        else:
            self._queue.extendleft(reversed(parts))


def _path() -> list[str]:
    """``sys.path`` as others can use it: its empty entry is the working directory."""
    return [entry or os.getcwd() for entry in sys.path]


def _until(moment: float) -> float:
    return max(0.0, moment - monotonic())


def _open(trip: Trip, site: Site) -> Loss | BaseException | tuple[Any, ...]:
    """The message of an answer, its buffers behind it; or why there is none."""
    future = trip.future
    assert future is not None  # it is in the queue because it is done  # noqa: S101
    if future.cancelled():
        return Loss()
    error = future.exception()
    if isinstance(error, concurrent.futures.CancelledError):
        return Loss()
    if error is not None:
        return site.lost(error) or error
    parcel = future.result()
    return (*pickle.loads(parcel[0]), parcel[1:])


def _failure(lot: Lot, error: BaseException) -> Callable[[], None]:
    return lambda: lot.fail(range(lot.start, lot.stop), error)


def _deliver(outbox: Outbox) -> None:
    """What a user's callback raises, even SystemExit, must not end the thread."""
    for callback in outbox:
        try:
            callback()
        except BaseException:
            _logger.exception("a callback of a future raised")


def _death(loss: Loss, times: int) -> WorkerDied:
    error = WorkerDied("", pid=loss.pid, exitcode=loss.exitcode)
    pid = f" (pid {loss.pid})" if loss.pid else ""
    where = f" {loss.worker}" if loss.worker else ""
    message = f"the worker{where}{pid} {in_words(error)} while it had this task and no other"
    error.args = (f"{message}; {times} workers died with it",)
    return error


def _unfit(site: Site, answer: tuple[Any, ...]) -> StartupFailed:
    """Why no worker can do anything: the initializer raised, or the versions do not fit."""
    if answer[0] == "broken":
        cause = unpack_error(Packed(*answer[1]), reader(answer[-1], writable=True))
        broken = StartupFailed(f"the initializer of a worker raised {cause!r}")
        broken.__cause__ = cause
        return broken
    _, python, fanfold, _ = answer
    here_python, here = versions()
    return StartupFailed(
        f"{site.name} runs Python {python} with fanfold {fanfold}, and here is Python "
        f"{here_python} with fanfold {here}: functions cannot travel between them. Start the "
        "workers from the same environment, or one with the same versions"
    )


_open_ones: weakref.WeakSet[Traffic] = weakref.WeakSet()
_registered: list[bool] = []


def _finish_at_exit(traffic: Traffic) -> None:
    """What was submitted is done before the interpreter ends.

    Engines need threads for that, which Python ends before `atexit` has its turn; only what
    `threading` itself keeps is called earlier, the last first. So this is registered after them.
    """
    _open_ones.add(traffic)
    if not _registered:
        _registered.append(True)
        import concurrent.futures.thread  # noqa: F401 - it registers its own end

        getattr(threading, "_register_atexit", atexit.register)(_finish_all)


def _finish_all() -> None:
    for traffic in list(_open_ones):
        traffic.shut_down()
    for traffic in list(_open_ones):
        traffic.join()
