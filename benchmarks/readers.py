"""Who computes the mean of a file that is larger than memory: contenders of the case about it."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.contenders import CONTENDERS, Contender

__all__ = ["READERS", "Reader"]


class Reader(Contender):
    """``mean`` gives the mean of the array in a ``.npy`` file, by ``workers`` threads where it
    can; who only reads gives 0."""

    module = "numpy"

    def start(self) -> None:
        """Nothing is started before there is work."""

    def close(self) -> None:
        """Nothing is left."""

    @abstractmethod
    def mean(self, path: Path) -> float:
        """The mean."""


class Blocks(Reader):
    name = "ff.Blocks"
    module = "fanfold"

    def mean(self, path: Path) -> float:
        blocks = self.library.Blocks(path, memory="256MB", workers=self.workers)
        return float(blocks.mean())


class Rows(Reader):
    """A loop over the rows of a memory map, as one writes it."""

    name = "NumPy rows"

    def mean(self, path: Path) -> float:
        table = self.library.load(path, mmap_mode="r")
        total = 0.0
        for row in table:
            total += float(row.sum())
        return total / table.size


class DaskArray(Reader):
    """Its own way: chunks of a memory map, in threads."""

    name = "dask.array"
    module = "dask"

    def start(self) -> None:
        import dask.array
        import numpy as np

        self.arrays, self.numpy = dask.array, np

    def mean(self, path: Path) -> float:
        mapped = self.numpy.load(path, mmap_mode="r")
        array = self.arrays.from_array(mapped, chunks="auto", name=False)  # no hash of it
        with self.library.config.set(scheduler="threads", num_workers=self.workers):
            return float(array.mean().compute())


class PlainRead(Reader):
    """Nothing is computed: the file is read into one buffer again and again."""

    name = "plain read"

    def mean(self, path: Path) -> float:
        buffer = bytearray(2**20)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        return 0.0


class PlainReads(Reader):
    """The same by as many threads as there are workers, each a part of the file."""

    name = "plain read, in threads"

    def mean(self, path: Path) -> float:
        size = path.stat().st_size
        bounds = [size * part // self.workers for part in range(self.workers + 1)]
        with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(self.workers) as threads:

            def read(first: int, stop: int) -> None:
                buffer = bytearray(2**20)
                while first < stop:
                    first += os.preadv(file.fileno(), [buffer], first)

            list(threads.map(read, bounds, bounds[1:]))
        return 0.0


class Cubed(Reader):
    """Its threads; parts of a memory map of 4 MB, for it projects several of them for a task."""

    name = "cubed"
    module = "cubed"

    def start(self) -> None:
        import cubed
        import cubed.array_api
        import numpy as np
        from cubed.runtime.create import create_executor

        self.arrays, self.numpy = cubed, np
        self.threads = create_executor("threads")

    def mean(self, path: Path) -> float:
        mapped = self.numpy.load(path, mmap_mode="r")
        chunks = (max(1, 2**19 // max(1, mapped[..., :].size // len(mapped))), *mapped.shape[1:])
        with tempfile.TemporaryDirectory() as folder:
            spec = self.arrays.Spec(work_dir=folder, allowed_mem="256MB")
            array = self.arrays.from_array(mapped, chunks=chunks, spec=spec)
            mean = self.arrays.array_api.mean(array)
            return float(mean.compute(executor=self.threads, max_workers=self.workers))


READERS: tuple[type[Reader], ...] = (Blocks, Rows, DaskArray, Cubed, PlainRead, PlainReads)
CONTENDERS.update({kind.name: kind for kind in READERS})
