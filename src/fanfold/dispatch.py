"""Drives any executor: draws the inputs, sizes the chunks, retries, keeps order and bounds.

Nothing has to be tuned. The first chunks hold one task; then a chunk is as long as makes it worth
its way, and never so long that the workers could not share what is left.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from time import monotonic, perf_counter
from typing import Any

from fanfold.executors.base import Executor, Stream
from fanfold.inputs import Source, source_of
from fanfold.tasks import Call, Chunk, MapFinished, MapStarted, Report, TaskRetried

__all__ = ["Dispatch", "Event", "Listener"]

Event = MapStarted | Report | TaskRetried | MapFinished
Listener = Callable[[Event], None]

_WORTH = 0.0005  # seconds of work below which a chunk is not worth its way
_CHEAP = 0.05  # of the work, below which sending is cheap, and what is sent small
_LONG = 0.04  # seconds of work in a chunk then: each takes half a millisecond from busy cores
_SHORT = 0.004  # seconds of a task then: a death that repeats many longer ones costs more
_FADING = 0.8  # how much of what the slowest took still counts, a report later
_GROWTH = 16  # how much larger than the largest so far a chunk may be
_LONGEST = 1 << 16  # tasks in a chunk
_AHEAD = 3  # chunks on their way, a worker
_BATCH = 1000  # tasks in a chunk, where all of them are wanted at once
_BATCHES = 100  # chunks beyond the consumer there, where tasks are drawn as they are needed
_WINDOW = 4  # tasks beyond the consumer, a worker, at least
_GRACE = 0.2  # seconds for earlier tasks to fail too, so that the same failure is raised each time
_QUIET = 0.5  # seconds without a report until the listeners are told of that


class Dispatch:
    """One map on its way through an executor.

    ``raises`` ends it at the first failure. ``ordered`` gives reports in the order of the inputs.
    ``bounded`` limits how many tasks may be drawn beyond those the consumer has taken, so that
    endless inputs and slow consumers need no more than that in memory, and draws inputs that come
    one by one in a thread of their own, so that they do not hold up results.
    """

    def __init__(
        self,
        executor: Executor,
        call: Call,
        inputs: Iterable[Any],
        *,
        chunk: int | None = None,
        retries: int = 0,
        raises: bool = False,
        ordered: bool = False,
        bounded: bool = False,
        only: Sequence[range] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._executor = executor
        self._call = call
        self._inputs = inputs
        self._retries = retries
        self._raises = raises
        self._ordered = ordered
        self._bounded = bounded
        self._only = only
        self._listeners = listeners
        self._total = _total(inputs, only)
        self._sizes = _ChunkSizes(executor, chunk)
        self._drawn = 0  # tasks sent so far
        self._taken = 0  # tasks whose report the consumer has taken
        self._travelling: dict[Chunk, int] = {}  # and how many of its tasks are not reported

    def reports(self) -> Iterator[Report]:
        """The reports: each task is in exactly one of them, after its last attempt."""
        interrupted = True
        try:
            with self._executor.open(self._call) as stream:
                apart = self._bounded and not self._executor.inline
                wake = stream.wake if apart else None
                source = source_of(self._inputs, only=self._only, wake=wake)
                try:
                    reports = self._drive(stream, source)
                    yield from self._in_order(reports) if self._ordered else self._counted(reports)
                finally:
                    source.close()
            interrupted = False
        finally:
            self._tell(MapFinished(interrupted))

    def _counted(self, reports: Iterator[Report]) -> Iterator[Report]:
        for report in reports:
            yield from self._taken_by_consumer(report)

    def _in_order(self, reports: Iterator[Report]) -> Iterator[Report]:
        early: dict[int, Report] = {}
        for report in reports:
            early[report.first] = report
            while self._taken in early:
                yield from self._taken_by_consumer(early.pop(self._taken))

    def _taken_by_consumer(self, report: Report) -> Iterator[Report]:
        began = perf_counter()
        yield report
        self._sizes.learn_taking(perf_counter() - began, len(report))
        self._taken += len(report)

    def _drive(self, stream: Stream, source: Source) -> Iterator[Report]:
        self._send(stream, source)
        # Told now, when workers and threads are there: from here on the map goes its way.
        self._tell(MapStarted(self._total, self._executor.workers, self._executor.name))
        while self._travelling or not source.ended:
            try:
                report = stream.receive(_QUIET if self._listeners else None)
            except KeyboardInterrupt:
                yield from self._what_has_come(stream)
                raise
            finals = [] if report is None else self._settle(stream, report)
            self._send(stream, source)  # before the consumer takes its time with the results
            for final in finals:
                self._tell(final)
                yield final
            if report is None:
                self._tell(Report(0, []))
            elif self._bounded:
                self._send(stream, source)
        if source.error is not None:
            raise source.error

    def _what_has_come(self, stream: Stream) -> Iterator[Report]:
        """Results that are here already: an interrupt must not lose them."""
        while not self._executor.inline and (report := stream.receive(0)) is not None:
            self._arrived(report)
            self._tell(report)
            yield report

    def _send(self, stream: Stream, source: Source) -> None:
        """Keep the workers busy, within the window."""
        while len(self._travelling) < self._sizes.ahead and not source.ended:
            size = self._sizes.next(None if self._total is None else self._total - self._drawn)
            if self._bounded:
                size = min(size, self._sizes.window - (self._drawn - self._taken))
            began = perf_counter()
            first = source.position
            items = source.draw(size) if size > 0 else []
            if not items:
                return
            self._dispatch(stream, Chunk(first, items))
            self._drawn += len(items)
            self._sizes.learn_sending(perf_counter() - began, len(items))

    def _dispatch(self, stream: Stream, chunk: Chunk) -> None:
        self._travelling[chunk] = len(chunk)
        stream.send(chunk)

    def _settle(self, stream: Stream, report: Report) -> list[Report]:
        """Send the failed again while they may be retried; what is left is final."""
        self._sizes.learn(report)
        chunk = self._arrived(report)
        if not report.failed:
            return [report]
        if report.attempt > self._retries:
            if self._raises:
                raise self._earliest_failure(stream, report)
            return [report]
        for index in report.failed:
            if self._listeners:
                self._tell(TaskRetried(report.part(index, index + 1)))
            item = chunk.items[index - chunk.first]
            self._dispatch(stream, Chunk(index, [item], report.attempt + 1))
        return list(_without(report, report.failed))

    def _arrived(self, report: Report) -> Chunk:
        """Account for a report; the chunk that it is of."""
        for chunk, left in self._travelling.items():
            inside = chunk.first <= report.first < chunk.first + len(chunk)
            if inside and chunk.attempt == report.attempt:
                if left > len(report):
                    self._travelling[chunk] = left - len(report)
                else:
                    del self._travelling[chunk]
                return chunk
        raise RuntimeError(f"a report for task {report.first}, which is not on its way")

    def _earliest_failure(self, stream: Stream, report: Report) -> BaseException:
        """The failure of the lowest index, as far as that can be known soon. Job arrays tell of
        their elements in no order: there it is known when the tasks before it have ended."""
        index, error = _first_failure(report)
        deadline = math.inf if self._executor.batch else monotonic() + _GRACE
        while self._awaits_before(stream, index):
            left = deadline - monotonic()
            if left <= 0:
                break
            other = stream.receive(min(left, _QUIET))
            self._tell(Report(0, []) if other is None else other)
            if other is None:
                continue
            self._arrived(other)
            if other.failed and other.attempt > self._retries and min(other.failed) < index:
                index, error = _first_failure(other)
        return error

    def _awaits_before(self, stream: Stream, index: int) -> bool:
        """May a task before this one still be reported?"""
        if self._executor.batch:
            return stream.awaits_before(index)
        return any(  # in a chunk as many tasks are to come as may be before it
            chunk.first < index and len(chunk) - left < index - chunk.first
            for chunk, left in self._travelling.items()
        )

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


class _ChunkSizes:
    """How many tasks the next chunk holds, from how long tasks have taken."""

    def __init__(self, executor: Executor, fixed: int | None) -> None:
        self._executor = executor  # which may change, on="auto"
        self._fixed = fixed
        self._largest = 1
        self._pace: float | None = None  # seconds a task, its sending included
        self._slowest = 0.0  # the pace of the slowest chunk lately
        self._sending = 0.0
        self._taking = 0.0  # seconds that the consumer takes for a result
        self._target = executor.stride

    @property
    def ahead(self) -> int:
        """How many chunks may be on their way."""
        if self._executor.batch:
            return sys.maxsize
        return 1 if self._executor.inline else _AHEAD * self._executor.workers

    @property
    def window(self) -> int:
        """How many tasks may be beyond the consumer."""
        if self._executor.batch:
            return _BATCHES * _BATCH
        return max(_WINDOW * self._executor.workers, self.ahead * self._largest)

    def next(self, left: int | None) -> int:
        """The size of the next chunk when ``left`` tasks are left (None: unknown)."""
        if self._fixed is not None:
            return self._fixed
        if self._executor.batch:
            return _BATCH
        if self._pace is None:
            return self._executor.first_chunk
        pace = max(self._pace, self._sending, 1e-8)
        cheap = self._sending < _CHEAP * pace and not self._executor.inline
        target = max(self._target, _LONG) if cheap and self._slowest < _SHORT else self._target
        size = min(target / max(pace, self._taking), self._largest * _GROWTH, _LONGEST)
        if left is not None:
            fair = math.ceil(left / (2 * self._executor.workers))
            size = min(size, max(fair, _WORTH / pace))
        return max(1, int(size))

    def learn(self, report: Report) -> None:
        pace = report.work_time / len(report)
        self._pace = pace if self._pace is None else (self._pace + pace) / 2
        self._slowest = max(pace, _FADING * self._slowest)
        self._largest = max(self._largest, len(report))

    def learn_sending(self, seconds: float, tasks: int) -> None:
        self._sending = (self._sending + seconds / tasks) / 2

    def learn_taking(self, seconds: float, tasks: int) -> None:
        self._taking = (self._taking + seconds / tasks) / 2


def _total(inputs: Iterable[Any], only: Sequence[range] | None) -> int | None:
    """How many tasks there are; None when that is not known."""
    if only is not None:
        return sum(map(len, only))
    return len(inputs) if isinstance(inputs, Sized) else None


def _first_failure(report: Report) -> tuple[int, BaseException]:
    index = min(report.failed)
    error: BaseException = report.values[index - report.first]
    return index, error


def _without(report: Report, indices: Sequence[int]) -> Iterator[Report]:
    """The parts of a report between the given tasks."""
    begin = report.first
    for border in [*sorted(indices), report.first + len(report)]:
        if border > begin:
            yield report.part(begin, border)
        begin = border + 1
