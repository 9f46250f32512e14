"""What elements of job arrays asked for and used, in lines for a log and in warnings.

Runs write such lines when they end: so it loads no more than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from fanfold.history import Element
from fanfold.reports.sizing import Sizing, Use, Wanted, sizing, use_of
from fanfold.reports.words import duration, listed, moment, one_line, percent, plural, size

__all__ = [
    "CORES", "KINDS", "MEMORY", "TIME", "Kind", "cpu_time", "ending", "summary", "warned",
    "warnings",
]  # fmt: skip

NEAR = 0.9  # of what was asked for: little was left
HALF = 0.5  # of what was asked for: when no more than that is advised, it is worth a word
BEYOND = 0.5  # cores more than asked for, worth a word

_ENDS = {"walltime": "out of time", "memory": "out of memory", "node": "node lost"}


class Kind(NamedTuple):
    """A kind of what is asked for: how much an element used of it, and asked for."""

    name: str
    used: Callable[[Use], float | None]
    asked: Callable[[Element], float | None]
    shown: Callable[[float], str]

    def share(self, use: Use) -> float | None:
        """What part it used of what it asked for."""
        used, asked = self.used(use), self.asked(use.element)
        return used / asked if used is not None and asked else None

    def asked_by(self, used: Sequence[Use]) -> str:
        """What was asked for; where elements differ, from the least to the most."""
        amounts = [asked for use in used if (asked := self.asked(use.element)) is not None]
        shown = str if self is CORES else self.shown
        least, most = (shown(choose(amounts)) if amounts else "not said" for choose in (min, max))
        return least if least == most else f"{least} to {most}"


CORES = Kind("cores", lambda use: use.cores, lambda element: element.cores, "{:.1f}".format)
MEMORY = Kind("peak memory", lambda use: use.memory, lambda element: element.memory, size)
TIME = Kind("run time", lambda use: use.seconds, lambda element: element.walltime, duration)
KINDS = (CORES, MEMORY, TIME)


def summary(element: Element, run: str, account: str | None, status: int) -> str:
    """What one element asked for and used, in lines for its log; ``status`` is its exit status."""
    used = use_of(element)
    began = "unknown" if element.began is None else moment(element.began)
    rows = [
        ("job", _job(element, run)),
        ("project", account or "not said"),
        ("ended", f"{ending(used)}, exit status {status}, {plural(element.tasks, 'task')}"),
        ("ran on", f"{element.node}, from {began}"),
        ("walltime", _of_asked(TIME, used)),
        ("cores", _of_asked(CORES, used)),
        ("memory", _of_asked(MEMORY, used)),
    ]
    lines = [f"  {name:10}{one_line(value)}" for name, value in rows]
    return "\n".join([*lines, *(f"  {text}" for text in warnings([element]))])


def warnings(elements: Iterable[Element]) -> list[str]:
    """Sentences about elements that have ended and asked for far too much, or hardly enough."""
    used = [use_of(element) for element in elements]
    return list(warned(used, sizing(used)))


def _job(element: Element, run: str) -> str:
    """Where it has its place; element 0 is the run itself, in a process on one machine."""
    if not element.number:
        return f"{element.job}: run {run}"
    return f"{element.job}, index {element.index}: element {element.number} of {run}"


def _of_asked(kind: Kind, used: Use) -> str:
    """What it used of what it asked for."""
    amount, asked = kind.used(used), kind.asked(used.element)
    told = "unknown" if amount is None else kind.shown(amount)
    if not asked:
        return f"{told}, none asked for"
    share = "" if amount is None else f" ({percent(amount, asked)})"
    return f"{told} of {asked if kind is CORES else kind.shown(asked)}{share}"


def cpu_time(known: Sequence[Use]) -> float:
    """Seconds of all cores that they used."""
    return sum(use.cpu_time or 0.0 for use in known)


def ending(use: Use) -> str:
    """How it ended, in words."""
    return _ENDS.get(use.element.state, use.element.state)


def warned(used: Sequence[Use], advised: Sizing) -> Iterator[str]:
    """Sentences about these, where it is known what to ask for next time."""
    for state, word in (
        ("walltime", "for running too long"),
        ("memory", "for using too much memory"),
    ):
        yield from _cut_short([use for use in used if use.element.state == state], word)
    others = [use for use in used if not use.whole and use.element.state not in _ENDS]
    lost = [use for use in used if use.element.state == "node"]
    yield from _cut_short([*others, *lost], "before its time")
    yield from _about_cores(used, advised.cores)
    yield from _about("Memory", MEMORY, used, advised.memory)
    yield from _about("Walltime", TIME, used, advised.walltime)


def _cut_short(cut: Sequence[Use], why: str) -> Iterator[str]:
    if cut:
        told = _named(cut)
        were, they = ("was", "it") if len(cut) == 1 else ("were", "they")
        yield f"{told} {were} ended {why}: what {they} used is the least that {they} needed."


def _named(used: Sequence[Use]) -> str:
    """Elements by their numbers."""
    names = [str(use.element.number) for use in used]
    shown = listed(names[:5], max(0, len(names) - 5))
    return f"Element {shown}" if len(names) == 1 else f"Elements {shown}"


def _about_cores(used: Sequence[Use], advised: Wanted | None) -> Iterator[str]:
    known = [use for use in used if use.cores is not None]
    if not known or advised is None:
        return
    seconds = sum(use.seconds or 0.0 for use in known)
    most = max(known, key=lambda use: use.cores or 0.0)
    asked = CORES.asked_by(known)
    told = f"Asked for {asked} {'core' if asked == '1' else 'cores'}, used "
    told += f"{cpu_time(known) / seconds:.1f}"
    if len(known) > 1:
        told += f" on average, at most {most.cores:.1f} (element {most.element.number})"
    if any((use.cores or 0.0) > use.element.cores + BEYOND for use in known):
        yield f"{told}: more than asked for is taken from others, or shared with them."
    elif advised.amount < max(use.element.cores for use in known):
        yield f"{told}: the rest was idle."


def _about(word: str, kind: Kind, used: Sequence[Use], advised: Wanted | None) -> Iterator[str]:
    """A word when little was used of what was asked for, or nearly all."""
    shares = [(share, use) for use in used if (share := kind.share(use)) is not None]
    if not shares or advised is None:
        return
    share, most = max(shares, key=itemgetter(0))
    asked = kind.asked(most.element) or 0.0
    told = f"{word}: {percent(share, 1)} used of the {kind.shown(asked)} asked for"
    several, which = len(used) > 1, f"(element {most.element.number})"
    if share >= NEAR and most.whole:
        yield f"{told}{f' {which}' if several else ''}: little was left."
    elif advised.amount <= HALF * asked:
        told += f", at most {which}" if several else ""
        yield f"{told}: with {kind.shown(advised.amount)} a job starts sooner."
