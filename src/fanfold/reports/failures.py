"""The failures, grouped by their cause.

Failures are alike when the class of the exception, its message with the numbers masked, and the
place where it was raised are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fanfold.history import Death, Failure, History
from fanfold.reports.document import Code, Facts, Group, Item, Paragraph, Section, Table
from fanfold.reports.pieces import Pieces
from fanfold.reports.words import cut_lines, listed, number, one_line, plural, size

__all__ = ["Alike", "failures", "grouped", "recovered"]

MOST_GROUPS = 20
MOST_INPUTS = 5
MOST_DEATHS = 10
MOST_LOG_LINES = 20

_COMPARED = 500  # characters of a message

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_FRAME = re.compile(r'  File "(.*)", line ([0-9]+)(?:, in (.*))?')


class Alike(NamedTuple):
    """Failures of one cause. ``place`` is where it was raised, empty when that is not known."""

    kind: str
    place: str
    failures: list[Failure]

    @property
    def final(self) -> list[Failure]:
        """Those that were the last word on their task."""
        return [failure for failure in self.failures if failure.final]

    @property
    def pattern(self) -> str:
        """The message; a number that is not the same in all of them is written ``#``."""
        messages = [failure.message[:_COMPARED] for failure in self.failures[:1000]]
        columns = zip(*(_NUMBER.findall(message) for message in messages), strict=False)
        numbers = iter([column[0] if len(set(column)) == 1 else "#" for column in columns])
        return _NUMBER.sub(lambda match: next(numbers, "#"), messages[0])

    @property
    def cause(self) -> str:
        """What and where, in a few words."""
        return f"{self.kind} {self.place}" if self.place else self.kind


def grouped(found: Sequence[Failure]) -> list[Alike]:
    """The failures by cause: first those that left most tasks without a result."""
    groups: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in found:
        masked = _NUMBER.sub("#", failure.message[:_COMPARED])
        groups.setdefault((failure.kind, masked, _innermost(failure.traceback)), []).append(failure)
    alike = [
        Alike(one_line(kind, 80), _place(frame), group)
        for (kind, _, frame), group in groups.items()
    ]
    return sorted(alike, key=lambda group: (-len(group.final), -len(group.failures)))


def _innermost(traceback: str) -> str:
    """The line of a traceback that says where the exception was raised."""
    begin = traceback.rfind('  File "')
    return traceback[begin : begin + 1000].partition("\n")[0] if begin >= 0 else ""


def _place(line: str) -> str:
    """A frame of a traceback in a few words.

    >>> _place('  File "/home/me/pi.py", line 17, in throw')
    'in throw (pi.py:17)'
    """
    frame = _FRAME.match(line)
    if frame is None:
        return ""
    path, line, function = frame.groups()
    name = re.split(r"[/\\]", path)[-1]
    return one_line(f"in {function} ({name}:{line})" if function else f"at {name}:{line}", 120)


def recovered(history: History, pieces: Pieces) -> set[int]:
    """The tasks that failed at first and have a result all the same."""
    indices = sorted({failure.index for failure in history.failures if not failure.final})
    final = {failure.index for failure in history.last_failures()}
    done = pieces.done(indices)
    return {index for index, ok in zip(indices, done, strict=True) if ok and index not in final}


def failures(history: History, groups: Sequence[Alike], saved: set[int]) -> Section | None:
    """Each cause with the tasks it hit, one traceback, and how workers died of it.

    ``saved`` are the tasks that have a result after a further attempt.
    """
    if not groups:
        return None
    items: list[Item] = [Paragraph(_summary(history, groups, saved))]
    items += (
        _group(group, saved, unfolded=position == 0)
        for position, group in enumerate(groups[:MOST_GROUPS])
    )
    if len(groups) > MOST_GROUPS:
        left = groups[MOST_GROUPS:]
        attempts = plural(sum(len(group.failures) for group in left), "attempt")
        told = f"{plural(len(left), 'further cause')} not shown, with {attempts}."
        items.append(Paragraph(told))
    return Section("Failures", tuple(items))


def _summary(history: History, groups: Sequence[Alike], saved: set[int]) -> str:
    attempts = sum(len(group.failures) for group in groups)
    told = [f"{plural(attempts, 'attempt')} failed, of {plural(len(groups), 'cause')}"]
    told += [f"{plural(history.failed, 'task')} without a result"] if history.failed else []
    told += [f"{plural(len(saved), 'task')} done by a further attempt"] if saved else []
    return "; ".join(told) + "."


def _group(group: Alike, saved: set[int], *, unfolded: bool) -> Group:
    # A last word tells most; one with a certificate of death tells more than one without.
    shown = min(group.failures, key=lambda failure: (not failure.final, failure.death is None))
    final = len({failure.index for failure in group.final})
    counts = [f"{plural(final, 'task')} failed"] if final else []
    counts += [plural(len(group.failures), "attempt")] if len(group.failures) > final else []
    title = f"{group.kind}: {one_line(group.pattern, 160) or 'no message'} ({', '.join(counts)})"
    items: list[Item] = [Facts(tuple(_facts(group, shown, saved)))]
    if any(failure.death for failure in group.failures):
        items.append(_deaths(group.failures))
    who = f"task {shown.index}, attempt {shown.attempt}"
    if _innermost(shown.traceback):
        items.append(Code(f"Traceback of {who}", cut_lines(shown.traceback)))
    if shown.log:
        log = "\n".join(shown.log[-MOST_LOG_LINES:])
        items.append(Code(f"Last lines printed by {who}", cut_lines(log)))
    return Group(title, tuple(items), unfolded)


def _facts(group: Alike, shown: Failure, saved: set[int]) -> Iterator[tuple[str, str]]:
    if group.place:
        yield "raised", group.place
    inputs = {failure.index: failure.shown for failure in group.failures}
    first = [
        f"task {index} ({one_line(text, 80)})" if text else f"task {index}"
        for index, text in list(inputs.items())[:MOST_INPUTS]
    ]
    yield "tasks and inputs", listed(first, max(0, len(inputs) - MOST_INPUTS))
    again = len(inputs.keys() & saved)
    if again:
        yield "done by a further attempt", plural(again, "task")
    workers = list(dict.fromkeys(failure.worker for failure in group.failures if failure.worker))
    if workers:
        names = [one_line(name, 40) for name in workers[:3]]
        yield "on", listed(names, max(0, len(workers) - 3))
    if len(shown.message.strip()) > 160 or "\n" in shown.message.strip():
        yield "message", one_line(shown.message, 1000)


def _deaths(found: Sequence[Failure]) -> Table:
    """The certificates of death."""
    dead = [(failure, failure.death) for failure in found if failure.death is not None]
    columns = ("task", "input", "signal", "exit code", "while", "peak memory", "killed for memory")
    rows = tuple(
        (str(failure.index), one_line(failure.shown, 60), *_certificate(death))
        for failure, death in dead[:MOST_DEATHS]
    )
    shown = f", of which the first {MOST_DEATHS}" if len(dead) > MOST_DEATHS else ""
    title = f"{plural(len(dead), 'worker')} died{shown}"
    return Table(title, columns, rows, frozenset({"task", "exit code", "peak memory"}))


_PHASES = {"load": "reading its input", "run": "running", "send": "sending its result"}
_ANSWERS = {True: "yes, by the kernel", False: "no", None: "unknown"}


def _certificate(death: Death) -> tuple[str, ...]:
    return (
        one_line(death.signal or "none", 20),
        number(death.exitcode) if death.exitcode is not None else "unknown",
        _PHASES.get(death.phase, one_line(death.phase, 40)),
        size(death.peak_memory),
        _ANSWERS[death.out_of_memory],
    )
