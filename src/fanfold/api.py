"""The front door: map, starmap, imap, map_reduce, executor."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack
from typing import Any, Literal, NoReturn, TypeVar

from fanfold.costs import Cost, longest_first, read_costs
from fanfold.dispatch import Dispatch, Listener
from fanfold.errors import UsageError
from fanfold.executors import registry
from fanfold.executors.base import Executor, worker_count
from fanfold.folding import Fold, fold
from fanfold.inputs import readable
from fanfold.progress import listener as progress_listener
from fanfold.seeds import new_entropy
from fanfold.tasks import Call, Report, Style

__all__ = [
    "check_callable",
    "check_options",
    "executor",
    "imap",
    "imap_unordered",
    "map",
    "map_reduce",
    "reports",
    "starmap",
]

T = TypeVar("T")
Errors = Literal["raise", "return"]
_MISSING: Any = object()


def map(  # noqa: A001 - ff.map is the promise of the public face
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Errors = "raise",
    seed: int | None = None,
    progress: bool | None = None,
    cost: Cost | None = None,
) -> list[T]:
    """``list(map(func, *iterables))``, on many workers: results in the order of the inputs.

    Parameters:
        func: any callable: lambdas, closures and functions of a notebook too.
        iterables: the inputs; with several, ``func`` gets one of each, until the shortest ends.
        on: the place: "auto", "serial", "threads", "interpreters", "processes", "mpi", "dask",
            "ipyparallel", "slurm" or "pbs"; or an executor, ours or any other
            `concurrent.futures.Executor`, or a client of Dask or ipyparallel. "auto" runs the first
            tasks in the caller's own thread and goes where it pays, by what they used; with a
            ``timeout``, to processes at once. ("auto", "slurm") allows it a scheduler too, by name
            or as an `ArrayExecutor`.
        workers: how many tasks run at once; by default `cores`.
        chunk: how many tasks are sent together; found by itself, and almost never needed.
        retries: how often a failed task is tried again.
        timeout: seconds that one task may take; its worker is then killed and replaced.
        errors: "raise" raises the first failure and stops the rest; "return" puts the exceptions
            in the list, in place of the results.
        seed: keys the random numbers of `rng`: the same for any place and number of workers.
        progress: True or False; by default a bar in a terminal once the map lasts a while.
        cost: how long each task takes, in any unit: a function of the input, or a number for each.
            The longest begin first then; the results are the same, and in the same order.

    Raises the task's own exception, with its remote traceback as the cause and a note that names
    the task; `TaskError` where the task did not end by itself; `UsageError` for wrong options.

    >>> import fanfold as ff
    >>> ff.map(lambda x: x ** 2, [1, 2, 3])
    [1, 4, 9]
    >>> ff.map(int, ["1", "two"], errors="return", on="threads")
    [1, ValueError("invalid literal for int() with base 10: 'two'")]
    """
    inputs, style = _inputs(func, iterables)
    return _collect(
        _Map(
            func, inputs, style, on, workers, chunk, retries, timeout, errors, seed, progress,
            cost=cost,
        )
    )  # fmt: skip


def starmap(
    func: Callable[..., T],
    argument_tuples: Iterable[Iterable[Any]],
    /,
    *,
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Errors = "raise",
    seed: int | None = None,
    progress: bool | None = None,
    cost: Cost | None = None,
) -> list[T]:
    """`map` of inputs that are tuples of arguments, as `itertools.starmap`.

    >>> import fanfold as ff
    >>> ff.starmap(pow, [(2, 5), (3, 2)], on="threads")
    [32, 9]
    """
    check_callable(func)
    return _collect(
        _Map(
            func, argument_tuples, "star", on, workers, chunk, retries, timeout, errors, seed,
            progress, cost=cost,
        )
    )  # fmt: skip


def imap(
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Errors = "raise",
    seed: int | None = None,
    progress: bool | None = None,
) -> Iterator[T]:
    """`map` as an iterator: results in order, as they come; the inputs may be endless.

    Only a few tasks are drawn beyond the result that is asked for, so memory stays bounded.
    Leaving the loop cancels the rest. A failure is raised in its place, after the results before
    it. The options are those of `map`.

    >>> import fanfold as ff
    >>> from itertools import count
    >>> for square in ff.imap(lambda x: x * x, count(), on="threads"):
    ...     if square > 10:
    ...         break
    >>> square
    16
    """
    inputs, style = _inputs(func, iterables)
    return _values(
        _Map(func, inputs, style, on, workers, chunk, retries, timeout, errors, seed, progress),
        ordered=True,
    )


def imap_unordered(
    func: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Errors = "raise",
    seed: int | None = None,
    progress: bool | None = None,
) -> Iterator[T]:
    """`imap`, each result as soon as it is there.

    >>> import fanfold as ff
    >>> sorted(ff.imap_unordered(abs, [-3, -1, -2], on="threads"))
    [1, 2, 3]
    """
    inputs, style = _inputs(func, iterables)
    return _values(
        _Map(func, inputs, style, on, workers, chunk, retries, timeout, errors, seed, progress),
        ordered=False,
    )


def map_reduce(
    func: Callable[..., Any],
    iterable: Iterable[Any],
    /,
    reduce: Callable[[Any, Any], Any] = operator.add,
    *,
    initial: Any = _MISSING,
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Any:
    """The results of ``func`` folded into one by ``reduce``, mostly in the workers.

    ``reduce`` must be associative: ``reduce(reduce(a, b), c) == reduce(a, reduce(b, c))``, as far
    as its numbers are exact. It follows a fixed tree (`fanfold.folding`), so that even sums of
    floats are bit-identical for any place and any number of workers. ``initial`` comes first, and
    is the result when there are no inputs; without it that is a `TypeError`, as in
    `functools.reduce`. The other options are those of `map`.

    >>> import fanfold as ff
    >>> ff.map_reduce(lambda x: x * x, range(10), on="threads")
    285
    >>> ff.map_reduce(str, range(5), lambda a, b: a + b, on="threads")
    '01234'
    """
    check_callable(func)
    if not callable(reduce):
        raise UsageError(f"reduce must be a function of two results, not {reduce!r}")
    asked = _Map(
        func, iterable, "one", on, workers, chunk, retries, timeout, "raise", seed, progress,
        reduce,
    )  # fmt: skip
    tree = Fold(reduce)
    for report in asked.reports(raises=True):
        tree.add(report.values if report.folded else fold(reduce, report.first, report.values))
    if not tree:
        if initial is _MISSING:
            raise TypeError("map_reduce() of no inputs, and no initial= to return instead")
        return initial
    return tree.result() if initial is _MISSING else reduce(initial, tree.result())


def executor(name: str, workers: int | None = None, **options: Any) -> Executor:
    """An executor by name, one of those that ``on=`` takes; a `concurrent.futures.Executor`.

    ``workers`` and the other options are those of its class. "auto" is processes here: of single
    calls nothing can be measured before they are made.

    >>> import fanfold as ff
    >>> with ff.executor("threads", workers=2) as pool:
    ...     pool.submit(pow, 2, 3).result(), ff.map(abs, [-1, -2], on=pool)
    (8, [1, 2])
    """
    if not isinstance(name, str):
        raise UsageError(f'executor() takes a name such as "processes", not {name!r}')
    return registry.make("processes" if name == "auto" else name, workers, **options)


def reports(
    func: Callable[..., Any],
    inputs: Iterable[Any],
    *,
    style: Style = "one",
    on: Any = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Errors = "return",
    seed: int | None = None,
    progress: bool | None = None,
    only: Sequence[range] | None = None,
    evidence: str | None = None,
    listeners: Sequence[Listener] = (),
    cost: Cost | None = None,
) -> Generator[Report, None, None]:
    """`map` for programs that want to know how each task ended: its reports as they arrive.

    ``only`` are ranges of indices of a sequence of inputs: the others are not run. They begin in
    this order, unless there is a ``cost``.
    ``evidence`` begins the names of the files that get what the tasks print (see
    `fanfold.tasks.Call`). ``listeners`` are called with all events, before the bar.

    >>> [r.worker for r in reports(abs, [-1], on="serial")]
    ['serial']
    """
    check_callable(func)
    asked = _Map(
        func, inputs, style, on, workers, chunk, retries, timeout, errors, seed, progress, cost=cost
    )
    asked.call.evidence = evidence
    asked.listeners[:0] = listeners
    return asked.reports(raises=errors == "raise", only=only)


class _Map:
    """The checked options of a map, and the way to its reports."""

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Iterable[Any],
        style: Style,
        on: Any,
        workers: int | None,
        chunk: int | None,
        retries: int,
        timeout: float | None,
        errors: str,
        seed: int | None,
        progress: bool | None,
        reduce: Callable[[Any, Any], Any] | None = None,
        cost: Cost | None = None,
    ) -> None:
        check_options(chunk, retries, timeout, errors, seed)
        self._inputs = readable(inputs)
        costs = None
        if cost is not None:
            self._inputs = given = list(self._inputs)
            costs = read_costs(cost, given, style)
        self.total = len(self._inputs) if isinstance(self._inputs, Sized) else None
        self._on = "processes" if on == "auto" and timeout is not None else on
        self._workers = workers if workers is None else worker_count(workers, 1)
        self._chunk = chunk
        self._retries = retries
        self.raises = errors == "raise"
        self.call = Call(
            func,
            style,
            entropy=new_entropy() if seed is None else seed,
            timeout=timeout,
            fold=reduce,
            stable=isinstance(inputs, (list, tuple, range)),
            costs=costs,
        )
        self.listeners: list[Listener] = [] if progress is False else [progress_listener(progress)]
        registry.check(self._on)

    def reports(
        self,
        *,
        raises: bool,
        ordered: bool = False,
        bounded: bool = False,
        only: Sequence[range] | None = None,
    ) -> Generator[Report, None, None]:
        with ExitStack() as stack:
            place, owned = registry.resolve(self._on, self._workers, self.total)
            if owned:
                stack.callback(place.shutdown, wait=True)
            costs = self.call.costs
            if costs is not None and not place.batch:
                tasks = [range(len(costs))] if only is None else only
                only = longest_first(costs, tasks, place.workers)
            dispatch = Dispatch(
                place,
                self.call,
                self._inputs,
                chunk=self._chunk,
                retries=self._retries,
                raises=raises,
                ordered=ordered,
                bounded=bounded,
                only=only,
                listeners=self.listeners,
            )
            yield from dispatch.reports()


def _collect(asked: _Map) -> list[Any]:
    values: list[Any] = [None] * (asked.total or 0)  # results go to their place as they come
    spans: list[tuple[int, int]] = []
    for report in asked.reports(raises=asked.raises):
        first, stop = report.first, report.first + len(report.values)
        values += [None] * (stop - len(values))
        values[first:stop] = report.values
        spans.append((first, stop))
    expected = 0
    for first, stop in sorted(spans):
        if first != expected:
            raise RuntimeError(f"the result of task {expected} is missing: please report this")
        expected = stop
    if expected != len(values):
        raise RuntimeError(f"the result of task {expected} is missing: please report this")
    return values


def _values(asked: _Map, *, ordered: bool) -> Iterator[Any]:
    for report in asked.reports(raises=False, ordered=ordered, bounded=True):
        for index, value in enumerate(report.values, report.first):
            if asked.raises and index in report.failed:
                raise value
            yield value


def _inputs(
    func: Callable[..., Any], iterables: tuple[Iterable[Any], ...]
) -> tuple[Iterable[Any], Style]:
    check_callable(func)
    if not iterables:
        _refuse("map() needs at least one iterable of inputs: ff.map(func, inputs)")
    if len(iterables) == 1:
        return iterables[0], "one"
    together = zip(*(readable(inputs) for inputs in iterables), strict=False)
    sized = all(isinstance(inputs, Sized) for inputs in iterables)
    return (list(together) if sized else together), "star"


def check_callable(func: object) -> None:
    """Raises `UsageError` for what is no function."""
    if not callable(func):
        _refuse(f"the first argument must be callable: the function to run, not {func!r}")


def check_options(
    chunk: object, retries: object, timeout: object, errors: object, seed: object
) -> None:
    """Raises `UsageError` for options of a map that make no sense."""
    if chunk is not None and (not _is_whole(chunk) or chunk < 1):  # type: ignore[operator]
        _refuse(f"chunk must be a whole number from 1, or None, not {chunk!r}")
    if not _is_whole(retries) or retries < 0:  # type: ignore[operator]
        _refuse(f"retries must be a whole number from 0, not {retries!r}")
    if timeout is not None and not _is_positive(timeout):
        _refuse(f"timeout must be a number of seconds above 0, or None, not {timeout!r}")
    if errors not in ("raise", "return"):
        _refuse(f"errors must be 'raise' or 'return', not {errors!r}")
    if seed is not None and (not _is_whole(seed) or seed < 0):  # type: ignore[operator]
        _refuse(f"seed must be a whole number from 0, or None, not {seed!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[operator,arg-type]


def _refuse(message: str) -> NoReturn:
    raise UsageError(message)
