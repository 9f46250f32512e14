"""Any other `concurrent.futures.Executor`, given as ``on=``: chunks travel as its calls."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any

from fanfold.errors import UsageError
from fanfold.executors.base import Executor, MailboxStream, Stream, report_of, worker_count
from fanfold.executors.work.evidence import Tracker, thread_meter
from fanfold.executors.work.runner import Runner
from fanfold.tasks import Call, Chunk, Report

__all__ = ["ForeignExecutor"]


class ForeignExecutor(Executor):
    """Drives an executor that fanfold did not make, and leaves it open.

    How many tasks it runs at once cannot be known from outside: ``workers`` says it, else twice
    the usual number is kept busy.
    """

    name = "foreign"

    def __init__(self, inner: concurrent.futures.Executor, workers: int | None = None) -> None:
        self.workers = worker_count(workers, 2 * (os.cpu_count() or 1))
        self._inner = inner

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        return self._inner.submit(fn, *args, **kwargs)

    def open(self, call: Call) -> Stream:
        if call.timeout is not None:
            raise UsageError(
                f"timeout= needs an executor of fanfold: a {type(self._inner).__name__} cannot "
                "stop one task"
            )
        return _ForeignStream(self._inner, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the executor belongs to whoever made it."""


class _ForeignStream(MailboxStream):
    def __init__(self, inner: concurrent.futures.Executor, call: Call) -> None:
        super().__init__(call)
        self._inner = inner
        self._futures: set[concurrent.futures.Future[Report]] = set()

    def send(self, chunk: Chunk) -> None:
        future = self._inner.submit(run_chunk, self._of, chunk)
        self._futures.add(future)
        future.add_done_callback(lambda done: self._done(done, chunk))

    def _done(self, future: concurrent.futures.Future[Report], chunk: Chunk) -> None:
        self._futures.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._reports.put(future.result())
            return
        indices = tuple(range(chunk.first, chunk.first + len(chunk)))
        values: list[Any] = [error] * len(chunk)
        self._reports.put(Report(chunk.first, values, failed=indices, attempt=chunk.attempt))

    def close(self) -> None:
        for future in list(self._futures):
            future.cancel()


def run_chunk(call: Call, chunk: Chunk) -> Report:
    """Run a chunk's tasks, wherever the foreign executor runs its calls.

    Their evidence is times alone: nobody knows what else runs in that process.
    """
    worker = f"pid {os.getpid()}"
    runner = Runner(
        call,
        chunk.first,
        chunk.items,
        attempt=chunk.attempt,
        worker=worker,
        tracker=None if call.evidence is None else Tracker(chunk.first, thread_meter),
    )
    runner.run()
    return report_of(call, chunk.first, chunk.attempt, runner.take_all(), worker=worker)
