"""What is going to be read, and how many bytes that holds at once: told before it happens."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass, field
from typing import Any

from fanfold.blocks.grid import Grid
from fanfold.blocks.source import TILE, Source
from fanfold.errors import UsageError
from fanfold.executors.base import Executor
from fanfold.resources import cores
from fanfold.units import format_size

__all__ = ["Place", "Plan", "plan_own", "plan_tiles"]

_LARGEST = 16 * 2**20  # bytes: larger blocks are no quicker
_PROCESS = 48 * 2**20  # bytes: a worker process with NumPy, before it has read anything
_SCRATCH = 64  # bytes an element of a tile: the temporary arrays of the statistics
_STATES = 16  # values of blocks that wait, a worker, for their neighbours in the tree
_OWN_COPIES = 3  # blocks held in a function of the user's: the block, a temporary, the result


@dataclass(frozen=True)
class Plan:
    """How an array is going to be read.

    ``blocks`` blocks, of ``block_bytes`` at most, by ``workers`` workers ``on`` a place. Beyond
    the interpreter, they hold ``peak`` bytes at once, of the ``memory`` that they may.
    """

    blocks: int
    block_bytes: int
    workers: int
    on: str
    peak: int
    memory: int
    grid: Grid = field(repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.blocks} blocks of {format_size(self.block_bytes)} or less, {self.workers} at a "
            f"time on {self.on}: at most {format_size(self.peak)} of {format_size(self.memory)}"
        )


@dataclass(frozen=True)
class Place:
    """Where the work is to run, and how much memory it may take."""

    on: Any
    workers: int | None
    memory: int

    @property
    def fixed(self) -> bool:
        """Whether the workers are there already, however many there are."""
        return isinstance(self.on, concurrent.futures.Executor)

    @property
    def asked(self) -> int:
        if isinstance(self.on, Executor):
            return self.on.workers
        if self.on == "serial":
            return 1
        return int(cores()) if self.workers is None else self.workers

    @property
    def of_worker(self) -> int:
        """Bytes that a worker takes before it reads anything."""
        inside = not isinstance(self.on, str) or self.on in ("serial", "threads")
        return 0 if inside else _PROCESS


def plan_tiles(sources: tuple[Source, ...], place: Place, state: int = 0) -> Plan:
    """The plan for a statistic. Files are cut into smaller blocks where the budget is small.
    ``state`` is the size of what it keeps of a block, in bytes.

    Raises `UsageError` when one block is more than the budget.
    """
    width = sum(source.stored.itemsize for source in sources)
    held = sum(source.stored.itemsize * source.copies for source in sources)
    scratch = TILE * _SCRATCH * len(sources) + _STATES * state
    if all(source.flat for source in sources):
        room = place.memory // place.asked - place.of_worker - scratch
        tiles = 1
        while 2 * tiles * TILE * held <= min(_LARGEST, room):
            tiles *= 2
        grid = Grid.regular((sources[0].size,), (tiles * TILE,))
    else:  # the source that can be read in large pieces only says where to cut
        guide = next(source for source in sources if not source.flat)
        grid = guide.grid(_most(width, place))
    return _fitted(grid, width, held, scratch, place)


def plan_own(source: Source, place: Place) -> Plan:
    """The plan for a function of the user's, which is given whole blocks of the array's shape."""
    width = source.stored.itemsize
    held = width * (source.copies - 1 + _OWN_COPIES)
    return _fitted(source.grid(_most(width, place)), width, held, 0, place)


def _most(width: int, place: Place) -> int:
    """Elements of a block: the same for any number of workers, for bits may depend on it."""
    return max(1, min(_LARGEST, place.memory // 16) // width)


def _fitted(grid: Grid, width: int, held: int, scratch: int, place: Place) -> Plan:
    """As many workers as the budget allows, an element of a block being ``held`` bytes."""
    largest = grid.largest()
    each = max(1, largest * held + scratch + place.of_worker)
    fit = min(place.memory // each, place.asked)
    least = place.asked if place.fixed else 1
    if fit < least:
        raise UsageError(
            f"memory={format_size(place.memory)!r} is too little: a block of {largest} elements, "
            f"which is read as a whole, takes a worker {format_size(each)}, and there are {least}. "
            f'Give memory="{-(-each * least // 2**20)}MB" or more'
        )
    workers = max(1, min(fit, len(grid)))
    name = place.on if isinstance(place.on, str) else type(place.on).__name__
    return Plan(len(grid), largest * width, workers, name, workers * each, place.memory, grid)
