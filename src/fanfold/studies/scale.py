"""`fanfold.scaling`: how much faster with more workers, and how many to take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, repeat, takewhile
from pathlib import Path
from typing import Any, get_args

from fanfold.errors import UsageError
from fanfold.resources import Resources, cores
from fanfold.runs.begin import run
from fanfold.runs.run import FOLDER
from fanfold.schedulers.registry import SCHEDULERS
from fanfold.store.directory import next_name
from fanfold.studies.measure import Measured, Tell, measure, name_of
from fanfold.studies.model import Mode
from fanfold.studies.study import ScalingStudy
from fanfold.tasks import Style

__all__ = ["PLACES", "scaling"]

PLACES = ("processes", "threads", "interpreters", "mpi", "dask", "ipyparallel", *SCHEDULERS)


def scaling(
    func: Callable[..., Any],
    inputs: Iterable[Any],
    workers: Sequence[int] | None = None,
    repeats: int = 5,
    mode: Mode = "strong",
    on: str = "processes",
    *,
    resources: Resources | None = None,
    seed: int = 0,
    tell: Tell | None = None,
    style: Style = "one",
) -> ScalingStudy:
    """Run ``func`` over ``inputs`` with different numbers of workers, and say what follows.

    Parameters:
        func, inputs: as for `map`, with one iterable, which ends.
        workers: the numbers to try; by default 1, 2, 4 ... up to the cores there are.
        repeats: how often each is tried, in shuffled order, once all workers are warm.
        mode: "strong" for the same work with each number; "weak" for as much more work as there
            are workers.
        on: where the tasks run, by name. On "slurm" or "pbs" a job array has an element for each
            number, with that many worker processes on ``resources``, by default as many cores as
            the largest number.
        seed: of the order of the runs.
        tell: gets a sentence before each run.
        style: how the function gets an input: "one" as its argument, "star" a tuple as its
            arguments, "keywords" a dictionary as its keyword arguments.

    Raises `UsageError`, which names all that is wrong, and what a task raises.

    >>> study = scaling(pow, [], workers=[0])
    Traceback (most recent call last):
    fanfold.errors.UsageError: workers are whole numbers from 1, not 0
    there is no input: a study needs work to measure
    """
    inputs = _listed(inputs, "inputs are what the tasks get, as [1, 2, 3]")
    numbers = _doubled(int(cores()))
    if workers is not None:
        numbers = _listed(workers, "workers are the numbers to try, as [1, 2, 4]")
    _check(func, inputs, numbers, repeats, mode, on)
    numbers = sorted(set(numbers))
    if on in SCHEDULERS:
        study = partial(_alone, func, inputs, repeats, mode, seed, style)
        asked = resources or Resources(cores=numbers[-1])
        array = run(
            study, numbers, name=next_name(Path(FOLDER), f"scaling-{name_of(func)}"), on=on,
            resources=asked, elements=len(numbers), workers=1, errors="raise", progress=False,
        )  # fmt: skip
        return ScalingStudy(_together(on, array.wait().results()))
    return ScalingStudy(measure(func, inputs, numbers, repeats, mode, on, seed, tell, style))


def _listed(given: Iterable[Any], right: str) -> list[Any]:
    if not isinstance(given, Iterable):
        raise UsageError(f"{right}, not {given!r}")
    return list(given)


def _doubled(most: int) -> list[int]:
    """1, 2, 4 ... and the most.

    >>> _doubled(6)
    [1, 2, 4, 6]
    """
    powers = accumulate(repeat(2), lambda power, two: power * two, initial=1)
    return [*takewhile(lambda power: power < most, powers), most]


def _check(
    func: object, inputs: list[Any], workers: Sequence[int], repeats: int, mode: str, on: str
) -> None:
    wrong = [
        f"workers are whole numbers from 1, not {n!r}"
        for n in workers
        if not isinstance(n, int) or isinstance(n, bool) or n < 1
    ]
    if not callable(func):
        wrong.append(f"the first argument must be callable: the function to run, not {func!r}")
    if not workers:
        wrong.append("workers is empty: name the numbers to try, as workers=[1, 2, 4]")
    if not inputs:
        wrong.append("there is no input: a study needs work to measure")
    if not isinstance(repeats, int) or repeats < 1:
        wrong.append(f"repeats must be a whole number from 1, not {repeats!r}")
    if mode not in get_args(Mode):
        wrong.append(f"mode must be 'strong' or 'weak', not {mode!r}")
    if on not in PLACES:
        wrong.append(f"on must be one of {', '.join(map(repr, PLACES))}, not {on!r}")
    if wrong:
        raise UsageError("\n".join(wrong))


def _alone(
    func: Callable[..., Any],
    inputs: list[Any],
    repeats: int,
    mode: Mode,
    seed: int,
    style: Style,
    workers: int,
) -> Measured:
    """What an element of a job array measures: one number of workers."""
    return measure(func, inputs, [workers], repeats, mode, "processes", seed, style=style)


def _together(on: str, parts: Sequence[Measured]) -> Measured:
    return parts[0]._replace(
        place=on,
        times={n: times for part in parts for n, times in part.times.items()},
        profiles={n: profile for part in parts for n, profile in part.profiles.items()},
        cores=max(part.cores for part in parts),
        load=max(part.load for part in parts),
        seconds=sum(part.seconds for part in parts),
    )
