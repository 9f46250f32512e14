"""How long tasks took: the distribution, and the slowest."""

from __future__ import annotations

import numpy as np

from fanfold.reports.distribution import histogram, quantiles
from fanfold.reports.document import Facts, Histogram, Item, Paragraph, Section, Table
from fanfold.reports.pieces import Pieces
from fanfold.reports.scales import DURATION
from fanfold.reports.words import duration, number, one_line, plural, size

__all__ = ["times"]

FEWEST = 5  # attempts from which a distribution tells more than the list of them
MOST_SLOW = 10


def times(pieces: Pieces) -> Section | None:
    """The run times of all attempts, those that failed included."""
    if not len(pieces):
        return None
    items: list[Item] = []
    attempts = int(pieces.count.sum())
    if attempts >= FEWEST:
        items += [_quantiles(pieces), _distribution(pieces)]
        together = int(pieces.count[pieces.count > 1].sum())
        if together:
            items.append(
                Paragraph(
                    f"{number(together)} of the attempts were too short to be timed one by one: "
                    "each counts with the mean of those that were timed together."
                )
            )
    items.append(_slowest(pieces))
    return Section("Run times", tuple(items))


def _distribution(pieces: Pieces) -> Histogram:
    title = f"Run times of {plural(int(pieces.count.sum()), 'attempt')}"
    columns = (pieces.each, pieces.count, pieces.ok)
    return histogram(title, *columns, DURATION, "run time of a task", logarithmic=True)


def _quantiles(pieces: Pieces) -> Facts:
    names = ("fastest", "median", "90 % within", "99 % within", "slowest")
    found = quantiles(pieces.each, pieces.count, (0.0, 0.5, 0.9, 0.99, 1.0))
    mean = float(pieces.seconds.sum() / pieces.count.sum())
    rows = [*zip(names, map(duration, found), strict=True), ("mean", duration(mean))]
    return Facts(tuple(rows), short=True)


def _slowest(pieces: Pieces) -> Table:
    most = min(MOST_SLOW, len(pieces))
    largest = np.argpartition(pieces.each, len(pieces) - most)[len(pieces) - most :]
    rows = []
    for row in sorted(largest.tolist(), key=lambda row: (-pieces.each[row], pieces.first[row])):
        _, worker = pieces.workers[pieces.worker[row]]
        cpu = float(pieces.cpu_time[row]) / int(pieces.count[row])
        rows.append(
            (
                pieces.tasks(row),
                duration(float(pieces.each[row])),
                duration(cpu),
                size(float(pieces.peak_memory[row])),
                one_line(worker, 40),
                str(int(pieces.attempt[row])),
                "done" if pieces.ok[row] else "failed",
            )
        )
    columns = ("task", "run time", "CPU time", "peak memory", "worker", "attempt", "ended")
    return _without_empty(Table("The slowest", columns, tuple(rows), _FIGURES))


_FIGURES = frozenset({"run time", "CPU time", "peak memory", "attempt"})


def _without_empty(table: Table) -> Table:
    """The table without the columns that have nothing to say."""
    kept = [
        index
        for index in range(len(table.columns))
        if any(row[index] != "unknown" for row in table.rows)
    ]
    return table._replace(
        columns=tuple(table.columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
    )
