"""`fanfold.explain`: where a map would run and why, in a few lines; and how others say the same."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from fanfold.api import check_callable
from fanfold.errors import UsageError
from fanfold.executors.auto.choice import Choice, Facts, choose
from fanfold.executors.auto.probe import Probe, probe
from fanfold.executors.base import worker_count
from fanfold.inputs import listed, readable
from fanfold.resources import Resources
from fanfold.schedulers.scripts.writing import directives
from fanfold.seeds import new_entropy
from fanfold.tasks import Call, Style
from fanfold.units import counted, format_duration, format_size

__all__ = ["Explanation", "explain", "explain_items"]

_PROBE = 0.25  # seconds of tasks, or one task, that are run to find out
_QUEUED = 0.2  # share of the time spent waiting for a core, from which times mean little
_UNEQUAL = 10  # the longest task takes so many times the median: the rest may be anything
_SPECIAL, _SLOW = 3, 0.01  # the first takes so many times the median, and so many seconds
_MARGIN = 2  # walltime asked for each second expected
_LEAST = 300  # seconds of walltime that are always asked for


class _Told(NamedTuple):
    name: str
    facts: Facts
    times: tuple[float, ...]
    memory: int
    choice: Choice
    measured: tuple[str, ...]
    chosen: str
    doubts: tuple[str, ...]
    multiprocessing: str
    pbs: str
    slurm: str


class Explanation(_Told):
    """What the first tasks of a map showed, and what follows.

    ``name`` is the function's. ``facts`` are what was measured, for ``left`` tasks; ``times`` the
    seconds of those that were timed one by one; ``memory`` the bytes that they needed. ``choice``
    is the place, the number of workers, and the seconds that each place is expected to take
    (``math.inf``: it is out of the question, see ``facts.barred``). ``measured``, ``chosen`` and
    ``doubts`` say it in sentences; ``doubts`` tell why not to trust the others.
    ``multiprocessing``, ``pbs`` and ``slurm`` are texts that do the same without fanfold, or
    ask a scheduler for it. ``str()`` is all of that.
    """

    __slots__ = ()

    @property
    def place(self) -> str:
        """The name for ``on=``."""
        return self.choice.place

    @property
    def workers(self) -> int:
        """How many workers there."""
        return self.choice.workers

    @property
    def seconds(self) -> dict[str, float]:
        """What each place is expected to take."""
        return dict(self.choice.prices.items())

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON; a place that is out of the question takes None seconds."""
        finite = {
            place: None if math.isinf(price) else price for place, price in self.seconds.items()
        }
        told = self._asdict()
        del told["choice"]
        told |= {"place": self.place, "workers": self.workers, "seconds": finite}
        return told | {"facts": self.facts._asdict() | {"barred": dict(self.facts.barred)}}

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        return str(self)


def explain(
    func: Callable[..., Any], /, *iterables: Iterable[Any], workers: int | None = None
) -> Explanation:
    """Where ``map(func, *iterables)`` would run, and why, from a few first tasks.

    They are run in the caller's thread, for about a quarter of a second, and at least one; their
    results are dropped. The iterables must end. ``workers`` is as for `map`.

    Raises `UsageError` for wrong arguments; a task that fails is told, and not raised.

    >>> found = explain(abs, [-1, -2, -3])
    >>> found.place, found.workers
    ('serial', 1)
    >>> print(found.multiprocessing)
    results = list(map(abs, inputs))
    """
    check_callable(func)
    if not iterables:
        raise UsageError("explain needs the inputs too, as map does: ff.explain(func, inputs)")
    if len(iterables) == 1:
        return explain_items(func, listed(iterables[0]), workers=workers)
    together = list(zip(*map(readable, iterables), strict=False))
    return explain_items(func, together, "star", workers)


def explain_items(
    func: Callable[..., Any],
    items: Sequence[Any],
    style: Style = "one",
    workers: int | None = None,
    program: str | None = None,
) -> Explanation:
    """`explain` for inputs in a style (see `fanfold.tasks.Call`); a job would run ``program``."""
    if workers is not None:
        worker_count(workers, 1)
    name = str(getattr(func, "__qualname__", type(func).__name__))
    call = Call(func, style, entropy=new_entropy())
    if not items:
        facts = Facts(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 1, workers, start="cold")
        found = Probe(facts, (), (), 0.0, 0)
    else:
        found = probe(call, items, len(items), workers, _PROBE)
    choice = choose(found.facts)
    script = dict(zip(("pbs", "slurm"), _scripts(found, choice, program), strict=True))
    return Explanation(
        name, found.facts, found.times, found.memory, choice,
        tuple(_measured(found)), _chosen(found.facts, choice), tuple(_doubts(found)),
        _multiprocessing(func, style, choice, len(items)), **script,
    )  # fmt: skip


# Sentences


def _lines(told: Explanation) -> Iterator[str]:
    yield f"{told.name} over {counted(told.facts.left or 0, 'input')}"
    yield "Measured: " + "\n          ".join(told.measured)
    yield f"Chosen:   {told.chosen}"
    yield f"Takes:    {_prices(told)}"
    for place, reason in told.facts.barred:
        yield f"Not {place}: {reason}."
    for doubt in told.doubts:
        yield f"! Not to be trusted: {doubt}"
    yield "\nThe same by hand:"
    yield _indented(told.multiprocessing)
    yield "\nAs a job on PBS:"
    yield _indented(told.pbs)
    yield "\nAs a job on Slurm:"
    yield _indented(told.slurm)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def _prices(told: Explanation) -> str:
    known = {place: price for place, price in told.seconds.items() if not math.isinf(price)}
    cheapest = sorted(known, key=known.__getitem__)
    return ", ".join(f"{place} about {format_duration(known[place])}" for place in cheapest)


def _measured(found: Probe) -> Iterator[str]:
    facts, times = found.facts, found.times
    if not facts.done:
        yield "there is no input, so nothing was run."
        return
    spread = ""
    if len(times) == facts.done > 1:
        spread = f" ({format_duration(min(times))} to {format_duration(max(times))})"
    yield f"{counted(facts.done, 'task')}. One takes {format_duration(facts.pace)}{spread}."
    yield f"It keeps {facts.busy:.1f} cores busy, and holds Python's lock {facts.held:.0%} of it."
    yield f"To send it to a process, and back, takes {format_duration(facts.sending)}."
    if facts.loading > 0.01:
        yield f"A new process first imports for {format_duration(facts.loading)}."
    if facts.room is not None:
        yield f"A task needs {format_size(found.memory)}: {facts.room} at a time find memory."


def _chosen(facts: Facts, choice: Choice) -> str:
    if choice.place == "serial":
        if facts.cores == 1 and facts.busy > 0.5:
            return "serial: there is one core, and the tasks keep it busy."
        return "serial: workers would not win back what it takes to start and feed them."
    if choice.place == "processes":
        return (
            f"processes, {counted(choice.workers, 'worker')}: the tasks compute in Python, where "
            "threads of one process take turns."
        )
    if facts.busy < 0.5:
        why = "the tasks mostly wait, and threads wait together."
    elif _free_threaded():
        why = "this Python runs them on all cores."
    else:
        why = "the tasks let go of Python's lock, so threads run on all cores, and nothing is sent."
    return f"threads, {counted(choice.workers, 'worker')}: {why}"


def _free_threaded() -> bool:
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def _doubts(found: Probe) -> Iterator[str]:
    facts, times = found.facts, found.times
    if found.errors:
        error = found.errors[0]
        yield (
            f"{len(found.errors)} of the first {counted(facts.done, 'task')} failed "
            f"({type(error).__name__}: {error}); a task that fails may be shorter than one that "
            "does not."
        )
    if found.queued > _QUEUED:
        yield (
            f"the tasks waited for a core {found.queued:.0%} of the time: other programs keep this "
            "machine busy."
        )
    if len(times) > 1 and times[0] > max(_SLOW, _SPECIAL * median(times[1:])):
        yield (
            f"the first task took {format_duration(times[0])}, those after it "
            f"{format_duration(median(times[1:]))}: it imports, compiles or reads what they find "
            "there, and so does the first of each worker process."
        )
    if len(times) > 2 and max(times[1:]) > _UNEQUAL * median(times[1:]):
        yield "the tasks are very unequal, so the rest may take another time than the first did."
    if facts.done == 1 and (facts.left or 0) > 1:
        yield "only one task was run: the others may take another time."


# The same without fanfold


def _multiprocessing(func: Callable[..., Any], style: Style, choice: Choice, tasks: int) -> str:
    name = str(getattr(func, "__name__", "function")).replace("<lambda>", "function")
    if choice.place == "serial":
        calls = {"one": f"map({name}, inputs)", "star": f"map({name}, *inputs)"}
        listed = f"{name}(**row) for row in inputs"
        return f"results = list({calls[style]})" if style in calls else f"results = [{listed}]"
    kind = "Pool" if choice.place == "processes" else "ThreadPool"
    module = "multiprocessing" if kind == "Pool" else "multiprocessing.pool"
    chunk = max(1, tasks // (4 * choice.workers))
    verb = {"one": "map", "star": "starmap"}.get(style, "map")
    given = {"one": "inputs", "star": "zip(*inputs)"}.get(style, "inputs")
    lines = [
        f"from {module} import {kind}",
        "",
        'if __name__ == "__main__":',
        f"    with {kind}({choice.workers}) as pool:",
        f"        results = pool.{verb}({name}, {given}, chunksize={chunk})",
    ]
    if style == "keywords":
        lines[2:2] = ["def call(row):", f"    return {name}(**row)", ""]
        lines[-1] = f"        results = pool.map(call, inputs, chunksize={chunk})"
    return "\n".join(lines)


def _scripts(found: Probe, choice: Choice, program: str | None) -> Iterator[str]:
    """A job that runs the program on one node."""
    line = "python program.py   # with this map in it"
    if program is not None:
        line = f"{program} --on {choice.place} --workers {choice.workers}"
    expected = min(choice.prices.values())
    walltime = max(_LEAST, 60 * math.ceil(_MARGIN * expected / 60))
    computing = 1 if choice.place == "serial" or found.facts.busy < 0.5 else choice.workers
    memory = max(1 << 30, 2 * choice.workers * found.memory)
    asked = Resources(cores=computing, walltime=walltime, memory=memory)
    for scheduler, folder in (("pbs", "$PBS_O_WORKDIR"), ("slurm", "$SLURM_SUBMIT_DIR")):
        lines = [
            "#!/bin/bash",
            *directives(asked, scheduler),
            f'cd "{folder}"',
            line,
        ]
        yield "\n".join(lines)
