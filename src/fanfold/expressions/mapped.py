"""Memory-mapped operands: what the file system could do to us is looked at before.

The kernel ends a process that touches a page which is not in the file any more, or for which the
disk has no room: there is nothing to catch then.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

from fanfold.errors import UsageError
from fanfold.expressions.newfile import reserve_room, room_for

__all__ = ["check_file", "let_go", "lies_in", "reserve"]

Array = np.ndarray[Any, Any]


def check_file(name: str, array: Array) -> None:
    """Raise `UsageError` when the file of a memory map has become shorter than the map."""
    mapped = _map_of(array)
    if mapped is not None and mapped.size() < len(mapped):
        raise UsageError(
            f"the file behind {name} has {mapped.size()} bytes, and had {len(mapped)} when it was "
            "mapped: somebody cut it. Map it again with its present shape"
        )


def reserve(array: Array) -> None:
    """Have the disk keep room for all of a memory map that is written. Raises `NoSpace`."""
    path = getattr(array, "filename", None)
    if path is None or _map_of(array) is None:
        return
    with open(path, "r+b") as file:
        status = os.fstat(file.fileno())
        if status.st_blocks * 512 < status.st_size:
            with room_for(path, f"the {status.st_size} bytes of out"):
                reserve_room(file.fileno(), status.st_size)


def lies_in(array: Array, path: str) -> bool:
    """Whether the array is a map of this file."""
    mapped = getattr(array, "filename", None)
    return mapped is not None and os.path.exists(path) and os.path.samefile(mapped, path)


def let_go(array: Array) -> None:
    """Unmap the pages of a part of a memory map that has been written: until they are touched again
    they are the system's to write and to keep, and no memory of ours."""
    mapped = _map_of(array)
    if mapped is None or getattr(array, "mode", None) not in ("r+", "w+"):  # others would be lost
        return
    if not array.size or not array.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    begin = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, begin, start + array.nbytes - begin)


def _map_of(array: Array) -> mmap.mmap | None:
    """The memory map that an array is a view of."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) and not owner.closed else None
