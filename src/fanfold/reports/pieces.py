"""The pieces of a history as columns: a million of them are told of in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanfold.history import Piece

__all__ = ["Floats", "Integers", "Pieces", "task_names"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LATEST = 1e11  # seconds since 1970: the year 5138; what is beyond is no time, but damage


class Pieces:
    """Columns with a row for each piece; what is not known is NaN.

    ``each`` are the seconds of one task, ``seconds`` those of the piece. ``worker`` is a position
    in ``workers``, the pairs of a writer and the name of a worker.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        def column(index: int) -> list[Any]:
            return list(map(itemgetter(index), pieces))

        self.first: Integers = np.array(column(0), dtype=np.int64)
        self.count: Integers = np.maximum(np.array(column(1), dtype=np.int64), 1)
        known: dict[tuple[str, str], int] = {}
        codes = [known.setdefault(key, len(known)) for key in map(itemgetter(2, 3), pieces)]
        self.worker: Integers = np.array(codes, dtype=np.int64)
        self.workers = list(known)
        self.attempt: Integers = np.array(column(4), dtype=np.int64)
        self.began = _measured(column(5), _LATEST)
        self.seconds = np.nan_to_num(_measured(column(6), _LATEST))
        self.cpu_time = _measured(column(7), _LATEST)
        self.peak_memory = _measured(column(8), 2.0**63)
        self.ok: NDArray[np.bool_] = np.array(column(9), dtype=np.bool_)
        self.each = self.seconds / self.count
        self.ended = self.began + self.seconds

    def __len__(self) -> int:
        return len(self.first)

    def done(self, indices: Sequence[int]) -> NDArray[np.bool_]:
        """For each index, whether a piece says that this task ended with a result."""
        begins = np.sort(self.first[self.ok])
        ends = np.sort((self.first + self.count)[self.ok])
        wanted = np.array(indices, dtype=np.int64)
        begun = np.searchsorted(begins, wanted, side="right")
        return begun > np.searchsorted(ends, wanted, side="right")

    def tasks(self, row: int) -> str:
        """The tasks of a piece in words.

        >>> Pieces([Piece(10, 5, "e0-a1", "worker 0", 1, None, 0.1, None, None, True)]).tasks(0)
        'tasks 10 to 14'
        """
        return task_names(int(self.first[row]), int(self.count[row]))


def task_names(first: int, count: int) -> str:
    """Consecutive tasks in words.

    >>> task_names(7, 1)
    'task 7'
    """
    return f"task {first}" if count == 1 else f"tasks {first} to {first + count - 1}"


def _measured(values: list[Any], most: float) -> Floats:
    """Numbers from 0 to ``most``; everything else is not known."""
    numbers = np.array(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((numbers >= 0) & (numbers <= most), numbers, np.nan)
