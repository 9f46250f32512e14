"""Worker processes of this machine: for pure Python work, and for code that may crash."""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from fanfold.errors import NotSerializable, UsageError
from fanfold.executors.base import Executor, MailboxStream, Stream, check_owner, worker_count
from fanfold.executors.pool import launcher
from fanfold.executors.pool.copied import Copied
from fanfold.executors.pool.future import Future
from fanfold.executors.pool.handle import WorkerLimits
from fanfold.executors.pool.pool import Pool
from fanfold.executors.pool.shipments import PooledCall, Shipment
from fanfold.executors.pool.starter import ForkStarter, Starter
from fanfold.executors.remembered import Remembered, Retired, sent_by_name
from fanfold.resources import cores, read_memory
from fanfold.tasks import Activity, Call, Chunk, Report
from fanfold.transport.pickling import pack_function
from fanfold.transport.segments import process_folder
from fanfold.transport.watch import watch

__all__ = ["ProcessExecutor"]

_NO_KWARGS: dict[str, Any] = {}  # one for all calls without any
_REMEMBERED = 128  # functions whose packed form is kept for the next submit
_METHODS = ("forkserver", "spawn", "fork")
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class ProcessExecutor(Executor):
    """A pool of worker processes; takes what `concurrent.futures.ProcessPoolExecutor` takes.

    ``max_workers`` is by default the number of cores this process may use. ``mp_context`` is a
    context of `multiprocessing` or just its name: "forkserver" (the default), "spawn" or "fork"; or
    a launcher that is a copy of this program.
    After ``max_tasks_per_child`` tasks a worker is replaced.

    A worker may have ``max_memory_per_worker`` of memory of its own, in bytes or as "2GB" (see
    `fanfold.executors.work.memory.own_memory`: what is shared does not count). One that has more
    after a task is replaced, and no task is to blame. One that has more while a task runs is ended:
    a task that needs more than that by itself fails with `TaskTooLarge`, and one that only found
    too much left by others runs again in a new worker. This is looked at ten times a second.

    Each worker sees ``gpus`` GPUs, which no other one sees; there are by default as many workers as
    there are GPUs for (see `fanfold.devices.devices`). A worker that takes another's place has its
    GPUs.

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
        max_memory_per_worker: int | str | None = None,
        gpus: int = 0,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer or None")
            if max_tasks_per_child < 1:
                raise UsageError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
        limits = WorkerLimits(max_tasks_per_child, read_memory(max_memory_per_worker))
        copied = mp_context if isinstance(mp_context, Copied) else None
        method = _method(None if copied else mp_context)
        shares = _shares(gpus, max_workers, method)
        self.workers = worker_count(max_workers, len(shares) or cores, "max_workers")
        if method != "fork" and copied is None:
            launcher.prepare()  # it starts while we go on
        self._folder = process_folder()
        first = None
        if initializer is not None:
            first = pack_function((initializer, initargs), self._folder.put)
        kind = ForkStarter if method == "fork" else Starter
        connect = copied.connect if copied else launcher.connect
        starter = kind(method, self.workers, self._folder, first, shares, connect)
        self._pool = Pool(self.workers, starter, limits)
        self._owner = os.getpid()
        self._calls: OrderedDict[int, Remembered[PooledCall]] = OrderedDict()
        self._retired: Retired[PooledCall] = Retired()
        _pools.add(self._pool)
        weakref.finalize(self, self._pool.shut_down).atexit = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Queue a call; its future. The arguments are copied now: later changes do not matter.

        Raises `NotSerializable` when the function or an argument cannot be sent.
        """
        check_owner(self._owner)
        known = self._calls.get(id(fn))
        call = known.call if known is not None and known.packs(fn) else self._new_call(fn)
        future = Future(self._pool)
        items = ((args, kwargs or _NO_KWARGS),)
        self._pool.put(Shipment(call, 0, items, *call.pack_items(items), future=future))
        if not call.remembered:
            once = call
            future.add_done_callback(lambda _: self._pool.forget(once))
        return future

    def _new_call(self, fn: Callable[..., Any]) -> PooledCall:
        """Pack a function, and remember it for the next submit if it cannot change unnoticed."""
        call = PooledCall(Call(fn, "both"), self._folder)
        self._pool.begin(call)
        watched = watch(fn)
        if not call.packed.segments() and (watched or sent_by_name(fn, call.packed.stream)):
            call.remembered = True
            replaced = self._calls.pop(id(fn), None)  # the function has changed since
            self._calls[id(fn)] = Remembered(call, watched)
            if replaced is None and len(self._calls) > _REMEMBERED:
                _, replaced = self._calls.popitem(last=False)
            if replaced is not None:
                for retired in self._retired.add(replaced.call, self._pool.in_use):
                    self._pool.forget(retired)
        return call

    def open(self, call: Call) -> Stream:
        check_owner(self._owner)
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

    def resize(self, workers: int) -> None:
        """Start no more than so many workers from now on; those that live stay."""
        self._pool.resize(workers)

    def activity(self) -> list[Activity]:
        return self._pool.activity()

    def process_ids(self) -> list[int]:
        """The process ids of the workers that live now."""
        return self._pool.process_ids()


class _ProcessStream(MailboxStream):
    def __init__(self, pool: Pool, call: PooledCall) -> None:
        super().__init__(call.call)
        self._pool = pool
        self._call = call
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

    def receive(self, timeout: float | None = None) -> Report | None:
        reports = self._reports
        if timeout is None:
            self._pool.help(lambda: not reports.empty())
        else:
            deadline = monotonic() + timeout
            self._pool.help(lambda: not reports.empty(), timeout)
            timeout = max(0.0, deadline - monotonic())
        return super().receive(timeout)

    def wake(self) -> None:
        super().wake()
        self._pool.wake()

    def close(self) -> None:
        self._pool.end(self._call)


def _shares(gpus: int, workers: int | None, method: str) -> list[dict[str, str]]:
    """What shows each worker its own GPUs."""
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 0:
        raise UsageError(f"gpus must be a whole number, of each worker, not {gpus!r}")
    if not gpus:
        return []
    if method == "fork":
        raise UsageError(
            'gpus= needs mp_context="forkserver" (the default) or "spawn": what a process has begun'
            " with a GPU is of no use to those that are forked from it"
        )
    from fanfold.devices import devices

    asked = None if workers is None else worker_count(workers, 1, "max_workers")
    return devices().shares(asked, gpus)


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
