"""Tasks, the chunks they travel in, and the reports that come back: small plain records.

A `Call` is what all tasks of one map share. A `Chunk` is consecutive tasks of it, sent together.
A `Report` says how some tasks of a chunk ended; every task is reported exactly once an attempt.

No dataclasses: importing them is a fifth of the time in which a cold pool gives its first result.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["Call", "Chunk", "MapFinished", "MapStarted", "Outcome", "Report", "short_repr"]

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
    change while the call runs, so that an array passed twice need not be compared.
    """

    __slots__ = ("entropy", "fold", "func", "stable", "style", "timeout")

    def __init__(
        self,
        func: Callable[..., Any],
        style: Style = "one",
        entropy: int | None = None,
        timeout: float | None = None,
        fold: Callable[[Any, Any], Any] | None = None,
        stable: bool = False,
    ) -> None:
        self.func = func
        self.style = style
        self.entropy = entropy
        self.timeout = timeout
        self.fold = fold
        self.stable = stable

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


class Report:
    """How tasks ``first`` ... ``first + len(values) - 1`` ended.

    A failed task has its exception in ``values`` and its index in ``failed``. ``seconds`` are the
    run times one by one, or their sum where tasks were too short to be timed apart.
    ``peak_memory`` is the worker's largest resident size so far, in bytes. Where the call has a
    ``fold``, ``values`` may be the nodes of that many ``folded`` tasks instead.
    """

    __slots__ = (
        "attempt", "failed", "first", "folded", "peak_memory", "seconds", "values", "worker",
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
    ) -> None:
        self.first = first
        self.values = values
        self.seconds = seconds
        self.failed = failed
        self.attempt = attempt
        self.worker = worker
        self.peak_memory = peak_memory
        self.folded = folded

    def __len__(self) -> int:
        return self.folded or len(self.values)

    @property
    def work_time(self) -> float:
        """Run time of all tasks of the report together, in seconds."""
        return self.seconds if isinstance(self.seconds, float) else sum(self.seconds)

    def outcomes(self) -> Iterator[Outcome]:
        """One `Outcome` a task.

        >>> [o.ok for o in Report(5, [1, ZeroDivisionError()], [0.1, 0.2], failed=(6,)).outcomes()]
        [True, False]
        """
        count = len(self.values)
        times = self.seconds
        seconds = [times / count] * count if isinstance(times, float) else times
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


class MapStarted(NamedTuple):
    """A map begins: ``total`` tasks (None when not known) on ``workers`` workers of ``place``."""

    total: int | None
    workers: int
    place: str


class MapFinished(NamedTuple):
    """A map is over, whether it ended well, raised or was interrupted."""

    interrupted: bool = False
