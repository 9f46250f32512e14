"""Tasks, the chunks they travel in, and the reports that come back: small plain records.

A `Call` is what all tasks of one map share. A `Chunk` is consecutive tasks of it, sent together.
A `Report` says how some tasks of a chunk ended; every task is reported exactly once an attempt.

No dataclasses: importing them is a fifth of the time in which a cold pool gives its first result.
"""

from __future__ import annotations

import reprlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

__all__ = [
    "Activity",
    "Call",
    "Chunk",
    "Evidence",
    "LogRange",
    "MapFinished",
    "MapStarted",
    "Outcome",
    "Report",
    "Style",
    "TaskRetried",
    "log_paths",
    "short_repr",
]

Style = Literal["one", "star", "keywords", "both"]

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 60
_shortener.maxlist = _shortener.maxtuple = _shortener.maxdict = 4


def short_repr(value: object) -> str:
    """``repr`` in at most about 80 characters, on one line, that never raises.

    >>> short_repr(list(range(100)))
    '[0, 1, 2, 3, ...]'
    """
    try:
        text = " ".join(_shortener.repr(value).split())
    except BaseException as error:  # noqa: BLE001 - a broken repr must not hide the real failure
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


class Call:
    """What all tasks of one map share.

    ``style`` says how an item becomes arguments: ``"one"`` f(item), ``"star"`` f(*item),
    ``"keywords"`` f(**item), ``"both"`` f(*item[0], **item[1]). ``entropy`` keys the random
    streams. ``timeout`` is the limit of one task in seconds. ``fold``, when there is one, reduces
    the values before they travel (see `fanfold.folding`). ``stable`` promises that inputs do not
    change while the call runs, so that an array passed twice need not be compared. ``costs`` are
    what the tasks cost, where that is known (see `fanfold.costs`), for an executor that shares all
    of them out beforehand.

    ``evidence`` asks for `Evidence` of each task, and for what tasks print to go into files: each
    worker appends to two, whose names begin with it, an absolute path (see `log_paths`). None, the
    default, takes none, and costs nothing. The files are not capped: who prints a gigabyte gets
    a gigabyte.
    """

    __slots__ = ("costs", "entropy", "evidence", "fold", "func", "stable", "style", "timeout")

    def __init__(
        self,
        func: Callable[..., Any],
        style: Style = "one",
        entropy: int | None = None,
        timeout: float | None = None,
        fold: Callable[[Any, Any], Any] | None = None,
        stable: bool = False,
        evidence: str | None = None,
        costs: Sequence[float] | None = None,
    ) -> None:
        self.func = func
        self.style = style
        self.entropy = entropy
        self.timeout = timeout
        self.fold = fold
        self.stable = stable
        self.evidence = evidence
        self.costs = costs

    def describe(self, index: int, item: Any) -> str:
        """A task in words.

        >>> Call(abs).describe(3, -7), Call(pow, "both").describe(0, ((2, 3), {"mod": 5}))
        ('task 3, input -7', 'pow(2, 3, mod=5)')
        """
        if self.style != "both":
            return f"task {index}, input {short_repr(item)}"
        args, kwargs = item
        shown = [short_repr(value) for value in args]
        shown += [f"{key}={short_repr(value)}" for key, value in kwargs.items()]
        return f"{getattr(self.func, '__name__', 'the call')}({', '.join(shown)})"


class Chunk:
    """Consecutive tasks of one call: ``items[i]`` is the input of task ``first + i``."""

    __slots__ = ("attempt", "first", "items")

    def __init__(self, first: int, items: Sequence[Any], attempt: int = 1) -> None:
        self.first = first
        self.items = items
        self.attempt = attempt

    def __len__(self) -> int:
        return len(self.items)


class LogRange(NamedTuple):
    """Bytes of a worker's two log files: from ``out`` up to, not including, ``out_end``, and so on.

    >>> (part := LogRange(10, 25, 0, 0)).out_end - part.out
    15
    """

    out: int
    out_end: int
    err: int
    err_end: int


class Evidence(NamedTuple):
    """How consecutive tasks ran that were timed together: one, unless they are tiny.

    ``began`` is in seconds since 1970, ``seconds`` how long they ran. ``cpu_time`` is in seconds:
    of the worker process and of the processes that it waited for, or of the thread.
    ``peak_memory`` is the largest resident size of the worker process while they ran, in bytes
    (where the system cannot tell that: so far). ``log`` is what they printed. None: not known.
    """

    first: int
    count: int  # type: ignore[assignment]  # a name that tuples have too
    began: float
    seconds: float
    cpu_time: float | None
    peak_memory: int | None
    log: LogRange | None

    def part(self, first: int, stop: int) -> Evidence:
        """What tells of the tasks ``first`` ... ``stop - 1``: of the times their share.

        >>> Evidence(0, 4, 1e9, 0.2, 0.1, None, None).part(2, 9)
        Evidence(first=2, count=2, began=1000000000.0, seconds=0.1, cpu_time=0.05, peak_memory=None,
        log=None)
        """
        first, stop = max(first, self.first), min(stop, self.first + self.count)
        share = (stop - first) / self.count
        cpu_time = None if self.cpu_time is None else self.cpu_time * share
        return self._replace(
            first=first, count=stop - first, seconds=self.seconds * share, cpu_time=cpu_time
        )


def log_paths(prefix: str, worker: str) -> tuple[str, str]:
    """The files that get the standard output and error of a worker.

    ``prefix`` is that of the call; ``worker`` the name in the report, which ends with its number.

    >>> log_paths("/logs/e0-a1-", "worker 3"), log_paths("/logs/e0-a1-", "serial")
    (('/logs/e0-a1-w3.out', '/logs/e0-a1-w3.err'), ('/logs/e0-a1-w0.out', '/logs/e0-a1-w0.err'))
    """
    number = worker[len(worker.rstrip("0123456789")) :] or "0"
    return f"{prefix}w{number}.out", f"{prefix}w{number}.err"


class Report:
    """How tasks ``first`` ... ``first + len(values) - 1`` ended.

    A failed task has its exception in ``values`` and its index in ``failed``. ``seconds`` are the
    run times one by one, or their sum where tasks were too short to be timed apart.
    ``peak_memory`` is the worker's largest resident size so far, in bytes. Where the call has a
    ``fold``, ``values`` may be the nodes of that many ``folded`` tasks instead.

    ``evidence``, where the call asks for it, are pieces that follow one another and together tell
    of each task of the report; it is empty where nothing is known of them, as when they never ran.
    """

    __slots__ = (
        "attempt", "evidence", "failed", "first", "folded", "peak_memory", "seconds", "values",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        values: list[Any],
        seconds: list[float] | float = 0.0,
        failed: tuple[int, ...] = (),
        attempt: int = 1,
        worker: str = "",
        peak_memory: int = 0,
        folded: int = 0,
        evidence: Sequence[Evidence] = (),
    ) -> None:
        self.first = first
        self.values = values
        self.seconds = seconds
        self.failed = failed
        self.attempt = attempt
        self.worker = worker
        self.peak_memory = peak_memory
        self.folded = folded
        self.evidence = evidence

    def __len__(self) -> int:
        return self.folded or len(self.values)

    @property
    def work_time(self) -> float:
        """Run time of all tasks of the report together, in seconds."""
        return self.seconds if isinstance(self.seconds, float) else sum(self.seconds)

    def part(self, first: int, stop: int) -> Report:
        """The report of the tasks ``first`` ... ``stop - 1`` alone. It must not be folded.

        >>> report = Report(5, [1, ZeroDivisionError(), 2], [0.1, 0.2, 0.3], failed=(6,))
        >>> report.part(6, 7).outcomes().__next__().error
        ZeroDivisionError()
        """
        tasks = slice(first - self.first, stop - self.first)
        times, share = self.seconds, (stop - first) / len(self)
        return Report(
            first=first,
            values=self.values[tasks],
            seconds=times * share if isinstance(times, float) else times[tasks],
            failed=self.failed[bisect_left(self.failed, first) : bisect_left(self.failed, stop)],
            attempt=self.attempt,
            worker=self.worker,
            peak_memory=self.peak_memory,
            evidence=[piece.part(first, stop) for piece in self._pieces(first, stop)],
        )

    def _pieces(self, first: int, stop: int) -> Sequence[Evidence]:
        """The pieces that tell of some of the tasks."""
        begin = bisect_right(self.evidence, first, key=lambda piece: piece.first) - 1
        end = bisect_left(self.evidence, stop, key=lambda piece: piece.first)
        return self.evidence[max(begin, 0) : end]

    def outcomes(self) -> Iterator[Outcome]:
        """One `Outcome` a task.

        >>> [o.ok for o in Report(5, [1, ZeroDivisionError()], [0.1, 0.2], failed=(6,)).outcomes()]
        [True, False]
        """
        count = len(self.values)
        times = self.seconds
        seconds = [times / max(1, count)] * count if isinstance(times, float) else times
        for offset, value in enumerate(self.values):
            index = self.first + offset
            error = value if index in self.failed else None
            yield Outcome(
                index=index,
                value=None if error is not None else value,
                error=error,
                seconds=seconds[offset],
                attempt=self.attempt,
                worker=self.worker,
                peak_memory=self.peak_memory,
            )


class Outcome:
    """What one attempt at a task ended as."""

    __slots__ = ("attempt", "error", "index", "peak_memory", "seconds", "value", "worker")

    def __init__(
        self,
        index: int,
        value: Any,
        error: BaseException | None,
        seconds: float,
        attempt: int,
        worker: str,
        peak_memory: int,
    ) -> None:
        self.index = index
        self.value = value
        self.error = error
        self.seconds = seconds
        self.attempt = attempt
        self.worker = worker
        self.peak_memory = peak_memory

    @property
    def ok(self) -> bool:
        return self.error is None


class Activity(NamedTuple):
    """What a worker is doing: the task that it runs (None: none), and for how many seconds."""

    worker: str
    task: int | None
    seconds: float


class MapStarted(NamedTuple):
    """A map begins: ``total`` tasks (None when not known) on ``workers`` workers of ``place``."""

    total: int | None
    workers: int
    place: str


class TaskRetried(NamedTuple):
    """A task has failed, and is sent again: ``report`` is of that one task."""

    report: Report


class MapFinished(NamedTuple):
    """A map is over, whether it ended well, raised or was interrupted."""

    interrupted: bool = False
