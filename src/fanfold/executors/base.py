"""What an executor is: a `concurrent.futures.Executor` that can also run a map's chunks.

`submit` is for everybody. `open` is for dispatch: it begins one call and returns a `Stream`, where
chunks go in and reports come out. Whoever implements it keeps three promises:

- every task sent is reported exactly once (a value, or the exception it ended with);
- `Stream.receive` never waits for something that is dead;
- after `Stream.close` nothing of the call is left, running or waiting, where it can be stopped.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar

from fanfold.errors import FanfoldError, NotSerializable, PoolClosed, UsageError
from fanfold.executors.work.runner import Results, fold_results
from fanfold.mailbox import Mailbox
from fanfold.tasks import Activity, Call, Chunk, Report

__all__ = [
    "Executor",
    "MailboxStream",
    "StartupFailed",
    "Stream",
    "check_owner",
    "report_of",
    "worker_count",
]


class StartupFailed(FanfoldError, concurrent.futures.BrokenExecutor):
    """Workers could not be started, or their initializer failed."""


def worker_count(
    workers: int | None, default: Callable[[], int] | int, name: str = "workers"
) -> int:
    """``workers`` when it is a whole number from 1, ``default`` (or what it finds) when it is None.

    Raises `UsageError` for anything else.
    """
    if workers is None:
        return int(default() if callable(default) else default)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UsageError(
            f"{name} must be greater than 0, a whole number (None: every core), not {workers!r}"
        )
    return workers


def check_owner(pid: int) -> None:
    """Raises `PoolClosed` in any process but that one, which made the executor."""
    if os.getpid() != pid:
        raise PoolClosed("this executor belongs to the process that made it: make a new one")


def report_of(
    call: Call,
    first: int,
    attempt: int,
    results: Results,
    *,
    worker: str,
    peak_memory: int = 0,
) -> Report:
    """The report for a runner's results of a chunk that begins at task ``first``."""
    values, folded = fold_results(call, first, results)
    return Report(
        first=first + results.offset,
        values=values,
        seconds=results.seconds,
        failed=tuple(first + offset for offset in results.failed),
        attempt=attempt,
        worker=worker,
        peak_memory=peak_memory,
        folded=folded,
        evidence=results.evidence,
    )


def _results_in_order(
    futures: deque[concurrent.futures.Future[Any]],
    more: Iterator[concurrent.futures.Future[Any]],
    deadline: float | None,
) -> Iterator[Any]:
    try:
        while futures:
            futures[0].result(None if deadline is None else max(0.0, deadline - monotonic()))
            futures.extend(islice(more, 1))
            yield futures.popleft().result()  # no name for it here: it is the caller's alone
    finally:
        for future in futures:
            future.cancel()


class Stream(ABC):
    """One call being run by an executor. Used from one thread, except `wake`."""

    @abstractmethod
    def send(self, chunk: Chunk) -> None:
        """Queue a chunk. Returns at once; a chunk that cannot be sent is reported as failed."""

    @abstractmethod
    def receive(self, timeout: float | None = None) -> Report | None:
        """The next report; None when ``timeout`` seconds passed or `wake` was called."""

    @abstractmethod
    def wake(self) -> None:
        """Make a `receive` that waits in another thread, or else the next one, return None."""

    @abstractmethod
    def close(self) -> None:
        """Drop what has not started, stop what runs (where it can be stopped), free the call."""

    def awaits_before(self, index: int) -> bool:
        """Is a task below ``index``, which was sent, still to be reported? Asked where ``batch`` is
        true: reports come in any order there."""
        return False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class MailboxStream(Stream):
    """A stream whose reports come in another thread, by ``self._reports.put``."""

    def __init__(self, call: Call) -> None:
        self._reports: Mailbox[Report | None] = Mailbox()
        self._of = call

    def receive(self, timeout: float | None = None) -> Report | None:
        try:
            return self._reports.get(timeout=timeout)
        except queue.Empty:
            return None

    def wake(self) -> None:
        self._reports.put(None)

    def _refuse(self, chunk: Chunk, error: NotSerializable) -> None:
        """Report the task that cannot be sent; send the others."""
        if len(chunk) > 1:
            for offset, item in enumerate(chunk.items):
                self.send(Chunk(chunk.first + offset, [item], chunk.attempt))
            return
        error.index = chunk.first
        task = self._of.describe(chunk.first, chunk.items[0])
        error.add_note(f"fanfold: {task}, attempt {chunk.attempt}")
        self._reports.put(
            Report(chunk.first, [error], failed=(chunk.first,), attempt=chunk.attempt)
        )


class Executor(concurrent.futures.Executor, ABC):
    """A place where tasks run.

    ``name`` is what ``on=`` takes; ``workers`` how many tasks run at once; ``inline`` is true
    where tasks run in the caller's own thread, inside `Stream.receive`; ``batch`` where they are
    run together, so that all of them should be sent before the first is waited for. ``stride`` is
    how long the tasks of a chunk should take together at least, in seconds: more where the way is
    long; ``first_chunk`` how many tasks the first chunks hold, when nothing is measured yet.
    """

    name: ClassVar[str]
    inline: ClassVar[bool] = False
    batch: ClassVar[bool] = False
    stride: ClassVar[float] = 0.01
    first_chunk: int = 1
    workers: int

    @abstractmethod
    def open(self, call: Call) -> Stream:
        """Begin a call: its function is sent to the workers once, and its chunks run there."""

    def activity(self) -> list[Activity]:
        """What each worker is doing now, as far as that is known."""
        return []

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """`concurrent.futures.Executor.map`: results in order, all calls submitted at once.

        With ``buffersize`` at most so many calls are ahead of the result that is asked for, and
        the inputs may be endless. ``chunksize`` is accepted and not needed: small calls travel
        together anyway. Raises `TimeoutError` when a result is not there ``timeout`` seconds after
        this call.
        """
        if chunksize < 1:
            raise UsageError(f"chunksize must be 1 or more, not {chunksize!r}")
        if buffersize is not None and buffersize < 1:
            raise UsageError(f"buffersize must be 1 or more, or None, not {buffersize!r}")
        deadline = None if timeout is None else monotonic() + timeout
        inputs = zip(*iterables, strict=False)
        ahead = islice(inputs, buffersize) if buffersize else inputs
        futures = deque(self.submit(fn, *args) for args in ahead)
        # Only a map that goes on submitting may keep the executor alive.
        more = (self.submit(fn, *args) for args in inputs) if buffersize else iter(())
        return _results_in_order(futures, more, deadline)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be sent to a worker: its workers belong to the "
            "process that made it. Inside a task, make a new one or call ff.map."
        )
