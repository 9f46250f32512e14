"""A new ``.npy`` file that has its name only when it is complete, and room for it on the disk."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fanfold.errors import NoSpace

__all__ = ["Unfinished", "new_file", "reserve_room", "room_for"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Unfinished(NamedTuple):
    """The file while it is written: its passing name, where its data begin, and whether they were
    begun before."""

    path: str
    offset: int
    begun: bool


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    kept: str | None = None,
) -> Iterator[Unfinished]:
    """Make a ``.npy`` file of that size under a passing name. At the end of the block it is renamed
    to ``path``; after an error it is removed, or, where it is ``kept`` under that word, left to go
    on with.

    Raises `NoSpace` before anything is written when the disk has no room for it.
    """
    target = Path(os.path.abspath(path))
    passing = target.with_name(f".{target.name}.{kept or uuid.uuid4().hex[:8]}.part")
    header = _header(dtype, shape)
    size = len(header) + int(np.prod(shape, dtype=object)) * dtype.itemsize
    begun = kept is not None and _is_begun(passing, header, size)
    try:
        if not begun:
            with room_for(target):
                _begin(passing, header, size)
        yield Unfinished(str(passing), len(header), begun)
        with open(passing, "r+b") as file, room_for(target):
            os.fsync(file.fileno())
        os.replace(passing, target)
    except BaseException:
        if kept is None or not _is_begun(passing, header, size):
            passing.unlink(missing_ok=True)
        raise


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, {**described, "shape": shape})
    return header.getvalue()


def _begin(path: Path, header: bytes, size: int) -> None:
    with open(path, "wb") as file:
        file.write(header)
        file.flush()
        reserve_room(file.fileno(), size)
        os.ftruncate(file.fileno(), size)


def _is_begun(path: Path, header: bytes, size: int) -> bool:
    """Whether there is such a file, of the same array."""
    try:
        with open(path, "rb") as file:
            return file.read(len(header)) == header and os.fstat(file.fileno()).st_size == size
    except FileNotFoundError:
        return False


def reserve_room(fd: int, size: int) -> None:
    """Have the disk keep room for so many bytes of a file, where the file system can."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno in _FULL:
                raise


@contextlib.contextmanager
def room_for(
    path: str | os.PathLike[str], what: str = "the result, nothing of it is kept"
) -> Iterator[None]:
    """A full disk is `NoSpace`, which names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            text = f"no room for {what}: {error.strerror}"
            raise NoSpace(error.errno, text, os.fspath(path)) from None
        raise
