"""How much memory tasks needed at their peak."""

from __future__ import annotations

import numpy as np

from fanfold.reports.distribution import histogram, quantiles
from fanfold.reports.document import Facts, Item, Paragraph, Section, Table
from fanfold.reports.pieces import Pieces
from fanfold.reports.scales import SIZE
from fanfold.reports.words import duration, number, one_line, plural, size

__all__ = ["memory"]

FEWEST = 5  # attempts from which a distribution tells more than the list of them
MOST_LARGE = 5


def memory(pieces: Pieces) -> Section | None:
    """The peak memory of all attempts of which it is known."""
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
    items.append(_largest(pieces, known[np.argsort(-peaks, kind="stable")[:MOST_LARGE]].tolist()))
    if attempts < int(pieces.count.sum()):
        unknown = int(pieces.count.sum()) - attempts
        items.append(Paragraph(f"Of {number(unknown)} attempts the peak memory is not known."))
    return Section("Memory", tuple(items))


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
