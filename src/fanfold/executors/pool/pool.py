"""The pool of worker processes, seen from the driver.

Each worker has a channel of its own. One thread waits for all; any may hand work over, or queue it.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import threading
from collections.abc import Callable
from itertools import chain, count
from time import monotonic
from typing import Any

from fanfold.errors import PoolClosed, TaskTimeout, WorkerDied
from fanfold.executors.base import StartupFailed
from fanfold.executors.pool import culprit
from fanfold.executors.pool.backlog import Backlog
from fanfold.executors.pool.culprit import Ending, Verdict
from fanfold.executors.pool.delivery import Answer, Outbox, cancel, deliver, tell_full, unpack_error
from fanfold.executors.pool.handle import WorkerHandle, WorkerLimits
from fanfold.executors.pool.looks import Looks
from fanfold.executors.pool.loop import Loop
from fanfold.executors.pool.shipments import PooledCall, Shipment
from fanfold.executors.pool.starter import Starter, why_not_started
from fanfold.tasks import Activity
from fanfold.transport.channel import Channel, ChannelClosed
from fanfold.transport.pickling import Packed

__all__ = ["Pool"]

_TINY = 2e-3  # seconds; of shorter single calls one of many tells enough
_GRACE = 1.0  # seconds between SIGTERM and SIGKILL for a worker whose task is late


class Pool:
    """What `ProcessExecutor` drives. Its thread holds no reference to the executor."""

    def __init__(self, workers: int, starter: Starter, limits: WorkerLimits) -> None:
        self.size = workers
        self.broken: StartupFailed | None = None
        self._starter = starter
        self._limits = limits
        self._told = False  # that a worker has grown too large
        self.guard = threading.Lock()  # of the futures that have no lock of their own
        self._lock = threading.Lock()
        self._backlog = Backlog(workers)
        self._workers: dict[int, WorkerHandle] = {}
        self._numbers = count()
        self._start_failures = 0.0
        self._shutting_down = False
        self._killed = False
        self._saturated = False  # no worker has room, until one of them answers or ends
        self._outbox = Outbox()
        self._looks = Looks(at_memory=limits.memory is not None)
        self._calls: set[PooledCall] = set()
        self._loop = Loop(self._turn, lambda: self._looks.pause, self._collapse, self._release)

    # Called from any thread

    def put(self, shipment: Shipment) -> None:
        """Queue a shipment, and send it at once if a worker is free."""
        with self._lock:
            if self.broken is not None or self._shutting_down:
                shipment.let_go()
                raise self.broken or PoolClosed("cannot schedule new futures after shutdown")
            self._backlog.append(shipment)
            if not self._saturated:
                self._assign()
                if self.broken is not None:  # no worker could be started
                    self._loop.wake()
                    raise self.broken

    def resize(self, workers: int) -> None:
        """Start no more than so many workers from now on; those that live stay."""
        with self._lock:
            self.size, self._saturated = workers, False
            self._assign()

    def begin(self, call: PooledCall) -> None:
        """Shipments of a call will come; `end` or the end of the pool frees it."""
        with self._lock:
            self._calls.add(call)
            self._looks.suit(self._calls)
        if call.call.timeout is not None:
            self._loop.wake()

    def end(self, call: PooledCall) -> None:
        """Drop what is queued of a call, and stop the workers that run it."""
        with self._lock:
            call.closed = True
            self._looks.suit(self._calls - {call})
            self._backlog.drop(call)
            for worker in self._workers.values():
                if worker.runs(call):
                    self._condemn(worker, culprit.NOBODY)
        self.forget(call)

    def forget(self, call: PooledCall) -> None:
        """Free a call of which nothing is queued or runs."""
        with self._lock:
            self._calls.discard(call)
            for worker in self._workers.values():
                if call.id in worker.calls and not worker.leaving:
                    worker.calls.discard(call.id)
                    self._post(worker, [("forget", call.id)])
        call.free()

    def in_use(self) -> set[PooledCall]:
        """The calls of which something is queued or runs."""
        with self._lock:
            sent = chain.from_iterable(one.outstanding.values() for one in self._workers.values())
            return {shipment.call for shipment in chain(self._backlog, sent)}

    def cancel_queued(self) -> None:
        """Cancel what waits and has not begun; what has been given back goes on."""
        with self._lock:
            waiting = self._backlog.take_all()
        # Without the lock: callbacks may submit.
        going_on = [shipment for shipment in waiting if not cancel(shipment)]
        with self._lock:
            for shipment in going_on:
                self._backlog.append(shipment)
        self._loop.wake()

    def shut_down(self) -> None:
        """Take no more work; the thread ends when all is done."""
        with self._lock:
            self._shutting_down = True
            started = self._loop.started
        if started:
            self._loop.wake()
        else:
            self._release()

    def kill(self) -> None:
        """End all workers now; what they ran fails as if they had died."""
        with self._lock:
            self._shutting_down = self._killed = True
            for worker in self._workers.values():
                self._kill(worker)
        self._loop.wake()

    def join(self) -> None:
        self._loop.join()

    def help(self, ready: Callable[[], bool], timeout: float | None = None) -> None:
        """Do the pool's work in the calling thread until ``ready()``."""
        if self._loop.started:
            self._loop.help(ready, timeout)

    def wake(self) -> None:
        self._loop.wake()

    def process_ids(self) -> list[int]:
        with self._lock:
            return [worker.pid for worker in self._workers.values() if worker.pid is not None]

    def activity(self) -> list[Activity]:
        with self._lock:
            return [worker.activity() for worker in self._workers.values()]

    # Handing out, under the lock

    def _assign(self) -> None:
        while self._backlog:
            worker = self._next_free()
            if worker is None or (worker.outstanding and self._backlog.suspect_first):
                return
            batch = self._backlog.take_batch(worker)
            if batch:
                self._send(worker, batch)

    def _next_free(self) -> WorkerHandle | None:
        """The worker that should get the next batch; starts one when all are busy."""
        best = None
        for worker in self._workers.values():
            wanted = worker.wants_more or (self._backlog.plenty and worker.takes_another)
            if wanted and worker.takes_work and not worker.quarantined:
                best = worker if best is None or worker.load < best.load else best
        if best is not None and not best.outstanding:
            return best
        self._start_workers()
        self._saturated = best is None and len(self._workers) >= self.size
        return best

    def _start_workers(self) -> None:
        starting = sum(not worker.ready for worker in self._workers.values())
        living = sum(not worker.leaving for worker in self._workers.values())
        wanted = living < self.size and starting < len(self._backlog)
        if wanted and self.broken is None and self._starter.has_room():
            self._start_one()

    def _start_one(self) -> None:
        number = next(self._numbers)
        try:
            if not self._loop.started:
                self._watch_starter()
            worker = self._starter.start(number, self._limits)
        except OSError as error:
            self.size = len(self._workers)  # go on with those that live
            if not self.size:
                self._break(why_not_started(error), error)
            return
        self._workers[number] = worker
        self._loop.watch(worker.channel, worker)
        if not self._loop.started:
            self._loop.start()

    def _send(self, worker: WorkerHandle, batch: list[Shipment]) -> None:
        operations: list[tuple[Any, ...]] = []
        worker.batch = len(batch)
        for shipment in batch:
            call = shipment.call
            if call.id not in worker.calls:
                worker.calls.add(call.id)
                operations.append(call.definition())
            operations.append(shipment.operation())
            worker.add(shipment)
        if worker.is_full:
            worker.leaving = True
            operations.append(("exit",))
        self._post(worker, operations)

    def _post(self, worker: WorkerHandle, operations: list[tuple[Any, ...]]) -> None:
        if not worker.post(operations):
            self._loop.watch(worker.channel, worker, writable=True)
            self._loop.wake()

    def _kill(self, worker: WorkerHandle, signum: int | None = None) -> None:
        worker.leaving = True
        self._starter.kill(worker, signum or signal.SIGKILL)

    # The turns of the loop

    def _turn(self, events: list[tuple[selectors.SelectorKey, int]]) -> bool:
        """Handle what has happened; False when the pool is done."""
        with self._lock:
            for key, mask in events:
                self._handle(key.data, mask)
            self._look_after_workers()
            self._saturated = False
            self._assign()
            going_on = not self._finish()
            outbox, self._outbox = self._outbox, Outbox()
        outbox.deliver()
        return going_on

    def _handle(self, source: WorkerHandle | Channel, mask: int) -> None:
        if isinstance(source, Channel):
            self._handle_starter(source)
        elif source.number in self._workers:
            if mask & selectors.EVENT_WRITE and source.channel.flush():
                self._loop.watch(source.channel, source)
            if mask & selectors.EVENT_READ:
                self._read(source)

    def _handle_starter(self, connection: Channel) -> None:
        for event in self._starter.events():
            if event is None:
                self._launcher_died(connection)
                return
            kind, number, *details = event
            worker = self._workers.get(number)
            if worker is not None and kind == "started":
                worker.pid = details[0]
            elif worker is not None:
                self._bury(worker, *details)

    def _launcher_died(self, connection: Channel) -> None:
        """All workers of this pool died with it. Go on with a new one."""
        self._loop.forget(connection)
        self._starter.close()
        for worker in list(self._workers.values()):
            self._bury(worker, None, None)
        self._watch_starter()

    def _watch_starter(self) -> None:
        if (connection := self._starter.connect()) is not None:
            self._loop.watch(connection, connection)

    def _read(self, worker: WorkerHandle) -> None:
        try:
            for entry in worker.receive():
                self._answer(worker, entry)
        except ChannelClosed:
            self._lose(worker)

    def _lose(self, worker: WorkerHandle) -> None:
        """Dead, or it closed our channel: of no more use. `_bury` follows when its end is told."""
        self._loop.forget(worker.channel)
        worker.silent = True
        self._kill(worker)
        if (ended := self._starter.reap(worker)) is not None:
            self._bury(worker, *ended)

    def _answer(self, worker: WorkerHandle, entry: tuple[Any, ...]) -> None:
        kind = entry[0]
        if kind == "ones":
            self._single_results(worker, *entry[1:])
        elif kind == "done":
            self._results(worker, Answer(*entry[1:]))
        elif kind == "back":
            self._given_back(worker, entry[1], entry[2])
        elif kind == "ready":
            worker.ready = True
            worker.pid = entry[1]
            self._start_failures = 0.0
        elif kind == "unloadable":
            self._unloadable(worker, *entry[1:])
        elif kind == "full":
            self._replace(worker, entry[1])
        else:
            error = unpack_error(Packed(*entry[1]))
            self._break(f"the initializer of a worker raised {error!r}", error)

    def _replace(self, worker: WorkerHandle, memory: int) -> None:
        """A worker has grown beyond what it may have: it leaves, and another takes its place."""
        if not worker.ready:
            self._break(culprit.too_full(worker.limits, memory), None)
        elif not worker.leaving:
            self._dismiss(worker)
            if not self._told:
                self._told = True
                self._outbox.later(lambda: tell_full(worker, memory))

    def _dismiss(self, worker: WorkerHandle) -> None:
        worker.leaving = True
        self._post(worker, [("exit",)])

    def _single_results(
        self,
        worker: WorkerHandle,
        identities: tuple[int, ...],
        values: tuple[Any, ...],
        seconds: tuple[float, ...],
    ) -> None:
        """Results of `submit` that need no loading: most of those of small tasks."""
        call = None
        for identity, value, took in zip(identities, values, seconds, strict=True):
            if worker.verdict is not None and worker.answers_too_late(identity, 1):
                continue
            shipment = worker.remove(identity)
            if shipment is None:
                continue
            if shipment.call is not call or took > _TINY:
                call = shipment.call
                call.learn(took, 1)
            self._outbox.finish(shipment.future, value)
            if shipment.parcel is not None:
                self._outbox.later(shipment.let_go)

    def _results(self, worker: WorkerHandle, answer: Answer) -> None:
        shipment = worker.outstanding.get(answer.shipment)
        worker.peak_memory = answer.peak_memory
        if shipment is None or worker.answers_too_late(shipment.id, answer.stop):
            return
        if answer.offset != shipment.pending.start:  # else a result would be taken for another's
            raise RuntimeError(f"task {answer.offset} was answered out of order, before others")
        shipment.call.learn(answer.work_time, answer.tasks)
        self._answered(worker, shipment, answer.tasks)
        if not shipment.call.closed:
            self._outbox.later(lambda: deliver(worker, shipment, answer))

    def _answered(self, worker: WorkerHandle, shipment: Shipment, tasks: int) -> None:
        shipment.left -= tasks
        if shipment.left <= 0:
            worker.remove(shipment.id)
            self._outbox.later(shipment.let_go)

    def _given_back(self, worker: WorkerHandle, identity: int, stop: int) -> None:
        shipment = worker.outstanding.get(identity)
        if shipment is None or stop >= shipment.stop:
            return
        rest = shipment.part(stop, shipment.stop)
        worker.given -= rest.left
        shipment.stop = stop
        self._backlog.put_back(rest)
        self._answered(worker, shipment, rest.left)

    def _unloadable(
        self, worker: WorkerHandle, identity: int, whole: bool, packed: tuple[Any, ...]
    ) -> None:
        shipment = worker.remove(identity)
        if shipment is None:
            return
        inputs = range(shipment.start, shipment.stop)
        if whole or len(inputs) == 1:
            self._outbox.give_up(shipment, inputs, unpack_error(Packed(*packed)), worker)
            return
        for offset in reversed(inputs):  # one of them cannot be
            self._backlog.put_back(shipment.alone(offset))
        shipment.let_go()

    # Deaths

    def _bury(self, worker: WorkerHandle, code: int | None, peak: int | None) -> None:
        """A worker has ended: name who did it, and send the others' tasks again."""
        if not worker.silent:
            with contextlib.suppress(ChannelClosed):
                for entry in worker.receive():
                    self._answer(worker, entry)
            self._loop.forget(worker.channel)
        self._workers.pop(worker.number, None)
        if not worker.ready and not self._shutting_down:
            # A stranger's signal says little of the initializer: it counts a fifth.
            self._start_failures += 0.2 if code in (-signal.SIGKILL, -signal.SIGTERM) else 1
        worker.peak_memory = max(peak or 0, worker.peak_memory or 0) or None
        ending = Ending(code, worker.peak_memory, self._starter.out_of_memory(worker, code))
        for shipment in reversed(list(worker.outstanding.values())):
            self._settle(worker, shipment, ending)
        worker.outstanding.clear()
        worker.close()
        self._starter.clear_up(worker)
        if self._start_failures >= culprit.START_FAILURES:
            self._break(culprit.never_ready(code), None)

    def _settle(self, worker: WorkerHandle, shipment: Shipment, ending: Ending) -> None:
        if shipment.call.closed:
            shipment.let_go()
            return
        if self._killed:
            ended = WorkerDied("the pool was ended while this was to run", pid=worker.pid)
            self._outbox.give_up(shipment, shipment.pending, ended, worker)
            return
        sentence = culprit.judge(worker, shipment, ending)
        for part in reversed(sentence.again):
            part.losses = shipment.losses + 1
            if part.losses < culprit.LOSSES:
                self._backlog.put_back(part)
            else:
                self._outbox.fail(part, range(part.start, part.stop), culprit.lost(), worker)
        if sentence.error is not None:
            self._outbox.fail(shipment, sentence.guilty, sentence.error, worker)
        self._outbox.later(shipment.let_go)

    def _break(self, message: str, cause: BaseException | None) -> None:
        self.broken = StartupFailed(message)
        self.broken.__cause__ = cause
        queued = self._backlog.take_all()
        for worker in self._workers.values():
            queued.extend(worker.outstanding.values())
            worker.outstanding.clear()
            self._kill(worker)
        for shipment in queued:
            self._outbox.give_up(shipment, range(shipment.start, shipment.stop), self.broken, None)

    def _look_after_workers(self) -> None:
        """Stop tasks that exceed a limit, and workers that were stopped and stay so."""
        if not self._looks.due():
            return
        now = monotonic()
        for worker in list(self._workers.values()):
            if self._starter.has_ended(worker):  # a child of it may hold the channel open
                self._lose(worker)
            elif worker.verdict is not None:
                if now > worker.last_moment:
                    self._kill(worker)
            elif worker.outstanding:
                verdict = culprit.accuse(worker, now)
                if verdict is not None:
                    self._condemn(worker, verdict)

    def _condemn(self, worker: WorkerHandle, verdict: Verdict) -> None:
        """End a worker; one whose task is late may clean up first, if it handles SIGTERM."""
        worker.verdict = verdict
        worker.last_moment = monotonic() + _GRACE
        self._kill(worker, signal.SIGTERM if isinstance(verdict.error, TaskTimeout) else None)

    # The end

    def _finish(self) -> bool:
        """Whether the pool is done, when it is to shut down: workers leave as work ends."""
        if not self._shutting_down or self._backlog:
            return False
        for worker in self._workers.values():
            if not worker.outstanding and not worker.leaving:
                self._dismiss(worker)
        return not self._workers

    def _collapse(self, error: BaseException) -> None:
        """The pool itself failed: whoever waits gets to know."""
        with self._lock:
            self._break(f"the pool failed: {error!r}; please report this", error)
            outbox = self._outbox
        outbox.deliver()

    def _release(self) -> None:
        with self._lock:
            self._loop.close()
            for worker in self._workers.values():
                worker.close()
            self._workers.clear()
            self._starter.close()
            calls, self._calls = self._calls, set()
        for call in calls:
            call.free()
