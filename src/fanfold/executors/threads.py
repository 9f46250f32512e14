"""Threads of this process: nothing is copied; for I/O, for code that releases the GIL, and, on a
free-threaded build, for pure Python too.

A thread cannot be stopped from outside. A task that exceeds its timeout is left behind: it is
reported as failed, a new thread takes its place, and its thread ends when the task does.

A task may give work to its own pool and wait for it. Were all threads busy with such tasks, nobody
would be left to do the work; so while a task may be waiting, a helper stands in for its thread.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import queue
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from fanfold.errors import PoolClosed, TaskTimeout
from fanfold.executors.base import (
    Executor,
    StartupFailed,
    Stream,
    check_owner,
    report_of,
    worker_count,
)
from fanfold.executors.work.joining import join
from fanfold.executors.work.limits import ThreadLimit
from fanfold.executors.work.runner import Runner
from fanfold.mailbox import Mailbox
from fanfold.resources import cores
from fanfold.tasks import Call, Chunk, Report

if TYPE_CHECKING:
    from fanfold.executors.work.evidence import Tracker
    from fanfold.executors.work.streams import ThreadWitnesses

__all__ = ["ThreadExecutor", "is_left_behind"]

_logger = logging.getLogger("fanfold")
_TICK = 0.02  # seconds a task may hold up the rest of its chunk
_numbers = count()
_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


class ThreadExecutor(Executor):
    """A pool of threads; takes what `concurrent.futures.ThreadPoolExecutor` takes.

    ``max_workers`` is by default the number of cores this process may use.

    >>> with ThreadExecutor(2) as pool:
    ...     list(pool.map(pow, [2, 3], [5, 4]))
    [32, 81]
    """

    name = "threads"

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self.workers = worker_count(max_workers, cores, "max_workers")
        prefix = thread_name_prefix or f"fanfold-{next(_numbers)}"
        self._pool = _Pool(self.workers, prefix, initializer, initargs)
        weakref.finalize(self, self._pool.close).atexit = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Queue a call; its future."""
        work = _SingleCall(fn, args, kwargs)
        self._pool.put(work)
        return work.future

    def open(self, call: Call) -> Stream:
        return _ThreadStream(self._pool, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with ``wait``, return when all is done."""
        if cancel_futures:
            self._pool.drain(PoolClosed("the executor was shut down before this could start"))
        self._pool.close()
        if wait:
            self._pool.join()


class _Work(Protocol):
    def run(self, worker: _Worker) -> None: ...
    def drop(self, error: Exception | None) -> None: ...


class _SingleCall:
    """One `submit`."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._call = (fn, args, kwargs)

    def run(self, worker: _Worker) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        fn, args, kwargs = self._call
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it belongs to the future
            self.future.set_exception(error)
            del self  # the traceback refers to this frame: break the cycle
        else:
            self.future.set_result(result)

    def drop(self, error: Exception | None) -> None:
        if isinstance(error, StartupFailed):
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        else:
            self.future.cancel()
            self.future.set_running_or_notify_cancel()


class _Here(threading.local):
    """The worker that this thread is, if it is one."""

    worker: _Worker | None = None


_here = _Here()


def is_left_behind() -> bool:
    """Does nobody wait any more for the task that this thread runs?"""
    return _here.worker is not None and _here.worker.left_behind


class _Worker:
    """One thread. ``left_behind`` is set when nobody waits for its task any more; a ``helper`` does
    only what tasks have given to their own pool, and ends when nothing of that is left."""

    def __init__(self, pool: _Pool, number: int, *, helper: bool = False) -> None:
        self.pool = pool
        self.left_behind = False
        self.helper = helper
        name = f"{pool.prefix}_{number}"
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)

    def _main(self) -> None:
        _here.worker, pool = self, self.pool
        if pool.initializer is not None:
            try:
                pool.initializer(*pool.initargs)
            except BaseException as error:  # noqa: BLE001 - whatever it was, the pool is unusable
                pool.fail(error)
                return
        while not self.left_behind:
            work = pool.next_nested(self) if self.helper else pool.next_work()
            if work is None:
                return
            try:
                work.run(self)
            except BaseException:
                _logger.exception("a callback of a future raised")
            del work
            pool.ended(self)


class _Pool:
    """What the threads share. They do not refer to the executor, so that it can be collected."""

    def __init__(
        self,
        workers: int,
        prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self.workers = workers
        self.prefix = prefix
        self.initializer = initializer
        self.initargs = initargs
        self.queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self.broken: StartupFailed | None = None
        self._lock = threading.Lock()
        self._threads: list[_Worker] = []
        self._serial = count()
        self._closed = False
        self._owner = os.getpid()
        self._idle = threading.Semaphore(0)
        self._nested: deque[_Work] = deque()  # given by tasks while every thread was busy
        self._givers: set[_Worker] = set()  # whose tasks gave work, and may be waiting for it
        self._helpers: set[_Worker] = set()
        _pools.add(self)

    def next_work(self) -> _Work | None:
        try:
            work = self.queue.get_nowait()
        except queue.Empty:
            self._idle.release()  # whoever puts work takes it back, and starts no new thread
            work = self.queue.get()
            self._idle.acquire(blocking=False)  # unless the work came just before
        if work is None:
            self.queue.put(None)  # for the next thread
        return work

    def next_nested(self, helper: _Worker) -> _Work | None:
        with self._lock:
            if self._nested:
                return self._nested.popleft()
            self._helpers.discard(helper)
            return None

    def ended(self, worker: _Worker) -> None:
        """A task of this worker has ended: it waits for nothing any more."""
        if worker in self._givers:
            with self._lock:
                self._givers.discard(worker)

    def put(self, work: _Work) -> None:
        with self._lock:
            if self.broken is not None:
                raise self.broken
            check_owner(self._owner)
            if self._closed:
                raise PoolClosed("cannot schedule new futures after shutdown")
            if self._idle.acquire(blocking=False):
                self.queue.put(work)
            elif len(self._threads) < self.workers:
                self.queue.put(work)
                self._start_one()
            elif _here.worker is not None and _here.worker.pool is self:
                self._nested.append(work)
                self._givers.add(_here.worker)
                self._start_helper()
            else:
                self.queue.put(work)

    def _start_helper(self) -> None:
        if self._nested and len(self._helpers) < len(self._givers):
            helper = _Worker(self, next(self._serial), helper=True)
            helper.thread.start()
            self._helpers.add(helper)

    def _start_one(self) -> None:
        worker = _Worker(self, next(self._serial))
        self._threads.append(worker)  # before it begins: a Ctrl-C may come meanwhile
        try:
            worker.thread.start()
        except RuntimeError:  # the interpreter ends (Python 3.12)
            self._threads.remove(worker)
            raise

    def leave_behind(self, worker: _Worker) -> None:
        """Stop counting on a worker that is stuck, and start another in its place."""
        with self._lock:
            if worker.left_behind:
                return
            worker.left_behind = True
            if worker.helper:
                self._helpers.discard(worker)
                self._start_helper()
            else:
                self._threads.remove(worker)
                self._start_one()

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.broken = StartupFailed(f"the initializer of a worker thread raised {error!r}")
            self.broken.__cause__ = error
        self.drain(self.broken)

    def drain(self, error: Exception | None) -> None:
        """Drop all work that has not begun."""
        with self._lock:
            nested, self._nested = self._nested, deque()
        for work in nested:
            work.drop(error)
        while True:
            try:
                queued = self.queue.get_nowait()
            except queue.Empty:
                return
            if queued is not None:
                queued.drop(error)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self.queue.put(None)

    def join(self) -> None:
        for worker in [*self._threads, *self._helpers]:
            if worker.thread is not threading.current_thread():
                join(worker.thread)


class _ThreadStream(Stream):
    def __init__(self, pool: _Pool, call: Call) -> None:
        self.call = call
        self._pool = pool
        self._reports: Mailbox[Report | None] = Mailbox()
        self._lock = threading.Lock()
        self._running: dict[Runner, _Worker] = {}
        self._closed = False
        self._limit = ThreadLimit(pool.workers)
        self._meanwhile = ExitStack()
        self._meanwhile.callback(self._limit.close)
        self.witnesses: ThreadWitnesses | None = None
        if call.evidence is not None:
            from fanfold.executors.work.streams import ThreadWitnesses, routed

            self.witnesses = ThreadWitnesses(call.evidence)
            self._meanwhile.callback(self.witnesses.close)
            self._meanwhile.enter_context(routed())

    def send(self, chunk: Chunk) -> None:
        self._pool.put(_ChunkWork(self, chunk, 0, len(chunk)))

    def begin(self, runner: Runner, worker: _Worker) -> bool:
        with self._lock:
            if not self._closed:
                self._running[runner] = worker
            return not self._closed

    def end(self, runner: Runner) -> None:
        with self._lock:
            worker = self._running.pop(runner, None)
            if worker is not None:
                self._report(runner, worker)

    def report(self, report: Report) -> None:
        self._reports.put(report)

    def _report(self, runner: Runner, worker: _Worker) -> None:
        results = runner.take()
        if results is not None:
            name = worker.thread.name
            self.report(report_of(self.call, runner.first, runner.attempt, results, worker=name))

    def receive(self, timeout: float | None = None) -> Report | None:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            self._limit.look()  # the tasks are at work already: it takes milliseconds
            left = None if deadline is None else deadline - monotonic()
            try:
                return self._reports.get(
                    timeout=_TICK if left is None else max(0.0, min(_TICK, left))
                )
            except queue.Empty:
                if left is not None and left <= 0:
                    return None
                self._check()

    def _check(self) -> None:
        """Free what waits behind a long task; leave behind the tasks that exceed the timeout."""
        limit = self.call.timeout
        with self._lock:
            for runner, worker in list(self._running.items()):
                began = runner.began
                if not began or perf_counter() - began < _TICK:
                    continue
                self._split(runner, worker)
                if limit is not None and perf_counter() - began > limit and runner.began == began:
                    self._leave_behind(runner, worker, limit)

    def _split(self, runner: Runner, worker: _Worker) -> None:
        stop, end = runner.stop, runner.cut()
        if end < stop:
            rest = Chunk(runner.first, runner.items, runner.attempt)
            self._pool.put(_ChunkWork(self, rest, end, stop))
        self._report(runner, worker)

    def _leave_behind(self, runner: Runner, worker: _Worker, limit: float) -> None:
        del self._running[runner]
        index = runner.first + runner.offset
        error = TaskTimeout(
            f"task {index} exceeded its timeout of {limit:g} s. A thread cannot be stopped: it was "
            'left behind and still runs. Use on="processes" to have such tasks killed.'
        )
        error.index = index
        task = self.call.describe(index, runner.items[runner.offset])
        error.add_note(f"fanfold: {task}, attempt {runner.attempt}, {worker.thread.name}")
        error.evidence = runner.unfinished()
        self._pool.leave_behind(worker)
        self.report(
            Report(
                first=index,
                values=[error],
                seconds=[limit],
                failed=(index,),
                attempt=runner.attempt,
                worker=worker.thread.name,
                evidence=[error.evidence] if error.evidence is not None else (),
            )
        )

    def wake(self) -> None:
        self._reports.put(None)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for runner, worker in self._running.items():
                runner.cut()
                self._pool.leave_behind(worker)
            self._running.clear()
        self._meanwhile.close()
        if self._pool.workers > 1:
            _tell_of_lock()


def _tell_of_lock() -> None:
    """Warn where Python is free-threaded, and an extension has brought its lock back: Python's own
    warning names the module, and not what that means for a map."""
    free_threaded = "t" in getattr(sys, "abiflags", "")
    if free_threaded and sys._is_gil_enabled():  # type: ignore[attr-defined]
        warnings.warn(
            "threads take turns again on this free-threaded Python: an extension module that was "
            'imported (or -X gil=1) has turned its lock, the GIL, on. Use on="processes", or a '
            "release of the module that does without it",
            RuntimeWarning,
            stacklevel=2,
        )


class _ChunkWork:
    """A part of a chunk, ``start`` ... ``stop - 1``, waiting for a thread."""

    def __init__(self, stream: _ThreadStream, chunk: Chunk, start: int, stop: int) -> None:
        self._stream = stream
        self._chunk = chunk
        self._range = start, stop

    def run(self, worker: _Worker) -> None:
        witnesses = self._stream.witnesses
        if witnesses is None:
            self._run(worker, None)
            return
        with witnesses.of(worker.thread.name) as witness:
            self._run(worker, witness.tracker(self._chunk.first + self._range[0]))

    def _run(self, worker: _Worker, tracker: Tracker | None) -> None:
        start, stop = self._range
        runner = Runner(
            self._stream.call,
            self._chunk.first,
            self._chunk.items,
            attempt=self._chunk.attempt,
            start=start,
            stop=stop,
            worker=worker.thread.name,
            tracker=tracker,
        )
        if self._stream.begin(runner, worker):
            runner.run()
            self._stream.end(runner)

    def drop(self, error: Exception | None) -> None:
        start, stop = self._range
        first = self._chunk.first + start
        self._stream.report(
            Report(
                first=first,
                values=[error] * (stop - start),
                failed=tuple(range(first, first + stop - start)),
                attempt=self._chunk.attempt,
            )
        )


@atexit.register
def _finish_at_exit() -> None:
    """As the standard executor: what was submitted is done before the interpreter ends."""
    for pool in list(_pools):
        pool.close()
    for pool in list(_pools):
        pool.join()
