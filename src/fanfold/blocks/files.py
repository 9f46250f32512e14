"""Sources whose bytes lie in a file as they are: ``.npy``, raw files, memory maps."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fanfold.blocks.grid import Region, block_shape, row_runs, shape_of
from fanfold.blocks.source import TILE, Array, Source, check_dtype
from fanfold.blocks.window import Window
from fanfold.errors import SourceChanged, UsageError

__all__ = ["FileSource", "of_memmap", "of_npy", "of_raw"]


class FileSource(Source):
    """``shape`` elements of ``stored`` dtype from byte ``offset`` of a file, in C order, or in
    Fortran's. Of a structured dtype it is the ``field``.

    Raises `UsageError` when the file is shorter than that.
    """

    copies = 1
    flat = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        stored: np.dtype[Any],
        shape: Sequence[int],
        *,
        offset: int = 0,
        fortran: bool = False,
        field: str | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.stored = stored
        self.field = field
        self.shape = tuple(shape)
        self.offset = offset
        self.fortran = fortran and len(self.shape) > 1
        if field is not None and field not in (stored.names or ()):
            raise UsageError(f"{path} has no field {field!r}; it has {stored.names or 'none'}")
        kind = check_dtype(stored if field is None else stored[field], str(path))
        self.dtype = kind.newbyteorder("=")
        status = os.stat(self.path)
        self.stamp = (status.st_size, status.st_mtime_ns)  # another file is other work, in a run
        if status.st_size < self._byte(self.size):
            raise UsageError(
                f"{path} has {status.st_size} bytes, and {self.size} elements of {stored} from "
                f"byte {offset} need {self._byte(self.size)}: it is not complete, or its shape or "
                "dtype are not these"
            )

    def part(self, most: int) -> tuple[int, ...] | None:
        if not self.fortran:
            return None
        column = (min(self.shape[0], most), *[1] * (len(self.shape) - 1))
        return block_shape(self.shape, column, most)

    def _byte(self, element: int) -> int:
        return self.offset + element * self.stored.itemsize

    @property
    def _as_meant(self) -> bool:
        """Whether the bytes of the file can be used where they lie."""
        return self.stored == self.dtype and self.offset % self.dtype.alignment == 0

    def _meant(self, raw: Array) -> Array:
        """Elements of bytes; those of another byte order, or beside others, are copied."""
        elements = raw.view(self.stored)
        if elements.dtype == self.dtype and elements.flags.aligned:
            return elements
        if self.field is not None:
            elements = elements[self.field]
        return np.require(elements, self.dtype, ["ALIGNED", "C"])

    def tiles(self, region: Region, most: int = TILE) -> Iterator[Array]:
        """Of a region of one axis, which is of the elements as they lie in the file."""
        if len(region) != 1:
            yield from super().tiles(region)
            return
        first, stop = region[0].start, region[0].stop
        with open(self.path, "rb", buffering=0) as file:
            fd = file.fileno()
            window = Window.open(fd, self._byte(first), self._byte(stop))
            begin = first
            if window is not None:
                size = most if self._as_meant else TILE
                try:
                    while begin < stop and window.holds():
                        size = size if stop - begin >= size else TILE
                        begin, last = min(stop, begin + size), begin
                        yield self._meant(window.view(self._byte(last), self._byte(begin)))
                finally:
                    window.release()
            if begin < stop:
                yield from self._tiles_read(fd, begin, stop)

    def _tiles_read(self, fd: int, first: int, stop: int) -> Iterator[Array]:
        self._read_ahead(fd, stop, stop - first)
        buffer = np.empty(TILE * self.stored.itemsize, np.uint8)
        for begin in range(first, stop, TILE):
            length = (min(stop, begin + TILE) - begin) * self.stored.itemsize
            yield self._meant(self._read_bytes(fd, self._byte(begin), buffer[:length]))

    def _read_ahead(self, fd: int, first: int, count: int) -> None:
        """Ask the kernel for what comes after a block, which another task will want soon."""
        if hasattr(os, "posix_fadvise") and first < self.size:
            length = min(2 * count, self.size - first) * self.stored.itemsize
            os.posix_fadvise(fd, self._byte(first), length, os.POSIX_FADV_WILLNEED)

    def read(self, region: Region) -> Array:
        shape, wanted = (self.shape, region)
        if self.fortran:
            shape, wanted = shape[::-1], region[::-1]
        out = np.empty(shape_of(wanted), self.stored)
        memory, done = out.reshape(-1).view(np.uint8) if out.size else out, 0
        with open(self.path, "rb", buffering=0) as file:
            for first, count in row_runs(shape, wanted) if out.size else ():
                length = count * self.stored.itemsize
                part = memory[done : done + length]
                self._read_bytes(file.fileno(), self._byte(first), part)
                done += length
        elements = out if self.field is None else out[self.field]
        if self.fortran:
            elements = elements.T
        return np.require(elements, self.dtype, ["ALIGNED", "C", "W"])

    def _read_bytes(self, fd: int, start: int, into: Array) -> Array:
        """Fill ``into`` with the bytes from ``start`` on. Raises `SourceChanged` at the end of the
        file: they were there when the work began."""
        done = 0
        while done < len(into):
            got = os.preadv(fd, [into[done:].data], start + done)
            if not got:
                raise SourceChanged(
                    f"{self.path} ends at byte {start + done}, and had {self.stamp[0]} bytes when "
                    "the work began: somebody cuts or replaces it. Work on a file that stays"
                )
            done += got
        return into

    def positions(self, region: Region, numbers: Array) -> Array:
        if len(region) != 1:
            return super().positions(region, numbers)
        places: Array = numbers + region[0].start
        if not self.fortran:
            return places
        axes = np.unravel_index(places, self.shape, order="F")
        return np.asarray(np.ravel_multi_index(axes, self.shape))


def of_npy(path: str | os.PathLike[str], field: str | None = None) -> FileSource:
    """The array in a ``.npy`` file. Raises `UsageError` for what is none."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran, stored = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran, stored = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"it is of format {version}, and 1 and 2 are known")
        except (ValueError, EOFError) as error:
            raise UsageError(f"{path} is no .npy file of numbers: {error}") from None
        offset = file.tell()
    return FileSource(path, stored, shape, offset=offset, fortran=fortran, field=field)


def of_raw(
    path: str | os.PathLike[str],
    dtype: Any,
    shape: int | Sequence[int] | None,
    offset: int,
    field: str | None = None,
) -> FileSource:
    """A file of nothing but elements, after ``offset`` bytes; without a shape, as many as there
    are. Raises `UsageError`."""
    stored = np.dtype(dtype)
    if shape is None:
        count, rest = divmod(os.stat(path).st_size - offset, max(1, stored.itemsize))
        if rest or count < 0:
            raise UsageError(
                f"{path} has {os.stat(path).st_size} bytes, which is no whole number of {stored} "
                f"after byte {offset}: give its dtype, and the shape or the offset"
            )
        shape = (count,)
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in lengths) or offset < 0:
        raise UsageError(f"shape={shape!r}, offset={offset!r}: write whole numbers, 0 or more")
    return FileSource(path, stored, lengths, offset=offset, field=field)


def of_memmap(array: np.memmap[Any, Any], field: str | None = None) -> FileSource:
    """The file behind a memory map, or behind a part of one that lies in one piece."""
    if array.filename is None or array.mode == "c":
        raise UsageError(
            "this memory map is not what its file holds (it is anonymous, or copy-on-write): open "
            'it as numpy.memmap(path, mode="r", ...)'
        )
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    if not (array.flags.c_contiguous or fortran):
        raise UsageError(
            "this part of a memory map does not lie in one piece: pass the whole map, or whole rows"
        )
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    base = np.frombuffer(owner, np.uint8).__array_interface__["data"][0]
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # where the map begins
    offset = begin + array.__array_interface__["data"][0] - base
    if array.mode != "r":
        array.flush()
    return FileSource(
        array.filename, array.dtype, array.shape, offset=offset, fortran=fortran, field=field
    )
