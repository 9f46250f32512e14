"""Arrays that travel as the name of their file, and are mapped into memory where they arrive."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Mapped", "Maps", "holds_arrays"]

_MODES = {"r": "r", "r+": "r+", "w+": "r+"}


class Mapped(NamedTuple):
    """Where an array lies: ``offset`` in bytes, ``order`` "C" or "F", ``mode`` of `numpy.memmap`.

    >>> import numpy as np, tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     np.arange(6.0).tofile(file.name)
    ...     Mapped(file.name, np.dtype(float), (2,), "C", 16, "r").open().tolist()
    [2.0, 3.0]
    """

    path: str
    dtype: Any
    shape: tuple[int, ...]
    order: Any
    offset: int
    mode: Any

    def open(self) -> np.memmap[Any, Any]:
        import numpy as np

        return np.memmap(
            self.path, self.dtype, self.mode, self.offset, shape=self.shape, order=self.order
        )


def holds_arrays(calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> bool:
    """Is one of the arguments of these calls, as `joblib.delayed` makes them, an array?

    It is asked for every task, so that all of it happens in C.

    >>> holds_arrays([(divmod, (7, 2), {}), (int, ("12",), {"base": 3})])
    False
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    positional = chain.from_iterable(map(itemgetter(1), calls))
    named = chain.from_iterable(map(dict.values, map(itemgetter(2), calls)))
    kinds = set(map(type, chain(positional, named)))
    return any(issubclass(kind, numpy.ndarray) for kind in kinds)


class Maps:
    """What the arguments of one call of `joblib.Parallel` travel as.

    Arrays that are maps of files (`numpy.memmap`) travel as references to them. With ``keep``, for
    workers that share a file system and no memory, so do other arrays of ``least`` bytes or more:
    each is kept once in a file in ``folder`` (None: the current folder) until `close`, and mapped
    with ``mode``.
    """

    def __init__(
        self, *, keep: bool, folder: str | None, least: int | None, mode: str | None
    ) -> None:
        self._keeps = keep and least is not None and mode is not None
        self._parent = folder
        self._least = least or 0
        self._mode = _MODES.get(mode or "", mode)
        self._folder: str | None = None
        self._kept: dict[int, tuple[weakref.ref[Any], Mapped]] = {}

    def reference(self, value: Any) -> Any:
        """The value, or the `Mapped` that stands for it."""
        import numpy as np

        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return value
        mapped = _of_file(value)
        if mapped is not None:
            return mapped
        if self._keeps and type(value) is np.ndarray and value.nbytes >= max(1, self._least):
            return self._keep(value)
        return value

    def _keep(self, array: np.ndarray[Any, Any]) -> Mapped:
        known = self._kept.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        if self._folder is None:
            parent = os.path.abspath(self._parent or os.curdir)
            self._folder = tempfile.mkdtemp(prefix="fanfold-joblib-", dir=parent)
        path = os.path.join(self._folder, f"{len(self._kept)}-{id(array):x}.bin")
        order = _order(array) or "C"
        (array.T if order == "F" else array).tofile(path)
        mapped = Mapped(path, array.dtype, array.shape, order, 0, self._mode)
        self._kept[id(array)] = (weakref.ref(array), mapped)
        return mapped

    def close(self) -> None:
        """Remove the files that were kept."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._kept.clear()


def _order(array: np.ndarray[Any, Any]) -> str | None:
    if array.flags.c_contiguous:
        return "C"
    return "F" if array.flags.f_contiguous else None


def _of_file(array: np.ndarray[Any, Any]) -> Mapped | None:
    """The part of a file that an array is; None when it is none that another process can map."""
    import numpy as np

    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    order = _order(array)
    if not isinstance(root, np.memmap) or root.mode not in _MODES or order is None:
        return None
    path = root.filename
    if path is None or not array.size or not os.path.exists(path):
        return None
    if root.mode != "r":
        with suppress(OSError, ValueError):
            root.flush()
    inside = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    offset = root.offset + inside
    return Mapped(os.fspath(path), array.dtype, array.shape, order, offset, _MODES[root.mode])
