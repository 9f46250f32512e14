"""The result of `Blocks.map`: each block goes to its place in a new file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanfold.blocks.grid import Grid, row_runs
from fanfold.blocks.source import Array, Source
from fanfold.errors import UsageError
from fanfold.expressions.newfile import room_for

__all__ = ["MapTask"]


@dataclass(frozen=True)
class MapTask:
    """The task of a block: its result goes to its place in the file, and, where it has to be
    ``safe`` from the death of the machine, to the disk. Called with its number."""

    source: Source
    grid: Grid
    func: Callable[[Array], Any]
    path: str
    dtype: np.dtype[Any]
    offset: int
    safe: bool = False

    def __call__(self, number: int) -> None:
        region = self.grid[number]
        block = self.source.read(region)
        result = np.asarray(self.func(block))
        if result.shape != block.shape:
            raise UsageError(
                f"the function made an array of shape {result.shape} of a block of shape "
                f"{block.shape}: map keeps the shape. For anything else there is reduce"
            )
        written = result.astype(self.dtype, order="C", casting="same_kind", copy=False)
        self._write(np.ascontiguousarray(written).reshape(-1).view(np.uint8), region)

    def _write(self, data: Array, region: tuple[slice, ...]) -> None:
        itemsize, done = self.dtype.itemsize, 0
        with open(self.path, "r+b", buffering=0) as file, room_for(self.path):
            for first, count in row_runs(self.source.shape, region):
                start, stop = self.offset + first * itemsize, done + count * itemsize
                while done < stop:
                    wrote = os.pwrite(file.fileno(), data[done:stop].data, start)
                    start, done = start + wrote, done + wrote
            if self.safe:
                os.fsync(file.fileno())
