"""`multiprocessing.Pool` over any executor of fanfold.

A map is driven by a thread of its own, because `multiprocessing.Pool` promises that work goes on
while nobody asks for its results.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from fanfold.adapters.results import AsyncResult, Lane, Results
from fanfold.api import check_options
from fanfold.dispatch import Dispatch, Event
from fanfold.errors import PoolClosed, UsageError
from fanfold.executors import registry
from fanfold.executors.base import Executor
from fanfold.seeds import new_entropy
from fanfold.tasks import Call, Report, Style

__all__ = ["Pool"]

_logger = logging.getLogger("fanfold")

Callback = Callable[[Any], object]


class _NotRunningError(PoolClosed, ValueError):
    """Work was given to a pool after `close` or `terminate`; `multiprocessing` has a ValueError."""


class _Map(threading.Thread):
    """Drives one map. ``report`` gets its reports; ``end`` what ended it, None if all is well."""

    def __init__(
        self,
        pool: Pool,
        dispatch: Callable[[Callable[[Event], None]], Dispatch],
        report: Callable[[Report], None],
        end: Callable[[BaseException | None], None],
        lane: Lane | None = None,
    ) -> None:
        super().__init__(name="fanfold-pool-map", daemon=True)
        self.lane = lane
        self._of = pool
        self._dispatch = dispatch(self._check)
        self._report = report
        self._end = end

    def _check(self, event: Event) -> None:
        """Called by the dispatch on every event, and twice a second: raising ends it."""
        if self._of.terminated:
            raise PoolClosed("the pool was terminated before this had ended")
        if self.lane is not None and self.lane.left:
            raise PoolClosed("nobody waits for the results any more")

    def run(self) -> None:
        error = self._drive()
        self._end(error)
        self._of.forget(self)

    def _drive(self) -> BaseException | None:
        dispatch = self._dispatch
        del self._dispatch  # it knows this map: so the inputs are let go of without the collector
        try:
            for report in dispatch.reports():
                self._report(report)
        except BaseException as raised:  # noqa: BLE001 - it belongs to whoever waits
            return raised
        return None


class Pool:
    """What `multiprocessing.Pool` is, on the workers of an executor of fanfold.

    Programs written for `multiprocessing.Pool` need another import, and no other change. Lambdas
    and functions of a notebook work; large arrays travel through shared memory; a worker that dies
    fails its own task (`WorkerDied`), where the standard pool waits for ever.

    Parameters:
        processes: how many workers; by default as many as `cores`.
        initializer, initargs: called in each worker when it starts.
        maxtasksperchild: after so many tasks a worker process is replaced; a task is one call.
        context: how worker processes start: a context of `multiprocessing`, or its name.
        on: another place than processes: "threads", "dask", ... or an executor, which stays open
            when this pool ends.

    Raises `UsageError`, a `ValueError`, for options that make no sense.

    >>> import fanfold as ff
    >>> with ff.Pool(2) as pool:
    ...     pool.map(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        on: Any = "processes",
    ) -> None:
        if maxtasksperchild is not None and not isinstance(maxtasksperchild, int):
            raise UsageError(f"maxtasksperchild must be a whole number, not {maxtasksperchild!r}")
        options: dict[str, Any] = {
            "initializer": initializer,
            "max_tasks_per_child": maxtasksperchild,
            "mp_context": context,
        }
        options = {name: value for name, value in options.items() if value is not None}
        if initializer is not None:
            options["initargs"] = tuple(initargs)
        self._executor, self._owned = _place(on, processes, options)
        self._closed = False
        self.terminated = False
        self._lock = threading.Lock()
        self._maps: set[_Map] = set()

    @property
    def size(self) -> int:
        """How many tasks run at once; what emcee, dynesty and schwimmbad ask a pool for."""
        return self._executor.workers

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """``func(*args, **kwds)`` in a worker, waited for."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """Begin ``func(*args, **kwds)`` in a worker.

        One of the callbacks is called here, in another thread, with the result or the exception,
        before the result is `ready`.
        """
        self._check_running()
        future = self._executor.submit(func, *args, **kwds)
        if callback is None and error_callback is None:
            return AsyncResult(future)
        told: Future[Any] = Future()
        future.add_done_callback(partial(_pass_on, told, callback, error_callback))
        return AsyncResult(told)

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(item) for item in iterable]``. The first failure is raised when all
        tasks have ended."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """`map` of inputs that are tuples of arguments.

        >>> with Pool(2, on="threads") as pool:
        ...     pool.starmap(pow, [(2, 5), (3, 2)])
        [32, 9]
        """
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """Begin a `map`; one of the callbacks gets the list of results, or the first failure."""
        return self._gather("one", func, iterable, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """`map_async` of inputs that are tuples of arguments."""
        return self._gather("star", func, iterable, chunksize, callback, error_callback)

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Results:
        """The results in order, as they come. The inputs may be endless.

        Inputs that come one by one, as those of a generator, are drawn some 1000 results ahead.

        >>> with Pool(2, on="threads") as pool:
        ...     results = pool.imap(str, range(3))
        ...     next(results), results.next(timeout=10), list(results)
        ('0', '1', ['2'])
        """
        return self._one_by_one(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Results:
        """`imap`, each result as soon as it is there."""
        return self._one_by_one(func, iterable, chunksize, ordered=False)

    def close(self) -> None:
        """Take no more work. What was given is done, and then the workers end."""
        with self._lock:
            self._closed = True
            maps = list(self._maps)
        for going in maps:
            if going.lane is not None:
                going.lane.lift()
        if not maps:
            self._shut_down()

    def terminate(self) -> None:
        """End the workers now; what they had not finished raises `PoolClosed` or `WorkerDied`.

        Threads cannot be ended: they finish the task that they run.
        """
        self.terminated = True
        self.close()
        if self._owned:
            kill = getattr(self._executor, "kill_workers", None)
            if kill is None:
                self._executor.shutdown(wait=False, cancel_futures=True)
            else:
                kill()

    def join(self) -> None:
        """Wait for the end of all work, after `close` or `terminate`."""
        if not self._closed:
            raise UsageError("the pool is still running: close() or terminate() it before join()")
        with self._lock:
            maps = list(self._maps)
        for going in maps:
            going.join()
        if self._owned:
            self._executor.shutdown(wait=True)

    def forget(self, going: _Map) -> None:
        """A map has ended."""
        with self._lock:
            self._maps.discard(going)
            last = self._closed and not self._maps
        if last:
            self._shut_down()

    def _shut_down(self) -> None:
        if self._owned:
            self._executor.shutdown(wait=False)

    def _check_running(self) -> None:
        if self._closed:
            raise _NotRunningError("Pool not running: it was closed or terminated; make a new one")

    def _gather(
        self,
        style: Style,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        items = iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)
        gathered = _Gathered(len(items))
        told: Future[Any] = Future()

        def end(error: BaseException | None) -> None:
            _tell(told, callback, error_callback, error or gathered.failure(), gathered.values)

        self._begin(style, func, items, chunksize, gathered.add, end)
        return AsyncResult(told)

    def _one_by_one(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        ordered: bool,
    ) -> Results:
        lane = Lane(bounded=not isinstance(iterable, Sized))

        def report(told: Report) -> None:
            failed = frozenset(told.failed)
            lane.put(
                (index in failed, value) for index, value in enumerate(told.values, told.first)
            )

        def end(error: BaseException | None) -> None:
            if error is not None:
                lane.put([(True, error)])
            lane.end()

        self._begin("one", func, iterable, chunksize, report, end, lane=lane, ordered=ordered)
        return Results(lane)

    def _begin(
        self,
        style: Style,
        func: Callable[..., Any],
        items: Iterable[Any],
        chunksize: int | None,
        report: Callable[[Report], None],
        end: Callable[[BaseException | None], None],
        *,
        lane: Lane | None = None,
        ordered: bool = False,
    ) -> None:
        check_options(chunksize, 0, None, "return", None)
        call = Call(func, style, entropy=new_entropy())

        def dispatch(listener: Callable[[Event], None]) -> Dispatch:
            return Dispatch(
                self._executor, call, items, chunk=chunksize, ordered=ordered,
                bounded=lane is not None, listeners=[listener],
            )  # fmt: skip

        going = _Map(self, dispatch, report, end, lane)
        with self._lock:
            self._check_running()
            self._maps.add(going)
        going.start()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """`terminate`, as the standard pool does."""
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Pool cannot be sent to a worker: its workers belong to its own process")


class _Gathered:
    """The results of a map, each in its place."""

    def __init__(self, total: int) -> None:
        self.values: list[Any] = [None] * total
        self._failed: set[int] = set()

    def add(self, report: Report) -> None:
        self.values[report.first : report.first + len(report.values)] = report.values
        self._failed.update(report.failed)

    def failure(self) -> BaseException | None:
        """The failure of the lowest index."""
        return self.values[min(self._failed)] if self._failed else None


def _place(on: Any, processes: int | None, options: dict[str, Any]) -> tuple[Executor, bool]:
    """The executor, and whether it is the pool's own."""
    if isinstance(on, str):
        return registry.make(on, processes, **options), True
    if options:
        raise UsageError(
            f"{', '.join(options)} cannot be changed for an executor whose workers are there: "
            "give them to the executor, or name a place, as in on='threads'"
        )
    executor, _ = registry.resolve(on, processes)
    return executor, False


def _pass_on(
    told: Future[Any],
    callback: Callback | None,
    error_callback: Callback | None,
    future: concurrent.futures.Future[Any],
) -> None:
    if future.cancelled():
        told.cancel()
        told.set_running_or_notify_cancel()
        return
    error = future.exception()
    value = None if error is not None else future.result()
    _tell(told, callback, error_callback, error, value)


def _tell(
    told: Future[Any],
    callback: Callback | None,
    error_callback: Callback | None,
    error: BaseException | None,
    value: Any,
) -> None:
    """Call the callback that fits, and then whoever waits."""
    try:
        if error is None and callback is not None:
            callback(value)
        elif error is not None and error_callback is not None:
            error_callback(error)
    except Exception:
        _logger.exception("a callback of a pool raised")
    if error is None:
        told.set_result(value)
    else:
        told.set_exception(error)
