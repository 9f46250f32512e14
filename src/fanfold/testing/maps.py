"""The part of the kit about Executor.map."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanfold.testing.functions import Gate, divide, mark, square
from fanfold.testing.kit import ExecutorKit

__all__ = ["MapTests"]


class Counted:
    """An iterator that knows how many items were drawn from it."""

    def __init__(self, items: Iterator[int]) -> None:
        self.items = items
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.drawn += 1
        return next(self.items)


class MapTests(ExecutorKit):
    """What `concurrent.futures` says about `map`, with Python 3.14's ``buffersize``."""

    def buffered_map(
        self, executor: cf.Executor, items: Iterator[int], buffersize: int
    ) -> Iterator[Any]:
        if not self.buffersize:
            pytest.skip("its map takes no buffersize (the standard executors: Python 3.14)")
        options: dict[str, Any] = {"buffersize": buffersize}
        return executor.map(square, items, **options)

    def test_map_in_order(self, executor: cf.Executor) -> None:
        """map gives results in the order of the inputs, as the built-in map."""
        assert list(executor.map(square, range(200))) == list(map(square, range(200)))

    def test_map_several_iterables(self, executor: cf.Executor) -> None:
        """map takes several iterables and stops with the shortest."""
        assert list(executor.map(pow, [2, 3, 4], range(10))) == [1, 3, 16]

    def test_map_of_nothing(self, executor: cf.Executor) -> None:
        """map over nothing gives nothing."""
        assert list(executor.map(square, [])) == []

    @pytest.mark.parametrize("chunksize", [1, 3, 1000])
    def test_map_with_chunksize(self, executor: cf.Executor, chunksize: int) -> None:
        """Results do not depend on chunksize."""
        results = executor.map(pow, range(100), itertools.repeat(2), chunksize=chunksize)
        assert list(results) == [number**2 for number in range(100)]

    def test_map_exception(self, executor: cf.Executor) -> None:
        """map gives the results before the failed task, then raises its exception."""
        results = executor.map(divide, [1, 1, 1, 1], [2, 4, 0, 8])
        assert next(results) == 0.5
        assert next(results) == 0.25
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_map_starts_at_once(self, tmp_path: Path) -> None:
        """The tasks of a map run even when nobody asks for their results."""
        with self.make(max_workers=2) as executor:
            executor.map(mark, [tmp_path] * 10, range(10))
        assert len(list(tmp_path.iterdir())) == 10

    def test_map_with_timeout(self, executor: cf.Executor, gate: Gate) -> None:
        """map(timeout) raises TimeoutError when a result is not there in time."""
        results = executor.map(gate.wait, ["slow"], timeout=0.05)
        with pytest.raises(TimeoutError):
            next(results)

    def test_map_within_timeout(self, executor: cf.Executor) -> None:
        """map(timeout) changes nothing for results that are there in time."""
        assert list(executor.map(square, range(10), timeout=30)) == [n * n for n in range(10)]

    def test_map_with_buffersize(self, executor: cf.Executor) -> None:
        """Results do not depend on buffersize."""
        assert list(self.buffered_map(executor, iter(range(50)), 3)) == [n * n for n in range(50)]

    def test_buffersize_bounds_what_is_drawn(self, executor: cf.Executor) -> None:
        """map(buffersize=4) never draws more than 4 inputs beyond the results it gave."""
        items = Counted(itertools.count())
        results = self.buffered_map(executor, items, 4)
        assert items.drawn <= 4
        for taken in range(1, 20):
            next(results)
            assert items.drawn <= taken + 4

    def test_map_of_infinite_input(self, executor: cf.Executor) -> None:
        """With buffersize an infinite input may be left at any time; the executor goes on."""
        results = self.buffered_map(executor, itertools.count(), 5)
        assert list(itertools.islice(results, 20)) == [number**2 for number in range(20)]
        del results
        assert executor.submit(square, 3).result(timeout=30) == 9

    @pytest.mark.parametrize("buffersize", [0, -1])
    def test_buffersize_is_positive(self, executor: cf.Executor, buffersize: int) -> None:
        """buffersize below 1 is a ValueError."""
        with pytest.raises(ValueError, match="buffersize"):
            list(self.buffered_map(executor, iter([1]), buffersize))
