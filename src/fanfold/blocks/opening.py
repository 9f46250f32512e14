"""From what a user names to a source: by the type of an object, or by the ending of a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fanfold.blocks.files import of_memmap, of_npy, of_raw
from fanfold.blocks.source import Source
from fanfold.errors import UsageError

__all__ = ["Asked", "open_source"]


@dataclass(frozen=True)
class Asked:
    """The options of a source."""

    dtype: Any = None
    shape: int | Sequence[int] | None = None
    offset: int = 0
    column: str | None = None
    key: str | None = None


def open_source(source: Any, asked: Asked) -> Source:
    """The source that an object or a path stands for. Raises `UsageError`."""
    if isinstance(source, Source):
        _only(asked, "a source")
        return source
    if isinstance(source, np.memmap):
        _only(asked, "a memory map", "column")
        return of_memmap(source, asked.column)
    package = type(source).__module__.partition(".")[0]
    if package == "h5py":
        _only(asked, "a dataset")
        return _hdf5(source.file.filename, Asked(key=source.name))
    if package == "zarr":
        _only(asked, "an array of Zarr")
        return _of_zarr(source)
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(
            f"Blocks reads a path, a numpy.memmap, a dataset of h5py or an array of Zarr, not "
            f"{type(source).__name__}"
            + (": this array is in memory, numpy can do it" * isinstance(source, np.ndarray))
        )
    path = Path(source)
    if not path.exists():
        raise UsageError(f"there is no file {os.fspath(path)}: check its name and folder")
    return _KINDS.get(path.suffix.lower(), _raw)(path, asked)


def _only(asked: Asked, what: str, *allowed: str) -> None:
    """Raise `UsageError` for an option that says nothing about such a source."""
    for name, value in vars(asked).items():
        if value not in (None, 0) and name not in allowed:
            takes = " and ".join(f"{one}=" for one in allowed) or "no such option"
            raise UsageError(f"{name}={value!r} says nothing about {what}, which takes {takes}")


def _npy(path: Path, asked: Asked) -> Source:
    _only(asked, "an .npy file", "column")
    return of_npy(path, asked.column)


def _raw(path: Path, asked: Asked) -> Source:
    _only(asked, "a raw file", "dtype", "shape", "offset", "column")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and not one of Zarr, which ends in .zarr")
    if asked.dtype is None:
        raise UsageError(
            f"{path} is read as a raw file, for its ending tells nothing: say what its elements "
            'are, as dtype="float64", and shape=(rows, columns) where it has rows'
        )
    return of_raw(path, asked.dtype, asked.shape, asked.offset, asked.column)


def _hdf5(path: str | Path, asked: Asked) -> Source:
    _only(asked, "an HDF5 file", "key")
    from fanfold.blocks.chunked import of_hdf5

    return of_hdf5(path, asked.key)


def _zarr(path: Path, asked: Asked) -> Source:
    _only(asked, "a Zarr folder", "key")
    from fanfold.blocks.chunked import ZarrSource

    return ZarrSource(path, asked.key)


def _of_zarr(array: Any) -> Source:
    from fanfold.blocks.chunked import ZarrSource

    return ZarrSource.of_array(array)


def _csv(path: Path, asked: Asked) -> Source:
    _only(asked, "a CSV file", "column", "dtype")
    from fanfold.blocks.tables import CsvSource

    return CsvSource(path, asked.column, asked.dtype)


def _parquet(path: Path, asked: Asked) -> Source:
    _only(asked, "a Parquet file", "column")
    from fanfold.blocks.tables import ParquetSource

    return ParquetSource(path, asked.column)


_KINDS: dict[str, Callable[[Path, Asked], Source]] = {
    ".npy": _npy,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".zarr": _zarr,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
