"""What the numbers say for the next run: each finding tells how its numbers were made.

Nothing is said that the records do not bear out; a run of which nothing is known gets no advice.
"""

from __future__ import annotations

import heapq
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fanfold.history import Death, Failure, History
from fanfold.reports.document import Advice, Section
from fanfold.reports.episodes import Episode, team
from fanfold.reports.failures import Alike
from fanfold.reports.pieces import Floats, Pieces
from fanfold.reports.words import duration, listed, number, one_line, percent, plural, size

__all__ = ["advice", "longest_first"]

TAIL = (
    0.15  # share of the time in which half of the workers or more are idle at the end, worth a word
)
GAIN = 0.95  # a better order is worth a word when it takes at most this share of the time
LONE = 0.8  # share of the time that one task takes alone, worth a word
TINY = 1e-3  # seconds below which a task is hardly worth its way
WAITING = 0.3  # cores a task uses, below which it mostly waits
SPREADING = 1.3  # cores a task uses, above which it runs threads of its own
ALIKE = 0.8  # share of the failures of one cause, worth a word
WASTE = 0.1  # share of the work time that went to failed attempts, worth a word
ENOUGH = 1.0  # seconds of work from which shares of it mean something
_EXACT = 10_000  # tasks that are dealt out one by one to find what another order would take


def advice(
    history: History,
    pieces: Pieces,
    worked: Sequence[Episode],
    groups: Sequence[Alike],
    saved: set[int],
) -> Section | None:
    """All findings; None when there is nothing to say."""
    found = [*_memory(history, pieces, worked), *_killed(history)]
    teams = [episode for episode in worked if episode.lanes and episode.wall > 0]
    if teams:
        main = max(teams, key=lambda episode: episode.work)
        found += [*_busy(main, of_several=len(teams) > 1), *_end(main, pieces)]
        found += _tiny(main, pieces)
    found += [*_processor(pieces), *_alike(history, groups), *_timeouts(history, groups, pieces)]
    found += [*_retries(history, groups, pieces, saved), *_wasted(pieces)]
    return Section("What the numbers say", tuple(found)) if found else None


def _memory(history: History, pieces: Pieces, worked: Sequence[Episode]) -> Iterator[Advice]:
    """The largest peak; one that the kernel put an end to is the least that would have been."""
    known = ~np.isnan(pieces.peak_memory)
    found: list[tuple[float, str, str]] = []
    if known.any():
        row = int(np.nanargmax(pieces.peak_memory))
        measured = plural(int(pieces.count[known].sum()), "measured attempt")
        basis = f"The largest of {measured}: {pieces.tasks(row)}."
        found.append((float(pieces.peak_memory[row]), "", basis))
    for failure, death in _killed_for_memory(history):
        if death.peak_memory is not None:
            basis = f"Task {failure.index} had reached it when the kernel ended its worker."
            found.append((float(death.peak_memory), "at least ", basis))
    if found:
        peak, least, basis = max(found)
        workers = team(history, worked)
        whole = f"; {workers} workers at once need up to {size(workers * peak)}"
        yield Advice(f"Peak memory {least}{size(peak)} a task{whole if workers > 1 else ''}", basis)


def _killed_for_memory(history: History) -> Iterator[tuple[Failure, Death]]:
    for failure in history.failures:
        if failure.death is not None and failure.death.out_of_memory:
            yield failure, failure.death


def _killed(history: History) -> Iterator[Advice]:
    killed = sum(1 for _ in _killed_for_memory(history))
    if killed:
        were, them = ("attempt was", "it") if killed == 1 else ("attempts were", "them")
        yield Advice(
            f"{number(killed)} {were} killed for want of memory: "
            "ask for more memory, or run fewer workers at once",
            f"The kernel counted {them} among its kills.",
        )


def _busy(main: Episode, *, of_several: bool) -> Iterator[Advice]:
    workers = plural(len(main.lanes), "worker")
    where = " In the session with the most work." if of_several else ""
    yield Advice(
        f"{workers} kept busy {percent(main.busy, 1)}",
        f"{duration(main.work)} of work in {len(main.lanes)} x {duration(main.wall)}.{where}",
    )


def _end(main: Episode, pieces: Pieces) -> Iterator[Advice]:
    """What the last tasks cost, while most workers had nothing more to do."""
    workers = len(main.lanes)
    if workers < 2 or any(session.why not in ("done", "failed") for session in main.sessions):
        return
    left, quiet = _quiet(main)
    tail = main.lanes_ended[-1] - quiet
    rows = np.concatenate([lane.rows for lane in main.lanes])
    late = rows[pieces.ended[rows] > quiet]
    tasks = int(pieces.count[late].sum())
    best = longest_first(pieces.seconds[rows], workers)
    longest = int(rows[np.argmax(pieces.seconds[rows])])
    if tail >= TAIL * main.wall and tasks <= workers and best <= GAIN * main.wall:
        names = [str(int(index)) for index in np.sort(pieces.first[late])]
        which = listed(names[:5], max(0, len(names) - 5))
        last = f"last task ({which})" if tasks == 1 else f"last {tasks} tasks ({which})"
        yield Advice(
            f"{percent(tail, main.wall)} of the time went to the {last}: sort the longest first",
            f"For {duration(tail)} of {duration(main.wall)} at most {left} of {workers} workers "
            "had something to do. The same times, dealt out longest first to "
            f"{workers} workers, end after about {duration(best)}. The next run does "
            "so by itself with the same inputs; cost= or --cost tells it beforehand.",
        )
    elif float(pieces.seconds[longest]) >= LONE * main.wall and main.busy < LONE:
        yield Advice(
            f"The run cannot be shorter than {pieces.tasks(longest)}: divide it; "
            "more workers will not help",
            f"It took {duration(float(pieces.seconds[longest]))} of {duration(main.wall)}.",
        )


def _quiet(main: Episode) -> tuple[int, float]:
    """How few workers were left with something to do at the end, and from when on.

    It begins when half of them have nothing more to do, or, when that is about the same time, fewer
    than that are left.
    """
    ends = main.lanes_ended
    half = len(ends) // 2
    whole = ends[-1] - ends[-1 - half]
    left = next(few for few in range(1, half + 1) if ends[-1] - ends[-1 - few] >= 0.75 * whole)
    return left, ends[-1 - left]


def longest_first(seconds: Floats, workers: int) -> float:
    """How long tasks of these run times take when each free worker gets the longest one left.

    >>> longest_first(np.array([1.0, 2.0, 1.0, 4.0]), workers=2)
    4.0
    """
    ends = [0.0] * workers
    for length in np.sort(seconds)[::-1][:_EXACT].tolist():
        heapq.heapreplace(ends, ends[0] + length)
    return max(*ends, float(seconds.sum()) / workers)  # the short ones left fill the gaps


def _tiny(main: Episode, pieces: Pieces) -> Iterator[Advice]:
    attempts = int(pieces.count.sum())
    mean = float(pieces.seconds.sum()) / attempts
    if mean < TINY and attempts >= 1000 and main.busy < 0.5:
        yield Advice(
            "The tasks are tiny: let each do more, so that the way to it costs less",
            f"{plural(attempts, 'attempt')} took {duration(mean)} each in the mean, and workers "
            f"were busy {percent(main.busy, 1)}.",
        )


def _processor(pieces: Pieces) -> Iterator[Advice]:
    known = ~np.isnan(pieces.cpu_time)
    work, cpu = float(pieces.seconds[known].sum()), float(pieces.cpu_time[known].sum())
    if work < ENOUGH:
        return
    basis = f"{duration(cpu)} of CPU time in {duration(work)} of work."
    if cpu < WAITING * work:
        yield Advice(
            f"Tasks computed for {percent(cpu, work)} of their time: where they waited for files "
            "or answers for the rest, more workers than cores would share the waiting",
            basis,
        )
    elif cpu > SPREADING * work:
        yield Advice(
            f"Each task used {cpu / work:.1f} cores: ask for that many a worker, or let the "
            "libraries in it use one thread",
            basis,
        )


def _alike(history: History, groups: Sequence[Alike]) -> Iterator[Advice]:
    final = sum(len(group.final) for group in groups)
    first = max(groups, key=lambda group: len(group.final), default=None)
    if first is None or final < 3 or len(first.final) < ALIKE * final:
        return
    most = "All" if len(first.final) == final else f"{number(len(first.final))} of"
    yield Advice(
        f"{most} {plural(final, 'failure')} are alike, {first.cause}: "
        f"mend that cause, then: fanfold retry {shlex.quote(one_line(history.name))}",
        "The same class, place, and message but for its numbers.",
    )


def _timeouts(history: History, groups: Sequence[Alike], pieces: Pieces) -> Iterator[Advice]:
    count = sum(len(group.failures) for group in groups if group.kind.endswith("TaskTimeout"))
    if not count:
        return
    ran = "attempt ran" if count == 1 else "attempts ran"
    known = "No task ended well before it."
    if pieces.ok.any():
        row = int(np.argmax(np.where(pieces.ok, pieces.each, -1)))
        slowest = duration(float(pieces.each[row]))
        known = f"The slowest that ended well, {pieces.tasks(row)}, took {slowest}."
    limit = history.asked.get("timeout")
    told = f" of {duration(limit)}" if isinstance(limit, int | float) else ""
    yield Advice(f"{number(count)} {ran} into the timeout{told}", known)


def _retries(
    history: History, groups: Sequence[Alike], pieces: Pieces, saved: set[int]
) -> Iterator[Advice]:
    if saved:
        causes: Counter[str] = Counter()
        for group in groups:
            hit = {failure.index for failure in group.failures} & saved
            causes[group.kind] += len(hit)
        told = [
            f"{kind} ({plural(count, 'task')})" for kind, count in causes.most_common() if count
        ]
        yield Advice(
            f"Retries helped: {plural(len(saved), 'task')} failed first and then had a result",
            f"They had failed with {listed(told[:5], max(0, len(told) - 5))}.",
        )
        return
    again = {failure.index for group in groups for failure in group.final if failure.attempt > 1}
    if again and history.state != "running":
        cost = float(pieces.seconds[(pieces.attempt > 1) & ~pieces.ok].sum())
        yield Advice(
            "Retries did not help: no task that failed once had a result later",
            f"{plural(len(again), 'task')} failed again, in {duration(cost)} of further work.",
        )


def _wasted(pieces: Pieces) -> Iterator[Advice]:
    work, lost = float(pieces.seconds.sum()), float(pieces.seconds[~pieces.ok].sum())
    if work >= ENOUGH and lost >= WASTE * work:
        yield Advice(
            f"{percent(lost, work)} of the work time went to attempts that failed",
            f"{duration(lost)} of {duration(work)}.",
        )
