"""Runs the tasks of one chunk, in any executor's worker.

A runner can be read and cut while it works: another thread may take the results so far, and take
back the tasks that have not begun, so that nothing waits behind a long neighbour.

Tasks that take microseconds would drown in bookkeeping. They are run in slices by `map` in C, as
fast as ``list(map(func, items))``; everything else is run, timed and guarded one by one.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fanfold.folding import fold
from fanfold.seeds import task_stream
from fanfold.tasks import Call, Evidence

if TYPE_CHECKING:
    from fanfold.executors.work.evidence import Tracker

__all__ = ["Mark", "Results", "Runner", "fold_results", "noted"]

_HERE = os.path.dirname(os.path.dirname(__file__))  # all executors
_TINY = 5e-6  # seconds; tasks shorter than this on average are run in slices
_SLICE = 1e-3  # seconds of work in a slice
_SAMPLE = 8  # tasks timed one by one before the first slice


class Mark(Protocol):
    """Where a runner writes which tasks run now, for whoever must name them if the worker dies."""

    def __call__(self, offset: int, count: int, began: float) -> None: ...


class Results(NamedTuple):
    """Results not taken before: ``values[i]`` is of the task at ``offset + i`` of the chunk.

    ``evidence`` names tasks by their index in the map, not in the chunk.
    """

    offset: int
    values: list[Any]
    failed: tuple[int, ...]
    seconds: list[float] | float
    evidence: Sequence[Evidence] = ()


def _no_mark(offset: int, count: int, began: float) -> None:
    pass


class Runner:
    """The tasks ``start`` ... ``stop - 1`` of a chunk, being run.

    ``worker`` is named in the note that a failing task's exception gets. ``escapes`` are exceptions
    that are not the task's: Ctrl-C, where tasks run in the caller's own thread. ``tracker`` takes
    evidence; once tasks print, they are run one by one, so that it is known which of them did.
    """

    def __init__(
        self,
        call: Call,
        first: int,
        items: Sequence[Any],
        *,
        attempt: int = 1,
        start: int = 0,
        stop: int | None = None,
        worker: str = "",
        mark: Mark = _no_mark,
        escapes: tuple[type[BaseException], ...] = (),
        tracker: Tracker | None = None,
    ) -> None:
        self.call = call
        self.first = first
        self.items = items
        self.attempt = attempt
        self.start = start
        self.stop = len(items) if stop is None else stop
        self.began = 0.0  # when the running task began, by perf_counter; 0 between tasks
        self._worker = worker
        self._mark = mark
        self._escapes = escapes
        self._tracker = tracker
        self._lock = threading.Lock()
        self._values: list[Any] = []
        self._failed: list[int] = []
        self._times: list[float] = []
        self._slice_time = 0.0
        self._until = math.inf
        self._begun = start  # tasks before this offset have begun
        self._taken = 0

    @property
    def offset(self) -> int:
        """The offset of the running (or else the next) task in the chunk."""
        return self.start + len(self._values)

    def index(self) -> int:
        """The index of the running task in the map."""
        with self._lock:
            return self.first + self.offset

    def run(self, seconds: float = math.inf) -> None:
        """Run the tasks up to ``stop``, which `cut` may lower meanwhile.

        No task is begun when ``seconds`` have passed; another `run` goes on from there.
        """
        entropy = self.call.entropy
        if self._tracker is not None:
            self._tracker.begin()
        self._until = perf_counter() + seconds
        if entropy is None:
            self._run()
        else:
            with task_stream(lambda: (entropy, self.index())):
                self._run()

    def _run(self) -> None:
        pace = self._one_by_one(self.offset + _SAMPLE)
        while self.offset < self.stop and perf_counter() < self._until:
            if pace >= _TINY or self._apart():
                pace = self._one_by_one(self.stop)
            else:
                pace = self._in_slices(pace)

    def _apart(self) -> bool:
        """Must tasks be run one by one, however tiny they are?"""
        printed = self._tracker is not None and self._tracker.printed
        return printed or self.call.timeout is not None

    def _one_by_one(self, end: int) -> float:
        """Run tasks up to ``end``; returns the mean seconds of the last few."""
        invoke = _invoker(self.call)
        values, times, mark, tracker = self._values, self._times, self._mark, self._tracker
        while True:
            with self._lock:
                offset = self.start + len(values)
                if offset >= self.stop or offset >= end or perf_counter() > self._until:
                    return sum(times[-_SAMPLE:]) / max(1, len(times[-_SAMPLE:]))
                self._begun = offset + 1
            self.began = began = perf_counter()
            mark(offset, 1, began)
            try:
                value = invoke(self.items[offset])
            except BaseException as error:  # noqa: BLE001 - SystemExit too is only this task's end
                value = self._failure(error, offset)
            times.append(perf_counter() - began)
            self.began = 0.0
            if tracker is None:
                values.append(value)
            else:
                with self._lock:
                    values.append(value)
                    tracker.end(self.first + offset + 1)

    def _in_slices(self, pace: float) -> float:
        """Run slices by `map` in C while tasks stay tiny; returns the last mean seconds a task."""
        values, tracker = self._values, self._tracker
        while pace < 4 * _TINY and perf_counter() < self._until and not self._apart():
            size = max(_SAMPLE, int(_SLICE / max(pace, 1e-8)))
            with self._lock:
                offset = self.start + len(values)
                end = self._begun = min(offset + size, self.stop)
            if offset == end:
                break
            self.began = began = perf_counter()
            self._mark(offset, end - offset, began)
            self._run_slice(end)
            elapsed = perf_counter() - began
            self.began = 0.0
            if tracker is not None:
                with self._lock:
                    tracker.end_slice(self.first + end)
            self._slice_time += elapsed
            pace = elapsed / (end - offset)
        return pace

    def _run_slice(self, end: int) -> None:
        values, count = self._values, end - self.start
        while len(values) < count:
            try:
                # extend keeps what it got before an exception, so the length tells who raised
                values.extend(_results(self.call, self.items[self.start + len(values) : end]))
            except BaseException as error:  # noqa: BLE001
                values.append(self._failure(error, self.start + len(values)))

    def _failure(self, error: BaseException, offset: int) -> BaseException:
        if isinstance(error, self._escapes):
            raise error
        self._failed.append(offset)
        task = self.call.describe(self.first + offset, self.items[offset])
        return noted(error, f"fanfold: {task}, attempt {self.attempt}, {self._worker}")

    def unfinished(self) -> Evidence | None:
        """The evidence so far of the task that runs now, where it is taken; for another thread."""
        index = self.first + self.offset
        return None if self._tracker is None else self._tracker.unfinished(index)

    def cut(self) -> int:
        """Let no further task begin; returns the offset from which tasks will not be run."""
        with self._lock:
            self.stop = min(self.stop, max(self._begun, self.start))
            return self.stop

    def take(self) -> Results | None:
        """The results since the last `take`; None when there are none."""
        with self._lock:
            begin, end = self._taken, len(self._values)
            if begin == end:
                return None
            values = self._values[begin:end]
            self._values[begin:end] = [None] * (end - begin)  # let go of large results
            offset = self.start + begin
            failed = tuple(i for i in self._failed if offset <= i < self.start + end)
            self._taken = end
            seconds = self._take_seconds(begin, end)
            if self._tracker is None:
                return Results(offset, values, failed, seconds)
            evidence = self._tracker.take(self.first + self.start + end)
            return Results(offset, values, failed, seconds, evidence)

    def take_all(self) -> Results:
        """`take` after `run`, which leaves at least one result."""
        results = self.take()
        return results if results is not None else Results(self.start, [], (), 0.0)

    def _take_seconds(self, begin: int, end: int) -> list[float] | float:
        if self._slice_time or len(self._times) < end:
            total = sum(self._times) + self._slice_time
            self._times[:] = [0.0] * len(self._times)
            self._slice_time = 0.0
            return total
        return self._times[begin:end]


def fold_results(call: Call, first: int, results: Results) -> tuple[list[Any], int]:
    """The values to report and how many tasks were folded into them (0: none).

    A reduction that raises is left to dispatch, which raises it where the user can see it.
    """
    if call.fold is None or results.failed:
        return results.values, 0
    try:
        return fold(call.fold, first + results.offset, results.values), len(results.values)
    except Exception:  # noqa: BLE001
        return results.values, 0


def _invoker(call: Call) -> Callable[[Any], Any]:
    func = call.func
    if call.style == "one":
        return func
    if call.style == "star":
        return lambda item: func(*item)
    if call.style == "keywords":
        return lambda item: func(**item)
    return lambda item: func(*item[0], **item[1])


def _results(call: Call, items: Iterable[Any]) -> Iterator[Any]:
    if call.style == "star":
        return starmap(call.func, items)
    return map(_invoker(call), items)


def noted(error: BaseException, note: str) -> BaseException:
    """A task's exception with a note that names the task; its traceback begins in user code."""
    with contextlib.suppress(Exception):  # a class may refuse notes
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_HERE):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)
