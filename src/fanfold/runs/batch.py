"""A scheduler as an executor: the tasks of a map, or of many `submit`, as job arrays.

What is sent is gathered for a moment, and submitted as a run of its own, which is removed when all
of it has ended well.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from fanfold.errors import FanfoldError, NotSerializable, PoolClosed, TaskLost
from fanfold.executors.base import Executor, Stream, worker_count
from fanfold.resources import Resources
from fanfold.runs.cluster import Cluster, Submission, settle
from fanfold.runs.follow import Follower
from fanfold.runs.prepare import Request, prepare
from fanfold.runs.remote import Waiting
from fanfold.runs.run import FOLDER
from fanfold.store.directory import RunDirectory
from fanfold.tasks import Call, Chunk, Report
from fanfold.transport.pickling import dumps

__all__ = ["ArrayExecutor", "PBSExecutor", "SlurmExecutor"]

_QUIET = 0.2  # seconds without another chunk, after which those that came are submitted
_ENDING = 2.0  # seconds that an element may take to end after its last result
_TRIES = 3  # arrays for tasks that were ended from outside


class ArrayExecutor(Executor):
    """Runs tasks in job arrays of a scheduler, ``"slurm"`` or ``"pbs"``.

    ``workers`` tasks run at a time in each element; by default one on each of its GPUs, where it
    asks for some, or else one on each of its cores. Each worker sees its own GPUs. The other
    options are those of `fanfold.run`. Where elements are ended from outside (their walltime, a
    lost node), what they had not done is submitted again, twice.

    >>> pool = ArrayExecutor(scheduler="slurm", resources=Resources(cores=4, walltime="1h"))
    >>> pool.name, pool.batch
    ('slurm', True)
    """

    batch = True
    scheduler: ClassVar[str] = "slurm"

    def __init__(
        self,
        workers: int | None = None,
        *,
        scheduler: str | None = None,
        resources: Resources | None = None,
        elements: int | None = None,
        at_once: int | None = None,
        setup: Sequence[str] = (),
        python: str = sys.executable,
        folder: str | os.PathLike[str] = FOLDER,
    ) -> None:
        asked = Resources() if resources is None else resources
        self.name = scheduler or self.scheduler  # type: ignore[misc]  # of each pool its own
        self._tasks_at_once = None if workers is None else worker_count(workers, 1)
        self.workers = (self._tasks_at_once or asked.workers) * (elements or 1)
        self._cluster = Cluster(self.name, asked, elements, at_once, list(setup), python)
        self._folder = Path(folder)
        self._closed = False
        self._submitter: _Submitter | None = None

    def open(self, call: Call) -> Stream:
        if self._closed:
            raise PoolClosed("cannot schedule new futures after shutdown")
        return _ArrayStream(self, call)

    def begin(self, call: Call, chunks: Sequence[Chunk]) -> Submission:
        """A run of these chunks, planned: its tasks have the indices that they have in the map."""
        ranges = sorted(
            (range(chunk.first, chunk.first + len(chunk)) for chunk in chunks),
            key=lambda tasks: tasks.start,
        )
        items: list[Any] = [None] * ranges[-1].stop
        for chunk in chunks:
            items[chunk.first : chunk.first + len(chunk)] = chunk.items
        options = {
            "on": self.name, "workers": self._tasks_at_once, "chunk": None, "retries": 0,
            "timeout": call.timeout, "errors": "return", "cluster": self._cluster.told(),
        }  # fmt: skip
        request = Request(
            call.func, items, self._folder, options, stem="map", style=call.style,
            seed=call.entropy, files="ignore", costs=call.costs,
        )  # fmt: skip
        work, _ = prepare(request)
        return Submission.plan(work, self._cluster, only=ranges)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Calls that come within a moment go into one job array together."""
        if self._closed:
            raise PoolClosed("cannot schedule new futures after shutdown")
        if self._submitter is None:
            self._submitter = _Submitter(self)
        return self._submitter.submit(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        if self._submitter is not None:
            self._submitter.close(wait=wait, cancel=cancel_futures)


class SlurmExecutor(ArrayExecutor):
    """Job arrays on Slurm."""


class PBSExecutor(ArrayExecutor):
    """Job arrays on PBS."""

    scheduler = "pbs"


class _ArrayStream(Stream):
    def __init__(self, pool: ArrayExecutor, call: Call) -> None:
        self._pool = pool
        self._call = call
        self._gathered: list[Chunk] = []
        self._last = 0.0  # when the last chunk came
        self._batches: list[_Batch] = []
        self._ready: deque[Report] = deque()
        self._woken = threading.Event()

    def send(self, chunk: Chunk) -> None:
        self._gathered.append(chunk)
        self._last = time.monotonic()

    def receive(self, timeout: float | None = None) -> Report | None:
        """With a ``timeout`` of 0, as a map asks that was interrupted, nothing is submitted, and
        the scheduler is not asked."""
        interrupted = timeout == 0
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            if self._woken.is_set():
                self._woken.clear()
                return None
            if not interrupted:
                self._begin_gathered()
            for batch in [*self._batches]:
                self._ready.extend(batch.reports() if interrupted else batch.turn())
                if batch.over:
                    self._batches.remove(batch)
                    batch.close()
            left = 60.0 if deadline is None else deadline - time.monotonic()
            if self._ready or left <= 0:
                break
            self._woken.wait(min(0.1, left))
        return self._ready.popleft() if self._ready else None

    def _begin_gathered(self) -> None:
        if self._gathered and time.monotonic() - self._last >= _QUIET:
            chunks, self._gathered = self._gathered, []
            try:
                self._batches.append(_Batch(self._pool, self._call, chunks))
            except NotSerializable as error:
                bad = dict(_not_serializable(chunks))
                for chunk in chunks:
                    self._send_without(chunk, bad or dict.fromkeys(_tasks(chunk), error))
            except FanfoldError as error:
                for chunk in chunks:
                    self._ready.extend(_failed(chunk, _tasks(chunk), error))

    def _send_without(self, chunk: Chunk, bad: Mapping[int, NotSerializable]) -> None:
        """The tasks whose inputs cannot be kept have failed; their neighbours are sent again."""
        for index, item in zip(_tasks(chunk), chunk.items, strict=True):
            if index in bad:
                self._ready.extend(_failed(chunk, [index], bad[index]))
            else:
                self.send(Chunk(index, [item], chunk.attempt))

    def awaits_before(self, index: int) -> bool:
        waiting = [chunk.first for chunk in self._gathered]
        waiting += [report.first for report in self._ready]
        waiting += [min(batch.left) for batch in self._batches]
        return min(waiting, default=index) < index

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._gathered = []
        for batch in self._batches:
            batch.close()
        self._batches = []


class _Batch:
    """Chunks that are submitted together, as one run; ``left`` has not ended.

    The first turn submits them: a Ctrl-C meanwhile finds the batch where it can be closed.
    """

    def __init__(self, pool: ArrayExecutor, call: Call, chunks: list[Chunk]) -> None:
        self._chunks = sorted(chunks, key=lambda chunk: chunk.first)
        self._firsts = [chunk.first for chunk in self._chunks]
        self.left = {index for chunk in chunks for index in _tasks(chunk)}
        self._failed = False
        self._pool = pool
        self._submission = pool.begin(call, chunks)
        work = self._submission.work
        self._directory: RunDirectory = work.directory
        self._follower = Follower(self._directory, work.asked.id, [], trust=False)
        self._waiting: Waiting | None = None
        self._tries = 0
        self._next = 0.0

    @property
    def over(self) -> bool:
        return not self.left

    def _submit(self) -> Waiting:
        self._tries += 1
        self._submission.submit()
        self._follower.add(self._submission.arrays)
        self._waiting = Waiting(self._directory)
        return self._waiting

    def reports(self) -> Iterator[Report]:
        """What the elements have written since the last time."""
        for report in self._follower.reports():
            yield from self._parts(report)

    def turn(self) -> Iterator[Report]:
        """What has ended since the last turn."""
        if time.monotonic() < self._next:
            return
        try:
            waiting = self._waiting or self._submit()
            _, ended = waiting.look()
            yield from self.reports()
            self._next = time.monotonic() + waiting.pause
            if ended and self.left:
                self._again()
        except FanfoldError as error:
            yield from self._give_up(error)

    def _parts(self, report: Report) -> Iterator[Report]:
        """A report by the chunks that were sent."""
        begin, stop = report.first, report.first + len(report)
        self._failed = self._failed or bool(report.failed)
        while begin < stop:
            chunk = self._chunks[bisect_right(self._firsts, begin) - 1]
            end = min(stop, chunk.first + len(chunk))
            part = report.part(begin, end)
            part.attempt = chunk.attempt
            if self.left.issuperset(range(begin, end)):
                self.left.difference_update(range(begin, end))
                yield part
            begin = end

    def _again(self) -> None:
        """Some tasks were ended from outside. Raises `TaskLost` when that goes on."""
        if self._tries >= _TRIES:
            raise TaskLost(
                f"its job arrays were ended {self._tries} times before it was done: see "
                f"fanfold status {self._directory.path}"
            )
        work, cluster = self._submission.work, self._submission.cluster
        left = [range(index, index + 1) for index in sorted(self.left)]
        self._submission = Submission.plan(work, cluster, only=left)
        self._waiting = None
        self._next = 0.0

    def _give_up(self, error: FanfoldError) -> Iterator[Report]:
        self._failed = True
        for chunk in self._chunks:
            yield from _failed(chunk, sorted(self.left.intersection(_tasks(chunk))), error)
        self.left.clear()
        self._cancel()

    def close(self) -> None:
        """End what is left of it; what has ended well leaves nothing behind."""
        self._follower.__exit__()
        if self.left:
            self._cancel()
        elif not self._failed:
            _remove(self._directory.path)

    def _cancel(self) -> None:
        """Nobody waits for it any more: what it still does counts for nothing."""
        with suppress(FanfoldError):
            settle(self._directory, steal=True)


def _remove(folder: Path) -> None:
    """Elements whose last result is here already may still write there that they end."""
    deadline = time.monotonic() + _ENDING
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)


def _tasks(chunk: Chunk) -> range:
    return range(chunk.first, chunk.first + len(chunk))


def _failed(chunk: Chunk, tasks: Iterable[int], error: Exception) -> Iterator[Report]:
    """These tasks of a chunk have failed, and have not been tried."""
    for index in tasks:
        yield Report(index, [error], failed=(index,), attempt=chunk.attempt)


def _not_serializable(chunks: Iterable[Chunk]) -> Iterator[tuple[int, NotSerializable]]:
    """The tasks whose inputs cannot be kept, and why."""
    for chunk in chunks:
        for index, item in zip(_tasks(chunk), chunk.items, strict=True):
            try:
                dumps(item)
            except NotSerializable as error:
                yield index, error


Apart = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _apply(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


class _Submitter:
    """The futures of an executor, and the thread that serves them."""

    def __init__(self, pool: ArrayExecutor) -> None:
        self._stream = _ArrayStream(pool, Call(_apply, "star"))
        self._lock = threading.Lock()
        self._new: deque[tuple[concurrent.futures.Future[Any], Apart]] = deque()
        self._futures: dict[int, concurrent.futures.Future[Any]] = {}
        self._count = 0
        self._closing = False
        self._error: BaseException | None = None  # of the thread
        self._thread = threading.Thread(target=self._main, name="fanfold-arrays")
        self._thread.start()

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._error is None:
                self._new.append((future, (fn, args, kwargs)))
            else:
                future.set_exception(self._error)
        self._stream.wake()
        return future

    def close(self, *, wait: bool, cancel: bool) -> None:
        with self._lock:
            self._closing = True
            for future, _ in self._new if cancel else ():
                future.cancel()
        self._stream.wake()
        if wait:
            self._thread.join()

    def _main(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - for who waits for the futures
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Nobody waits for what does not come."""
        with self._lock:
            self._error = error
            new = [future for future, _ in self._new]
            self._new.clear()
        waiting = [future for future in new if future.set_running_or_notify_cancel()]
        for future in [*self._futures.values(), *waiting]:
            future.set_exception(error)
        self._futures.clear()

    def _serve(self) -> None:
        with self._stream:
            while not self._is_done():
                self._send_new()
                report = self._stream.receive(1.0)
                for outcome in () if report is None else report.outcomes():
                    future = self._futures.pop(outcome.index)
                    if outcome.error is None:
                        future.set_result(outcome.value)
                    else:
                        future.set_exception(outcome.error)

    def _is_done(self) -> bool:
        with self._lock:
            return self._closing and not self._new and not self._futures

    def _send_new(self) -> None:
        with self._lock:
            new = [*self._new]
            self._new.clear()
        for future, call in new:
            if future.set_running_or_notify_cancel():
                self._futures[self._count] = future
                self._stream.send(Chunk(self._count, [call]))
                self._count += 1
