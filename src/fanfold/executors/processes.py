"""Worker processes of this machine: for pure Python work, and for code that may crash."""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import queue
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

from fanfold.errors import NotSerializable, PoolClosed, UsageError
from fanfold.executors import launcher
from fanfold.executors.base import Executor, Stream, worker_count
from fanfold.executors.future import Future
from fanfold.executors.pool import Pool
from fanfold.executors.shipments import PooledCall, Shipment
from fanfold.executors.starter import ForkStarter, Starter
from fanfold.resources import cores
from fanfold.tasks import Activity, Call, Chunk, Report
from fanfold.transport.pickling import pack_function
from fanfold.transport.segments import process_folder
from fanfold.transport.watch import Watch, watch

__all__ = ["ProcessExecutor"]

_NO_KWARGS: dict[str, Any] = {}  # one for all calls without any
_REMEMBERED = 128  # functions whose packed form is kept for the next submit
_METHODS = ("forkserver", "spawn", "fork")
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class ProcessExecutor(Executor):
    """A pool of worker processes; takes what `concurrent.futures.ProcessPoolExecutor` takes.

    ``max_workers`` is by default the number of cores this process may use. ``mp_context`` is a
    context of `multiprocessing` or just its name: "forkserver" (the default), "spawn" or "fork".
    After ``max_tasks_per_child`` tasks a worker is replaced.

    A worker that dies takes only its own task with it (`WorkerDied`) and is replaced: unlike the
    standard pool, this one does not break.

    >>> with ProcessExecutor(2) as pool:
    ...     list(pool.map(lambda x: x + 1, [1, 2, 3]))
    [2, 3, 4]
    """

    name = "processes"

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer or None")
            if max_tasks_per_child < 1:
                raise UsageError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
        self.workers = worker_count(max_workers, int(cores()), "max_workers")
        method = _method(mp_context)
        if method != "fork":
            launcher.prepare()  # it starts while we go on
        self._folder = process_folder()
        first = None
        if initializer is not None:
            first = pack_function((initializer, initargs), self._folder.put)
        kind = ForkStarter if method == "fork" else Starter
        starter = kind(method, self.workers, self._folder, first)
        self._pool = Pool(self.workers, starter, max_tasks_per_child)
        self._owner = os.getpid()
        self._calls: OrderedDict[int, _Remembered] = OrderedDict()
        _pools.add(self._pool)
        weakref.finalize(self, self._pool.shut_down).atexit = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Queue a call; its future. The arguments are copied now: later changes do not matter.

        Raises `NotSerializable` when the function or an argument cannot be sent.
        """
        self._check_owner()
        known = self._calls.get(id(fn))
        call = known.call if known is not None and known.packs(fn) else self._new_call(fn)
        future = Future(self._pool)
        items = ((args, kwargs or _NO_KWARGS),)
        self._pool.put(Shipment(call, 0, items, *call.pack_items(items), future=future))
        if not call.remembered:
            once = call
            future.add_done_callback(lambda _: self._pool.forget(once))
        return future

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise PoolClosed("this executor belongs to the process that made it: make a new one")

    def _new_call(self, fn: Callable[..., Any]) -> PooledCall:
        """Pack a function, and remember it for the next submit if it cannot change unnoticed."""
        call = PooledCall(Call(fn, "both"), self._folder)
        self._pool.begin(call)
        watched = watch(fn)
        if not call.packed.segments() and (watched or _is_sent_by_name(fn, call)):
            call.remembered = True
            self._calls[id(fn)] = _Remembered(call, watched)
            if len(self._calls) > _REMEMBERED:
                self._calls.popitem(last=False)
        return call

    def open(self, call: Call) -> Stream:
        self._check_owner()
        return _ProcessStream(self._pool, PooledCall(call, self._folder))

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool | None:
        """Ctrl-C ends what runs, where the standard executor would wait for it."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.kill_workers()
        return super().__exit__(kind, *rest)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with ``wait``, return when all is done and the workers are gone."""
        if cancel_futures:
            self._pool.cancel_queued()
        self._pool.shut_down()
        if wait:
            self._pool.join()

    def kill_workers(self) -> None:
        """End the pool at once, whatever runs; pending futures fail with `WorkerDied`."""
        self._pool.cancel_queued()
        self._pool.kill()

    def activity(self) -> list[Activity]:
        return self._pool.activity()

    def process_ids(self) -> list[int]:
        """The process ids of the workers that live now."""
        return self._pool.process_ids()


class _Remembered(NamedTuple):
    """A function as it was packed; ``watch`` is None when it is sent by name."""

    call: PooledCall
    watch: Watch | None

    def packs(self, fn: Callable[..., Any]) -> bool:
        return self.call.call.func is fn and (self.watch is None or self.watch.unchanged())


def _is_sent_by_name(fn: Callable[..., Any], call: PooledCall) -> bool:
    by_name = isinstance(fn, (FunctionType, BuiltinFunctionType, type))
    stream = call.packed.stream
    return by_name and isinstance(stream, bytes) and b"cloudpickle" not in stream


class _ProcessStream(Stream):
    def __init__(self, pool: Pool, call: PooledCall) -> None:
        self._pool = pool
        self._call = call
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        call.report = self._reports.put
        pool.begin(call)

    def send(self, chunk: Chunk) -> None:
        call = self._call
        try:
            packed, parcel = call.pack_items(chunk.items)
        except NotSerializable as error:
            self._refuse(chunk, error)
            return
        self._pool.put(
            Shipment(call, chunk.first, chunk.items, packed, parcel, attempt=chunk.attempt)
        )

    def _refuse(self, chunk: Chunk, error: NotSerializable) -> None:
        """Report the task that cannot be sent; send the others."""
        if len(chunk) > 1:
            for offset, item in enumerate(chunk.items):
                self.send(Chunk(chunk.first + offset, [item], chunk.attempt))
            return
        error.index = chunk.first
        task = self._call.call.describe(chunk.first, chunk.items[0])
        error.add_note(f"fanfold: {task}, attempt {chunk.attempt}")
        self._reports.put(
            Report(chunk.first, [error], failed=(chunk.first,), attempt=chunk.attempt)
        )

    def receive(self, timeout: float | None = None) -> Report | None:
        reports = self._reports
        if timeout is None:
            self._pool.help(lambda: not reports.empty())
        else:
            deadline = monotonic() + timeout
            self._pool.help(lambda: not reports.empty(), timeout)
            timeout = max(0.0, deadline - monotonic())
        try:
            return reports.get(timeout=timeout)
        except queue.Empty:
            return None

    def wake(self) -> None:
        self._reports.put(None)
        self._pool.wake()

    def close(self) -> None:
        self._pool.end(self._call)


def _method(context: Any) -> str:
    method = "forkserver" if context is None else context
    if not isinstance(method, str):
        method = method.get_start_method()
    if method not in _METHODS:
        raise UsageError(f"mp_context must be one of {', '.join(_METHODS)}, not {method!r}")
    return str(method)


@atexit.register
def _finish_at_exit() -> None:
    """What was submitted is done before the interpreter ends, unless Ctrl-C ends it."""
    interrupted = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    for pool in list(_pools):
        if interrupted:
            pool.cancel_queued()
            pool.kill()
        pool.shut_down()
    for pool in list(_pools):
        pool.join()
