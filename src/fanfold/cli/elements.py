"""The elements of job arrays, told in lines: what `status`, `jobs` and `logs` say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from fanfold.errors import UsageError
from fanfold.reports.words import duration, size
from fanfold.runs.arrays import arrays
from fanfold.runs.elements import Watched
from fanfold.schedulers.base import Seen
from fanfold.store.directory import RunDirectory
from fanfold.units import counted

__all__ = [
    "MOST_LINES",
    "element_lines",
    "element_log",
    "element_told",
    "seen_lines",
    "state_counts",
]

MOST_LINES = 40


def state_counts(elements: Sequence[Watched]) -> str:
    """How many elements are in which state, and why those wait that do.

    >>> state_counts([Watched(1, 1, 0, "12", 5, why="done"), Watched(2, 1, 1, "12", 5)])
    '1 done, 1 unknown'
    """
    counts = Counter(one.state for one in elements)
    reasons = Counter(
        one.seen.reason for one in elements if one.state == "waiting" and one.seen is not None
    )
    waits = ", ".join(reason for reason, _ in reasons.most_common(2) if reason)
    return ", ".join(
        f"{count} {state}{f' ({waits})' if state == 'waiting' and waits else ''}"
        for state, count in counts.items()
    )


def element_lines(elements: Sequence[Watched]) -> Iterator[str]:
    """A line for each job with its counts, and one for each element that is not simply done."""
    for job, of in groupby(elements, lambda one: one.job):
        group = list(of)
        name = "not submitted" if job is None else f"job {job}"
        yield f"{name}: {counted(len(group), 'element')}: {state_counts(group)}"
    told = list(elements) if len(elements) <= MOST_LINES else _of_note(elements)
    for one in told[:MOST_LINES]:
        yield f"  {_line(one)}"
    if len(told) < len(elements) or len(told) > MOST_LINES:
        left = len(elements) - min(len(told), MOST_LINES)
        yield f"  ... and {left} more elements; --json lists all"


def seen_lines(elements: Sequence[Seen]) -> Iterator[str]:
    """What a scheduler says of a job: its counts, and a line for each element.

    >>> for line in seen_lines([Seen("7[]", 1, "done", "F"), Seen("7[]", 2, "failed", "F")]):
    ...     print(line)
    job 7[]: 2 elements: 1 done, 1 failed
      [1] done
      [2] failed
    """
    counts = Counter(one.state for one in elements)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    yield f"job {elements[0].job}: {counted(len(elements), 'element')}: {told}"
    shown = [one for one in elements if len(elements) <= MOST_LINES or one.state != "done"]
    for one in shown[:MOST_LINES]:
        yield f"  {_seen_line(one)}"
    if len(elements) > len(shown[:MOST_LINES]):
        yield f"  ... and {len(elements) - len(shown[:MOST_LINES])} more; --json lists all"


def _seen_line(one: Seen) -> str:
    parts = ["" if one.index is None else f"[{one.index}] "]
    parts[0] += one.state
    if one.exit_status is not None:
        parts.append(f"exit status {one.exit_status}")
    if one.node:
        parts.append(f"on {one.node}")
    if one.began is not None and one.ended is not None:
        seconds = one.ended - one.began  # schedulers tell whole ones
        parts.append(f"{seconds:.0f}s" if seconds < 60 else duration(seconds))
    if one.cpu_time is not None:
        parts.append(f"CPU {duration(one.cpu_time)}")
    if one.peak_memory is not None:
        parts.append(size(one.peak_memory))
    if one.reason and not one.exit_status:  # where the status says nothing
        parts.append(" ".join(one.reason.split()))
    return ", ".join(parts)


def _of_note(elements: Sequence[Watched]) -> list[Watched]:
    return [one for one in elements if one.state not in ("done", "waiting")]


def _line(one: Watched) -> str:
    parts = [f"element {one.number}: {one.state}"]
    seen = one.seen
    if seen is not None and seen.word and seen.word.lower() != one.state:
        parts[0] += f" ({seen.word})"
    node = one.host or (seen.node if seen else "")
    if node:
        parts.append(f"on {node}")
    parts.append(f"{one.done} of {one.tasks} done")
    if one.failed:
        parts.append(f"{one.failed} failed")
    if one.running:
        parts.append(f"task {', '.join(map(str, one.running))} had not ended")
    if seen is not None and seen.reason and one.state in ("waiting", "held", "unknown"):
        parts.append(seen.reason)
    if one.message:
        parts.append(" ".join(one.message.split()))
    return ", ".join(parts)


def element_told(one: Watched) -> dict[str, Any]:
    """The same for programs."""
    return {
        **one._asdict(),
        "state": one.state,
        "workers": [worker._asdict() for worker in one.workers],
        "seen": None if one.seen is None else one.seen._asdict(),
    }


def element_log(directory: RunDirectory, element: int) -> str:
    """What the job of an element printed, beside what its tasks did. Raises `UsageError`."""
    for array in arrays(directory):
        if element in array.elements:
            index = element - array.first
            path = directory.path / "logs" / f"array-{array.number}.{index}"
            try:
                return path.read_text(errors="replace")
            except OSError as error:
                raise UsageError(
                    f"there is no log of element {element} at {path} ({error.strerror}): its job "
                    "has not begun, or its node cannot write there"
                ) from error
    raise UsageError(f"the run has no element {element}")
