"""Sources that store an array in chunks: HDF5 and Zarr."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fanfold.blocks.files import FileSource
from fanfold.blocks.grid import Region
from fanfold.blocks.source import Array, Source, check_dtype
from fanfold.errors import SourceChanged, UsageError
from fanfold.extras import need

__all__ = ["HDF5Source", "ZarrSource", "of_hdf5"]


def of_hdf5(path: str | os.PathLike[str], key: str | None) -> Source:
    """The dataset ``key`` of an HDF5 file; the only one there is, without a key.

    One that is stored in one piece is read from the file as any other. Raises `UsageError`.
    """
    with _hdf5(path) as file:
        name = _only_key(_datasets(file), key, path)
        data = file[name]
        offset = data.id.get_offset()
        if data.chunks is None and offset is not None and not data.external:
            return FileSource(path, data.dtype, data.shape, offset=offset)
        return HDF5Source(path, name, data)


class HDF5Source(Source):
    """A dataset of an HDF5 file, in chunks, compressed or not."""

    def __init__(self, path: str | os.PathLike[str], key: str, data: Any) -> None:
        self.path, self.key = os.path.abspath(path), key
        if data.shape is None:
            raise UsageError(f"{key} of {path} holds nothing")
        self.shape = tuple(data.shape)
        self._chunk = tuple(data.chunks or (1,) * len(self.shape))
        self.stored = check_dtype(data.dtype, f"{key} of {path}")
        self.dtype = self.stored.newbyteorder("=")
        self.stamp = _stamp(self.path)

    def __str__(self) -> str:
        return f"{self.path!r}, key={self.key!r}"

    @property
    def chunk(self) -> tuple[int, ...]:
        return self._chunk

    def read(self, region: Region) -> Array:
        try:
            with _hdf5(self.path) as file:
                return np.asarray(file[self.key][region], self.dtype)
        except (OSError, KeyError, UsageError) as error:
            raise SourceChanged(f"{self.path} cannot be read any more: {error}") from None


def _hdf5(path: str | os.PathLike[str]) -> Any:
    need("h5py", "arrays", "reading HDF5 files")
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UsageError(f"{os.fspath(path)} cannot be read as HDF5: {error}") from None


def _datasets(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
    return names


class ZarrSource(Source):
    """An array in a Zarr folder. Chunks, or shards where there are some, are read as a whole."""

    copies = 3

    def __init__(self, path: str | os.PathLike[str], key: str | None) -> None:
        self.path, self.key = os.path.abspath(path), key
        data = self._open()
        self.shape = tuple(data.shape)
        self._chunk = tuple(getattr(data, "shards", None) or data.chunks)
        self.stored = check_dtype(np.dtype(data.dtype), str(path))
        self.dtype = self.stored.newbyteorder("=")
        self.stamp = _stamp(self.path)

    @classmethod
    def of_array(cls, array: Any) -> ZarrSource:
        """The source of an array that is open. Raises `UsageError` unless it is in a folder."""
        root = getattr(array.store, "root", None)
        if root is None:
            raise UsageError("this array of Zarr is not in a folder of a file system")
        return cls(root, array.path or None)

    def __str__(self) -> str:
        return f"{self.path!r}" + (f", key={self.key!r}" if self.key else "")

    @property
    def chunk(self) -> tuple[int, ...]:
        return self._chunk

    def _open(self) -> Any:
        need("zarr", "arrays", "reading Zarr arrays")
        import zarr

        try:
            found: Any = zarr.open(self.path, mode="r", path=self.key)
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"there is no Zarr array in {self.path}: {error}") from None
        if isinstance(found, zarr.Array):
            return found
        self.key = _only_key([name for name, _ in found.arrays()], self.key, self.path)
        return found[self.key]

    def read(self, region: Region) -> Array:
        return np.asarray(self._open()[region], self.dtype)


def _only_key(names: list[str], key: str | None, path: str | os.PathLike[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key.strip("/") not in names:
        there = ", ".join(map(repr, sorted(names)[:8])) or "none"
        wrong = f"has no array {key!r}" if key else "needs key="
        raise UsageError(f"{os.fspath(path)} {wrong}: its arrays are {there}")
    return key.strip("/")


def _stamp(path: str) -> tuple[int, int]:
    """What tells a file, or a folder, from what it was before."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
