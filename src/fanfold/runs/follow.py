"""What the elements of a run write, as it comes: the reports of their tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from fanfold.errors import LoadFailed, RunDamaged
from fanfold.runs.arrays import Array
from fanfold.runs.frames import Frames
from fanfold.runs.results import exception_of, loaded_from
from fanfold.runs.state import Where
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import records_from
from fanfold.tasks import Report

__all__ = ["Follower"]

Record = dict[str, Any]


class Follower:
    """Reads the journals of job arrays, and tells of each task once. A context manager.

    Raises `RunUntrusted` where somebody else could have written what is to be unpickled.
    """

    def __init__(
        self, directory: RunDirectory, run: str, arrays: Iterable[Array], *, trust: bool
    ) -> None:
        directory.check_private(trust)
        self._directory = directory
        self._elements: set[int] = set()
        self._frames = Frames(directory, run)
        self._offsets: dict[tuple[int, int], int] = {}
        self._told: set[int] = set()
        self.add(arrays)

    def add(self, arrays: Iterable[Array]) -> None:
        """Read the journals of these, too."""
        self._elements.update(number for array in arrays for number in array.elements)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.__exit__()

    def reports(self) -> Iterator[Report]:
        """What has ended since the last time."""
        for element, attempt in self._directory.writers():
            if element in self._elements:
                key = element, attempt
                path = self._directory.journal(*key)
                records: list[Record] = []
                with suppress(RunDamaged):  # told by who reads the whole, as below
                    records, self._offsets[key] = records_from(path, self._offsets.get(key, 0))
                for record in records:
                    with suppress(RunDamaged):
                        yield from self._reports(element, attempt, record)

    def _reports(self, element: int, attempt: int, record: Record) -> Iterator[Report]:
        done = record["is"] == "done"
        if not done and not (record["is"] == "failed" and record["final"]):
            return
        tasks = range(record["first"], record["first"] + record.get("count", 1))
        new = [index for index in tasks if index not in self._told]
        if not new:
            return
        where = Where(element, attempt, tasks.start, len(tasks), tuple(record["place"]))
        try:
            loaded = loaded_from(self._frames.read(where), tasks.start)
            values = list(loaded) if done else [exception_of(*loaded)]
        except LoadFailed as error:
            values, done = [error] * len(tasks), False
        seconds = float(sum(piece[2] for piece in record["ran"]))
        peak = max((piece[4] or 0 for piece in record["ran"]), default=0)
        worker = f"element {element}, {record['worker']}"
        report = Report(
            tasks.start, values, seconds, () if done else tuple(tasks), record["try"], worker, peak
        )
        self._told.update(new)
        if len(new) == len(tasks):
            yield report
        else:  # some of them were done by an earlier attempt
            yield from (report.part(index, index + 1) for index in new)
