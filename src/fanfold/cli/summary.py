"""What a map is told to have been, on standard error: its failures, and a closing summary."""

from __future__ import annotations

import heapq
import os
import traceback
from collections.abc import Iterator, Sequence

from fanfold.cli.inputs import Inputs
from fanfold.cli.results import error_text
from fanfold.errors import CommandFailed, RemoteTraceback
from fanfold.reports.words import one_line
from fanfold.tasks import Outcome
from fanfold.units import counted, format_duration, format_size

__all__ = ["failure_lines", "shown_name", "summary_lines"]

MOST_FAILURES = 10
MOST_TRACEBACKS = 3
MOST_LINES = 24
WIDEST = 200

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def failure_lines(inputs: Inputs, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each failed task, then the traceback of each different failure."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    for outcome in failed[:MOST_FAILURES]:
        where = f"task {outcome.index}, input {one_line(inputs.shown(outcome.index), 80)}"
        tries = f" (attempt {outcome.attempt})" if outcome.attempt > 1 else ""
        yield f"failed: {where}{tries}: {one_line(error_text(outcome), WIDEST)}"
    if len(failed) > MOST_FAILURES:
        yield f"... and {len(failed) - MOST_FAILURES} more; --json and --out list them all"
    alike: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in failed:
        places = tuple(line for line in _traceback(outcome.error) if line.startswith("  File "))
        if places:
            alike.setdefault((type(outcome.error).__name__, *places), []).append(outcome)
    for group in list(alike.values())[:MOST_TRACEBACKS]:
        others = f", and {len(group) - 1} more like it" if len(group) > 1 else ""
        yield ""
        yield f"task {group[0].index}{others}:"
        yield from (f"  {line}" for line in _traceback(group[0].error))
    if len(alike) > MOST_TRACEBACKS:
        yield f"... and {len(alike) - MOST_TRACEBACKS} other kinds of failure"


def _traceback(error: BaseException | None) -> list[str]:
    """The lines of the traceback where the task ran, the middle left out when it is long."""
    if error is None:
        return []
    if isinstance(error, CommandFailed):  # whose program may have told of a traceback
        return error.stderr.splitlines()
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        lines = cause.text.strip().splitlines()
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(_PACKAGE)
        ]
        if not frames:  # a failure that is fanfold's to tell, such as a dead worker
            return []
        parts = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
        parts += traceback.format_exception_only(error)
        lines = "".join(parts).splitlines()
    lines = [line for line in lines if not line.startswith("fanfold: task ")]  # told above
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        left_out = f"... {len(lines) - 2 * half} lines left out ..."
        lines = [*lines[:half], left_out, *lines[-half:]]
    return lines


def shown_name(name: str) -> str:
    """The name of a run for a terminal, which must not obey what is in it.

    >>> shown_name("pi 1"), shown_name(chr(27) + "[2J")
    ('pi 1', "'\\\\x1b[2J'")
    """
    return name if name.isprintable() else repr(name)


def summary_lines(
    inputs: Inputs,
    outcomes: Sequence[Outcome],
    fresh: Sequence[Outcome],
    wall_time: float,
    *,
    interrupted: bool,
) -> Iterator[str]:
    """Tasks, times, speed-up, the slowest tasks and the peak memory, in a few lines.

    The times are those of the ``fresh`` outcomes, which took the ``wall_time``.
    """
    total = len(inputs.items)
    failed = sum(not outcome.ok for outcome in outcomes)
    counts = [f"{len(outcomes) - failed} done", f"{failed} failed"]
    if len(outcomes) < total:
        counts.append(f"{total - len(outcomes)} not finished")
    yield f"{'interrupted: ' if interrupted else ''}{counted(total, 'task')}: {', '.join(counts)}"
    if not fresh:
        yield f"wall time {format_duration(wall_time)}"
        return
    work_time = sum(outcome.seconds for outcome in fresh)
    workers = len({outcome.worker for outcome in fresh})
    yield (
        f"wall time {format_duration(wall_time)}, work time {format_duration(work_time)}, "
        f"speed-up {work_time / wall_time:.2f} on {counted(workers, 'worker')}"
    )
    slowest = heapq.nlargest(3, fresh, key=lambda outcome: outcome.seconds)
    if len(fresh) > 1:
        shown = (
            f"task {outcome.index} ({one_line(inputs.shown(outcome.index), 40)}) "
            f"{format_duration(outcome.seconds)}"
            for outcome in slowest
        )
        yield f"slowest: {', '.join(shown)}"
    peak = max(outcome.peak_memory for outcome in fresh)
    if peak:
        yield f"peak memory of a worker: {format_size(peak)}"
