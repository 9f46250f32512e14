"""How much memory tasks needed at their peak."""

from __future__ import annotations

import numpy as np

from fanfold.reports.distribution import histogram, quantiles
from fanfold.reports.document import Facts, Item, Paragraph, Section, Table
from fanfold.reports.pieces import Integers, Pieces
from fanfold.reports.scales import SIZE
from fanfold.reports.words import duration, number, one_line, plural, size

__all__ = ["memory"]

FEWEST = 5  # attempts from which a distribution tells more than the list of them
MOST_LARGE = 5
MOST_WORKERS = 12


def memory(pieces: Pieces, shared: int = 0, spilled: int = 0) -> Section | None:
    """The peak memory of all attempts of which it is known, and whether that of a worker grew.

    ``shared`` and ``spilled`` are bytes that lay in shared memory, and in files instead.
    """
    known = np.flatnonzero(~np.isnan(pieces.peak_memory))
    if not len(known):
        return None
    peaks, counts = pieces.peak_memory[known], pieces.count[known]
    attempts = int(counts.sum())
    items: list[Item] = []
    if attempts >= FEWEST:
        found = quantiles(peaks, counts, (0.0, 0.5, 0.9, 1.0))
        names = ("smallest", "median", "90 % within", "largest")
        items.append(Facts(tuple(zip(names, map(size, found), strict=True)), short=True))
        title = f"Peak memory of {plural(attempts, 'attempt')}"
        items.append(
            histogram(title, peaks, counts, pieces.ok[known], SIZE, "peak memory of a worker")
        )
        items.append(_of_workers(pieces, known))
    items.append(_largest(pieces, known[np.argsort(-peaks, kind="stable")[:MOST_LARGE]].tolist()))
    if attempts < int(pieces.count.sum()):
        unknown = int(pieces.count.sum()) - attempts
        items.append(Paragraph(f"Of {number(unknown)} attempts the peak memory is not known."))
    if shared or spilled:
        items.append(Paragraph(_outside(shared, spilled), warning=bool(spilled)))
    return Section("Memory", tuple(items))


def _outside(shared: int, spilled: int) -> str:
    """What no worker had alone: the system counts it for each that has touched it."""
    told = f"At the most {size(shared)} lay in shared memory, once for all workers"
    if spilled:
        told += f", and {size(spilled)} in files in TMPDIR, because shared memory was full"
    return f"{told}. Each peak counts what that worker has touched of it."


def _of_workers(pieces: Pieces, known: Integers) -> Table:
    """Does a worker keep what its tasks leave? Then the last peak is higher than the first."""
    rows = known[np.lexsort((pieces.began[known], pieces.worker[known]))]
    found = np.split(rows, np.flatnonzero(np.diff(pieces.worker[rows])) + 1)
    found.sort(key=lambda own: -float(pieces.peak_memory[own].max()))
    shown = (
        (
            one_line(pieces.workers[pieces.worker[own[0]]][1], 40),
            number(int(pieces.count[own].sum())),
            *(size(float(pieces.peak_memory[row])) for row in (own[0], own[-1])),
            size(float(pieces.peak_memory[own].max())),
        )
        for own in found[:MOST_WORKERS]
    )
    columns = ("worker", "attempts", "first peak", "last peak", "largest")
    title = "Peak memory of each worker"
    if len(found) > MOST_WORKERS:
        title = f"Peak memory of the largest {MOST_WORKERS} of {len(found)} workers"
    return Table(title, columns, tuple(shown), frozenset(columns[1:]))


def _largest(pieces: Pieces, rows: list[int]) -> Table:
    columns = ("task", "peak memory", "run time", "worker", "ended")
    shown = (
        (
            pieces.tasks(row),
            size(float(pieces.peak_memory[row])),
            duration(float(pieces.each[row])),
            one_line(pieces.workers[pieces.worker[row]][1], 40),
            "done" if pieces.ok[row] else "failed",
        )
        for row in rows
    )
    return Table("The largest", columns, tuple(shown), frozenset({"peak memory", "run time"}))
