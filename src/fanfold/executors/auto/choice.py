"""Where tasks should run, from what was measured of the first of them: a pure calculation.

It is written for who reads `fanfold.explain`: each place has a price, in seconds, made of a few
constants that anybody can measure, and the cheapest place is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["SHORT", "Choice", "Facts", "Place", "Start", "choose"]

Start = Literal["cold", "warm", "copied"]  # the first of this program, later ones, its copies
Place = Literal["serial", "threads", "processes", "slurm", "pbs"]

SHORT = 0.02  # seconds: shorter tasks are run in the caller's thread while workers start

# Seconds, measured on the machine of docs/benchmarks.md.
_START = {"cold": 0.04, "warm": 0.01, "copied": 0.018}  # of worker processes: see `Start`
_STARTING = 0.008  # of these, at most, in which the caller's thread runs no tasks, but starts them
_ENDING = 0.006  # until they have ended
_START_THREADS = 4e-4  # of each thread
_TASK = {"threads": 4e-6, "processes": 3e-6}  # for each task, at least: its way there and back
_SWITCH = 1.15  # what threads that compete for the interpreter lose by handing it on
_UNENDED = 4  # times as long as it has run so far takes a task that still waits, for all we know
_QUEUE = 60.0  # until jobs begin, on a scheduler of which nothing is known
_ELEMENT = 60.0  # of work, that make an element of a job array worth its start
_IDLE = 0.1  # cores that keep tasks busy which do nothing but wait
_MOST_THREADS = 256  # that wait: each has a stack, and strikes a server
_GAIN, _WORTH = 0.9, 0.001  # another place must take this share of the time, and save these seconds


class Facts(NamedTuple):
    """What is known of the tasks of a map after the first of them.

    ``left`` tasks wait (None: nobody knows how many); one takes ``pace`` seconds alone. Meanwhile
    it keeps ``busy`` cores busy, and holds the interpreter's lock for the share ``held`` of the
    time. To send its input and its result takes ``sending`` seconds, to send the function
    ``function`` seconds; a new worker process then imports for ``loading`` seconds: ``start`` says
    how it would begin. ``done`` tasks have ended. At most ``room`` tasks
    find memory at a time (None: no matter). ``barred`` says of places why they are out of the
    question. ``allowed`` is a scheduler that may be used, and how many tasks run there at once
    (None: as many as pay).
    """

    left: int | None
    pace: float
    busy: float
    held: float
    sending: float
    function: float
    done: int
    cores: int
    workers: int | None
    start: Start
    loading: float = 0.0
    room: int | None = None
    barred: tuple[tuple[Place, str], ...] = ()
    allowed: tuple[Place, int | None] | None = None


class Choice(NamedTuple):
    """A place, how many workers there, and the seconds that each place is thought to take."""

    place: Place
    workers: int
    prices: Mapping[Place, float]


def choose(facts: Facts, kept: Place = "serial", workers: int = 1) -> Choice:
    """The cheapest place for what is left; the one that the map is in, with so many workers, unless
    another is clearly cheaper. What has gone to workers does not come back to the caller's thread.

    >>> computing = Facts(100, 0.1, busy=1.0, held=1.0, sending=0.0, function=0.0, done=1,
    ...                   cores=4, workers=None, start="cold")
    >>> choose(computing).place, choose(computing).workers
    ('processes', 4)
    >>> choose(computing._replace(busy=0.02, held=0.02))[:2]  # they wait for something
    ('threads', 100)
    >>> choose(computing._replace(held=0.0)).place  # as NumPy does it
    'threads'
    >>> choose(computing._replace(left=3, pace=0.001)).place
    'serial'
    >>> choose(computing._replace(left=1000, pace=30.0, allowed=("slurm", 100)))[:2]
    ('slurm', 100)
    """
    left = facts.left if facts.left is not None else max(16, 10 * facts.done)
    numbers: dict[Place, int] = {
        "serial": 1,
        "threads": _at_once(facts, left, _threads(facts, left)),
        "processes": _at_once(facts, left, facts.workers or facts.cores),
    }
    if facts.allowed is not None:
        scheduler, at_once = facts.allowed
        numbers[scheduler] = min(left, at_once or math.ceil(left * facts.pace / _ELEMENT)) or 1
    barred = dict(facts.barred)
    prices: dict[Place, float] = {
        place: math.inf if place in barred else _price(place, facts, left, number)
        for place, number in numbers.items()
    }
    open_to: list[Place] = [place for place in prices if kept == "serial" or place != "serial"]
    cheapest = min(open_to, key=lambda place: prices[place])
    stays = _price(kept, facts, left, workers, started=True)
    if prices[cheapest] < _GAIN * stays - _WORTH:
        return Choice(cheapest, numbers[cheapest], prices)
    return Choice(kept, workers, prices)


def _at_once(facts: Facts, left: int, most: int) -> int:
    return max(1, min(most, left, facts.room or most))


def _threads(facts: Facts, left: int) -> int:
    """As many as cores; more where tasks wait, up to the number from which more do not pay."""
    if facts.workers or facts.busy > 0.5:
        return facts.workers or facts.cores
    pace = facts.pace if facts.done else _UNENDED * facts.pace
    worth = (left * pace / _START_THREADS) ** 0.5
    most = min(_MOST_THREADS, worth, 4 * facts.cores / max(facts.busy, 1e-3))
    if facts.busy < _IDLE and left <= 2 * most:  # a second round would take as long as the first
        most = left
    return max(facts.cores, int(most))


def _price(place: Place, facts: Facts, left: int, workers: int, *, started: bool = False) -> float:
    """Seconds for what is left, with the start of the workers unless they are ``started``."""
    if place == "serial":
        return left * facts.pace
    if place in ("slurm", "pbs"):  # each task has cores of its own
        return (0 if started else _QUEUE) + left * facts.pace / workers
    together = max(facts.pace / workers, facts.pace * facts.busy / facts.cores)
    if place == "threads":
        switching = _SWITCH if facts.held > 0.3 and workers > 1 else 1
        together = max(together, facts.pace * facts.held * switching, _TASK["threads"])
        return left * together + (0 if started else workers * _START_THREADS)
    sent = left * max(facts.sending, _TASK["processes"])
    if started:
        return left * together + sent
    start = _START[facts.start] + facts.loading
    goes_on = 0 < facts.pace < SHORT and facts.cores > 1
    meanwhile = (start - _STARTING) / facts.pace if goes_on else 0
    return facts.function + start + max(0, left - meanwhile) * together + sent + _ENDING
