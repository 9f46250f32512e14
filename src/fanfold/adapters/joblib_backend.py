"""The backend "fanfold" of joblib: each call of `joblib.Parallel` is a call on an executor.

joblib gathers its tasks in batches, as large as its other backends have them; a batch is one task
of fanfold. When a call is over, or fails, its stream is closed: that ends what still runs of it,
on any executor, and nothing else.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from types import SimpleNamespace
from typing import Any

from joblib._parallel_backends import FallbackToBackend, SequentialBackend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from fanfold.adapters.mapped import Mapped, Maps, holds_arrays
from fanfold.errors import EngineLost, UsageError
from fanfold.executors import registry
from fanfold.executors.base import Executor
from fanfold.resources import cores
from fanfold.tasks import Call, Chunk

__all__ = ["FanfoldBackend"]

_NOBODY: Any = SimpleNamespace(verbose=0)  # in the place of a `Parallel` between its calls
_THREADS = ("serial", "threads")


class FanfoldBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What joblib asks of a backend; made by name, see `fanfold.register_joblib`.

    ``n_jobs`` is the number of workers where a place is given by name: -1 is all of them, -2 all
    cores but one. An executor that is given as ``on`` has its own number.
    """

    # Seconds in a batch. joblib's other backends have 0.2 to 2: here a batch costs less, and short
    # ones leave no worker idle at the end.
    MIN_IDEAL_BATCH_DURATION = 0.1
    MAX_IDEAL_BATCH_DURATION = 1.0
    supports_retrieve_callback = True
    default_n_jobs = -1
    parallel = _NOBODY

    def __init__(
        self,
        on: Any = "processes",
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        on = "processes" if isinstance(on, str) and on == "auto" else on
        registry.check(on)
        if "workers" in options:
            raise UsageError("the workers of a backend are counted by n_jobs=, as joblib has it")
        self._place = _Place(on, options)
        self._serves_one = False
        self._courier: _Courier | None = None
        threads = isinstance(on, str) and on in _THREADS
        self.uses_threads = self.supports_sharedmem = threads

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many tasks run at once; 1 means here, in this thread."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs == 1:
            return 1
        executor = self._place.executor(n_jobs)
        here = executor.inline or (executor.workers == 1 and executor.name == "processes")
        return 1 if here else max(2, executor.workers)

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **settings: Any) -> int:
        """Get ready for the calls of one `Parallel`, which gets a backend of its own."""
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if not self._serves_one:
            own = copy.copy(self)
            own._serves_one = True
            raise FallbackToBackend(own)
        self.parallel = parallel
        self._executor = self._place.executor(n_jobs)
        self._settings = settings
        if self._executor.batch:
            parallel.pre_dispatch = "all"  # one job array, and not one for each task that ends
        return workers

    def compute_batch_size(self) -> int:
        if self._executor.batch:
            return 1  # elements share the tasks out among themselves
        return int(super().compute_batch_size())

    def start_call(self) -> None:
        self._courier = _Courier(self._executor, self._settings)

    def submit(self, func: Any, callback: Callable[[Future[Any]], None] | None = None) -> Any:
        """Send a batch; ``callback`` is called with its future."""
        future: Future[Any] = Future()
        courier = self._courier
        if courier is not None:  # else the call has been aborted, and nobody waits
            if callback is not None:
                future.add_done_callback(callback)
            courier.send(future, func)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        try:
            return out.result()
        except (BrokenExecutor, EngineLost):
            self._place.discard(self._executor)
            raise

    def stop_call(self) -> None:
        courier, self._courier = self._courier, None
        if courier is not None:
            courier.close()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs of this call; the executor is ready for the next, whatever was asked."""
        self.stop_call()

    def terminate(self) -> None:
        """The `Parallel` is done: let go of it, so that the executor can end with its owner."""
        self.stop_call()
        self.reset_batch_stats()
        self.parallel = _NOBODY


class _Place:
    """The executors of a backend, made when they are first needed; they end when it does."""

    def __init__(self, on: Any, options: dict[str, Any]) -> None:
        self._on = on
        self._options = options
        self._lock = threading.Lock()
        self._executors: dict[int | None, Executor] = {}
        self._ours: list[Executor] = []
        weakref.finalize(self, _shut_down, self._ours)

    def executor(self, n_jobs: int | None) -> Executor:
        workers = n_jobs
        if n_jobs == -1 or not isinstance(self._on, str):
            workers = None  # all that there are
        elif n_jobs is not None and n_jobs < 0:
            workers = max(1, int(cores()) + 1 + n_jobs)
        with self._lock:
            if workers not in self._executors:
                self._executors[workers] = self._make(workers)
            return self._executors[workers]

    def discard(self, executor: Executor) -> None:
        """It is broken: the next call gets a new one."""
        with self._lock:
            if executor in self._ours:
                self._ours.remove(executor)
                self._executors = {
                    workers: one for workers, one in self._executors.items() if one is not executor
                }
                executor.shutdown(wait=False)

    def _make(self, workers: int | None) -> Executor:
        if isinstance(self._on, str):
            executor, ours = registry.make(self._on, workers, **self._options), True
        else:
            executor, ours = registry.resolve(self._on, workers)
        if ours:
            self._ours.append(executor)
        return executor


def _shut_down(executors: list[Executor]) -> None:
    for executor in executors:
        executor.shutdown(wait=False)


class _Courier:
    """The batches of one call, on their way through a stream that a thread drives."""

    def __init__(self, executor: Executor, settings: dict[str, Any]) -> None:
        self._executor = executor  # the workers end when nobody refers to it
        self._stream = executor.open(Call(_run))
        self._maps: Maps | None = None
        if executor.batch or executor.name == "processes":
            self._maps = Maps(
                keep=executor.batch,
                folder=settings.get("temp_folder"),
                least=settings.get("max_nbytes"),
                mode=settings.get("mmap_mode"),
            )
        self._new: deque[tuple[Future[Any], _Batch]] = deque()
        self._futures: dict[int, Future[Any]] = {}
        self._sent = 0
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="fanfold-joblib", daemon=True)
        self._thread.start()

    def send(self, future: Future[Any], calls: Any) -> None:
        self._new.append((future, _Batch(calls, self._maps)))
        if threading.current_thread() is not self._thread:
            self._stream.wake()
        if self._error is not None:
            self._fail(self._error)

    def close(self) -> None:
        """End what has not ended. Nobody waits for those futures any more."""
        self._closing = True
        self._stream.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._maps is not None:
            self._maps.close()

    def _main(self) -> None:
        try:
            with self._stream:
                while not self._closing:
                    self._send_new()
                    self._receive()
        except BaseException as error:  # noqa: BLE001 - for who waits for the futures
            self._error = error
            self._fail(error)

    def _send_new(self) -> None:
        while self._new:
            future, batch = self._new.popleft()
            self._futures[self._sent] = future
            self._stream.send(Chunk(self._sent, [batch]))
            self._sent += 1

    def _receive(self) -> None:
        report = self._stream.receive()
        for outcome in () if report is None else report.outcomes():
            future = self._futures.pop(outcome.index)
            if outcome.error is None:
                future.set_result(outcome.value)
            else:
                future.set_exception(outcome.error)

    def _fail(self, error: BaseException) -> None:
        while self._new:
            self._new.popleft()[0].set_exception(error)
        while self._futures:
            self._futures.popitem()[1].set_exception(error)


class _Batch:
    """joblib's `BatchedCalls`, with references in the place of arrays that lie in files."""

    def __init__(self, calls: Any, maps: Maps | None) -> None:
        self.calls = calls
        self._maps = maps is not None and holds_arrays(calls.items)
        if maps is not None and self._maps:
            self._change(maps.reference)

    def _change(self, change: Callable[[Any], Any]) -> None:
        self.calls.items = [
            (func, tuple(map(change, args)), {name: change(kwargs[name]) for name in kwargs})
            for func, args, kwargs in self.calls.items
        ]

    def run(self) -> Any:
        if self._maps:
            self._change(_opened)
        return self.calls()

    def __repr__(self) -> str:
        func = self.calls.items[0][0]
        name = getattr(func, "__name__", type(func).__name__)
        return f"{len(self.calls)} x {name}(...)"


def _opened(value: Any) -> Any:
    return value.open() if isinstance(value, Mapped) else value


def _run(batch: _Batch) -> Any:
    return batch.run()
