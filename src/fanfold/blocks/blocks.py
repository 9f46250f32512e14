"""`Blocks`: the front of arrays larger than memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fanfold.blocks.files import of_npy
from fanfold.blocks.grid import Region
from fanfold.blocks.opening import Asked, open_source
from fanfold.blocks.plan import Place, Plan, plan_own, plan_tiles
from fanfold.blocks.quantiles import CountDigits, quantiles
from fanfold.blocks.reduction import OwnReduction, Reduction, TileReduction
from fanfold.blocks.running import execute, mark
from fanfold.blocks.source import Array, Source
from fanfold.blocks.statistics import (
    Arg,
    Comoments,
    Counts,
    Extreme,
    Fit,
    LinearFit,
    Sum,
    Variance,
    line,
)
from fanfold.blocks.writing import MapTask
from fanfold.errors import UsageError
from fanfold.executors import registry
from fanfold.executors.base import worker_count
from fanfold.expressions.newfile import new_file
from fanfold.expressions.stored import Stored
from fanfold.runs.prepare import Resume
from fanfold.units import parse_size

__all__ = ["Blocks"]

_OWN = ("map", "reduce")


class Blocks:
    """An array that is read block by block, never more than ``memory`` of it at a time.

    Parameters:
        source: the path of a file: ``.npy``, ``.h5`` or ``.hdf5``, ``.zarr``, ``.csv`` or ``.tsv``,
            ``.parquet``; any other is raw, nothing but elements. Or a `numpy.memmap`, a dataset of
            h5py or an array of Zarr.
        memory: the most that all workers together hold, in bytes or as text such as "256MB",
            beyond the interpreter itself.
        dtype, shape, offset: of a raw file: the elements, the lengths of its axes (default: one
            axis, up to the end), the bytes before the first element. ``dtype`` is also what the
            cells of a CSV column are read as; default float64.
        column: the name of a column of a table, or of a field of a structured dtype.
        key: the name of an array within an HDF5 file or a Zarr group.
        on: the place: "threads", or any that `map` knows. NumPy computes outside of the lock of the
            interpreter, so threads use every core; processes help where reading takes Python or a
            lock, as in CSV and HDF5.
        workers: how many blocks are read at once; by default `cores`, or what the budget allows.
        run: a name: statistics are then durable runs, "NAME-mean" and so on, that go on where they
            stood when the same is asked for again (see `fanfold.run`).

    Results have the dtype and, within the bounds of docs/guides/mean-of-a-large-file.md, the value
    that NumPy would give; their bits are the same on any place and any number of workers.

    Raises `UsageError` before any work: for a file shorter than its shape says, a dtype that is
    not of numbers, a budget that is too small for one block. `SourceChanged` when a file is cut
    while it is read.

    >>> import numpy as np, fanfold as ff
    >>> np.save("numbers.npy", np.arange(1_000_000.0))
    >>> blocks = ff.Blocks("numbers.npy", memory="64MB")
    >>> float(blocks.mean()), float(blocks.max())
    (499999.5, 999999.0)
    """

    def __init__(
        self,
        source: Any,
        *,
        memory: int | str = "256MB",
        dtype: Any = None,
        shape: int | Sequence[int] | None = None,
        offset: int = 0,
        column: str | None = None,
        key: str | None = None,
        on: Any = "threads",
        workers: int | None = None,
        run: str | None = None,
    ) -> None:
        self._source = open_source(source, Asked(dtype, shape, offset, column, key))
        count = None if workers is None else worker_count(workers, 1)
        self._place = Place("threads" if on == "auto" else on, count, _bytes(memory))
        self._run = run
        registry.check(self._place.on)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, in the byte order of this machine."""
        return self._source.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._source.size

    def __repr__(self) -> str:
        return f"Blocks({self._source}, shape={self.shape}, dtype={self.dtype})"

    def __stored__(self) -> Stored:
        """What `fanfold.evaluate` takes this array for, when it is a variable of an expression."""
        source = self._source
        return Stored(
            source.shape,
            source.dtype,
            source.path,
            source.read,
            source.part,
            source.stored.itemsize * (source.copies + 1),
            self._place.memory,
        )

    def plan(self, method: str = "mean") -> Plan:
        """How many blocks a method is going to read, how large, and the bytes that it will hold.

        ``str()`` of it says so in a sentence. Raises `UsageError` when the budget is too small.

        >>> import numpy as np, fanfold as ff
        >>> np.save("numbers.npy", np.arange(1_000_000.0))
        >>> plan = ff.Blocks("numbers.npy", memory="64MB", workers=2).plan()
        >>> plan.blocks, plan.peak < 64 * 2**20
        (1, True)
        """
        if method not in vars(Blocks) or method.startswith("_"):
            raise UsageError(f"plan({method!r}): name a method, such as 'mean' or 'map'")
        if method in _OWN:
            return plan_own(self._source, self._place)
        sources = (self._source,) * (2 if method == "linear_fit" else 1)
        state = CountDigits((0, 1), 16, 0).state if method == "quantile" else 0
        return plan_tiles(sources, self._place, state)

    # Statistics -----------------------------------------------------------------------------------

    def sum(self) -> Any:
        """`numpy.sum` of all elements: integers wrap as they do there."""
        example = np.sum(np.zeros(1, self.dtype))
        if not self.size:
            return example
        modular = self.dtype.kind in "biu"
        total = self._reduced(Sum(modular), "sum")
        if modular:
            bits = 8 * example.dtype.itemsize
            total %= 2**bits
            total -= 2**bits if example.dtype.kind == "i" and total >> (bits - 1) else 0
        return _as(total, example.dtype)

    def mean(self) -> Any:
        """`numpy.mean` of all elements; of none NaN, with its warning."""
        if not self.size:
            return np.mean(self._nothing())
        total = self._reduced(Sum(modular=False), "mean")
        return _as(total / self.size, np.mean(np.zeros(1, self.dtype)).dtype)

    def var(self, ddof: int = 0) -> Any:
        """`numpy.var` of all elements: ``ddof=1`` for a sample."""
        return self._variance(ddof, "var")

    def std(self, ddof: int = 0) -> Any:
        """`numpy.std` of all elements: ``ddof=1`` for a sample."""
        return np.sqrt(self._variance(ddof, "std"))

    def _variance(self, ddof: int, name: str) -> Any:
        if not self.size:
            return np.var(self._nothing(), ddof=ddof)
        squares = self._reduced(Variance(), name).squares
        if self.size <= ddof:
            warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=3)
        with np.errstate(all="ignore"):
            variance = squares / max(self.size - ddof, 0)
        return _as(variance, np.var(np.zeros(1, self.dtype)).dtype)

    def min(self) -> Any:
        """`numpy.min` of all elements: NaN when there is one. Raises `ValueError` for none."""
        return self._reduced(Extreme("minimum"), "min") if self.size else np.min(self._nothing())

    def max(self) -> Any:
        """`numpy.max` of all elements: NaN when there is one. Raises `ValueError` for none."""
        return self._reduced(Extreme("maximum"), "max") if self.size else np.max(self._nothing())

    def argmin(self) -> int:
        """`numpy.argmin`: where, in the flattened array, the least element is; the first of them.

        `numpy.unravel_index` with `shape` makes an index of it. Raises `ValueError` for none.
        """
        if not self.size:
            return int(np.argmin(self._nothing()))
        return int(self._reduced(Arg("argmin"), "argmin")[1])

    def argmax(self) -> int:
        """`numpy.argmax`: where, in the flattened array, the greatest element is."""
        if not self.size:
            return int(np.argmax(self._nothing()))
        return int(self._reduced(Arg("argmax"), "argmax")[1])

    def histogram(
        self,
        bins: int | Sequence[float] = 10,
        range: tuple[float, float] | None = None,  # noqa: A002
    ) -> tuple[Array, Array]:
        """`numpy.histogram`: how many elements lie in each bin, and the edges of the bins.

        ``bins`` is their number or their edges. Without a ``range`` the array is read twice, first
        for its least and its greatest element.
        """
        if isinstance(bins, str):
            raise UsageError(f"bins={bins!r} needs all elements at once: write a number, or edges")
        if range is None and np.ndim(bins) == 0 and self.size:
            range = (self.min(), self.max())  # noqa: A001
        ends = self._nothing() if range is None else np.array(range)
        edges = np.histogram_bin_edges(ends, bins, range)  # and its errors
        if not self.size:
            return np.histogram(self._nothing(), bins, range)
        return self._reduced(Counts(bins, range), f"histogram-{mark(bins, range)}"), edges

    def quantile(self, q: float | Sequence[float], *, passes: int | None = None) -> Any:
        """`numpy.quantile` of all elements, exactly; or nearly, in fewer passes over the array.

        An exact one takes a pass for every two bytes of the dtype: 4 for float64. After fewer
        ``passes`` it is an `Estimate`: a value, and how far off it may be at most, which for
        float64 is 6 % after one, 5e-7 after two and 7e-12 after three. NaN when there is a NaN.
        """
        if not self.size:
            return np.quantile(self._nothing(), q)
        wanted = np.asarray(q, np.float64)
        found = quantiles(self._reduced, self.dtype, self.size, wanted.reshape(-1), passes)
        if wanted.ndim:
            return found if passes is not None else np.array(found)
        return found[0]

    def linear_fit(self, y: Any) -> LinearFit:
        """The line of least squares ``y = slope * x + intercept``, this array being ``x``.

        ``y`` is another `Blocks`, or what one is made of, of the same shape.
        """
        other = y if isinstance(y, Blocks) else Blocks(y)
        if other.shape != self.shape:
            raise UsageError(f"y has shape {other.shape}, and x {self.shape}: they go in pairs")
        if "c" in (self.dtype.kind, other.dtype.kind):
            raise UsageError("a line is fitted to real numbers, and these are complex")
        if not self.size:
            return line(Comoments(0, 0, 0, 0, 0, 0))
        return line(self._reduced(Fit(), "linear_fit", other._source))

    # The user's own -------------------------------------------------------------------------------

    def map(
        self, func: Callable[[Array], Any], out: str | os.PathLike[str], *, dtype: Any = None
    ) -> Blocks:
        """Write what ``func`` makes of each block to a new ``.npy`` file, and give its `Blocks`.

        ``func`` gets arrays, whole rows where they fit, and returns arrays of the same shape.
        ``dtype`` is that of the file; by default that of what ``func`` makes of the first element.
        ``out`` has its name only when it is complete, and keeps what it was until then. With
        ``run=`` the blocks that were written before a death stay, in a hidden file beside ``out``,
        and the same call goes on with the others; when the file is complete it begins anew.

        Raises `NoSpace` before any work when the disk has no room.

        >>> import numpy as np, fanfold as ff
        >>> np.save("numbers.npy", np.arange(6.0).reshape(2, 3))
        >>> doubled = ff.Blocks("numbers.npy").map(lambda block: 2 * block, "doubled.npy")
        >>> np.load("doubled.npy").tolist()
        [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]
        """
        plan = self.plan("map")
        kind = np.dtype(dtype) if dtype is not None else self._made_by(func)
        if kind.hasobject:
            raise UsageError("the function makes Python objects, and a file takes numbers")
        name = self._name(f"map-{mark(os.path.abspath(out))}")
        with new_file(out, kind, self.shape, name) as new:
            safe = name is not None
            task = MapTask(self._source, plan.grid, func, new.path, kind, new.offset, safe)
            if self.size:
                resume: Resume = "ask" if new.begun else "fresh"
                execute(task, plan, self._place, None, name, resume)
        return Blocks(
            of_npy(out), memory=self._place.memory, on=self._place.on, workers=self._place.workers
        )

    def _made_by(self, func: Callable[[Array], Any]) -> np.dtype[Any]:
        first: Region = tuple(slice(0, min(1, length)) for length in self.shape)
        return np.asarray(func(self._source.read(first))).dtype

    def reduce(
        self,
        map: Callable[[Array], Any],  # noqa: A002
        combine: Callable[[Any, Any], Any],
        finalize: Callable[[Any], Any] | None = None,
    ) -> Any:
        """A statistic of your own: ``map`` makes a value of a block, ``combine`` one of two.

        The blocks are arrays, whole rows where they fit; ``combine`` must be associative and
        follows a fixed tree, as in `map_reduce`. ``finalize`` is called with what is left.

        >>> import numpy as np, fanfold as ff
        >>> np.save("numbers.npy", np.arange(6.0).reshape(2, 3))
        >>> ff.Blocks("numbers.npy").reduce(lambda b: (b > 1).sum(), lambda a, b: a + b, int)
        4
        """
        plan = self.plan("reduce")
        task = OwnReduction(self._source, plan.grid, map)
        if not plan.blocks:
            value = map(np.empty(self.shape, self.dtype))
        else:
            value = execute(task, plan, self._place, combine, self._name("reduce"))
        return value if finalize is None else finalize(value)

    # ----------------------------------------------------------------------------------------------

    def _reduced(self, reduction: Reduction, name: str, *others: Source) -> Any:
        sources = (self._source, *others)
        plan = plan_tiles(sources, self._place, reduction.state)
        task = TileReduction(sources, plan.grid, reduction)
        return execute(task, plan, self._place, task.combine, self._name(name))

    def _name(self, method: str) -> str | None:
        return None if self._run is None else f"{self._run}-{method}"

    def _nothing(self) -> Array:
        """An array of no elements: what NumPy says about one is what we say."""
        return np.empty(0, self.dtype)


def _as(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number as a NumPy number of that dtype, as a reduction of NumPy gives it."""
    with np.errstate(all="ignore"):
        return dtype.type(value)


def _bytes(memory: int | str) -> int:
    if isinstance(memory, str):
        return parse_size(memory)
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise UsageError(f'memory={memory!r}: write bytes, or text such as "256MB"')
    return memory
