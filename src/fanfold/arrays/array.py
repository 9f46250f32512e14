"""share and SharedArray: one array that many workers see."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from fanfold.arrays.lock import SharedLock, mark
from fanfold.arrays.memory import Mapping, Place, attach, create, place_of
from fanfold.errors import SharedGone, UsageError

__all__ = ["SharedArray", "share"]

_Array = np.ndarray[Any, np.dtype[Any]]
_PIECE = 1 << 20  # bytes copied at a time from an array that is not contiguous


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array in memory that many workers see. `share` makes one.

    It is an array like any other, and its slices are too. Both pickle as handles of a few hundred
    bytes, inside other arguments as well: whoever loads one sees the same memory. What is computed
    from it (``shared + 1``, ``shared.mean(axis=0)``) is a plain array; copies of it (``copy()``,
    ``shared[mask]``) are private, and travel as other arrays do.

    >>> import fanfold as ff, numpy as np
    >>> def negate(array, index):
    ...     array[index] = -array[index]
    >>> with ff.share(np.arange(4), writable=True) as shared:
    ...     _ = ff.starmap(negate, [(shared, index) for index in range(4)], on="processes")
    ...     shared.tolist()
    [0, -1, -2, -3]
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Refused: there is an array to share, or a file to open."""
        raise UsageError("write ff.share(array), or ff.SharedArray.open(path) for a file")

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, writable: bool = False) -> SharedArray:
        """The array in an ``.npy`` file, as `share` or `numpy.save` wrote it, mapped.

        Raises `UsageError` for another file, and `SharedGone` for one that has been cut.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = share(np.eye(2), path=f"{folder}/unit.npy")
        ...     SharedArray.open(f"{folder}/unit.npy").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        place = place_of(path)
        form = _read_header(place.path)
        return _view(attach(place, writable=writable), **form)

    @property
    def lock(self) -> SharedLock:
        """The lock of the whole array, for changes that several workers make to one place.

        Raises `UsageError` where this process cannot change the array.
        """
        lock = self._shared().lock
        if lock is None:
            raise UsageError(
                "this array is read-only here, so there is nothing to lock: "
                "share it with ff.share(array, writable=True)"
            )
        return lock

    @property
    def path(self) -> str:
        """The file that it lies in."""
        return self._shared().place.path

    def close(self) -> None:
        """Remove it: nobody can attach to it any more; who has it may go on. A file of yours stays.

        Only the process that shared it can; elsewhere this does nothing.
        """
        self._shared().let_go()

    def __enter__(self) -> SharedArray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __array_wrap__(
        self, array: _Array, context: object = None, return_scalar: bool = False
    ) -> Any:
        """What NumPy asks for its results: they are plain, unless written into this array."""
        return array if array is self else np.asarray(array)[()]

    def __reduce_ex__(self, protocol: Any) -> Any:
        mapping = _mapping_of(self)
        if mapping is None:  # a copy
            return np.asarray(self).__reduce_ex__(protocol)
        offset = _address(self) - _address(np.frombuffer(mapping, np.uint8, 1))
        form = {
            "shape": self.shape,
            "dtype": self.dtype,
            "strides": self.strides,
            "offset": offset,
        }
        return _attach, (mapping.handle(), self.flags.writeable, form)

    def _shared(self) -> Mapping:
        mapping = _mapping_of(self)
        if mapping is None:
            raise UsageError("this is a private copy of a shared array: share it with ff.share")
        return mapping


def share(
    array: Any, *, writable: bool = False, path: str | os.PathLike[str] | None = None
) -> SharedArray:
    """Copy an array once into memory that all workers see, whatever place they run in.

    ``array`` is anything that `numpy.asarray` takes, of any number of dimensions and any dtype
    without Python objects. Nobody can change what is shared, its owner included, unless
    ``writable``: then ``shared.lock`` is there to change it one at a time.

    It lives as long as this process keeps it: `SharedArray.close`, the end of a ``with`` block,
    the last reference or the end of the process remove it. Where shared memory is too small, it
    lies in a file in the temporary folder, with a warning. With ``path`` it becomes a new ``.npy``
    file there, for the elements of a job array on a file system that all nodes see; that one is
    yours, and stays.

    What is shared already is not copied again. Raises `UsageError` for Python objects or a path
    that exists, and `NoSpace`.

    >>> import fanfold as ff, numpy as np
    >>> with ff.share(np.ones((1000, 1000))) as shared:
    ...     sums = ff.map(np.sum, np.array_split(shared, 4), on="processes")
    >>> float(sum(sums))
    1000000.0
    """
    if path is None and _mapping_of(array) is not None and array.flags.writeable == writable:
        shared: SharedArray = array.view(SharedArray)
        return shared
    source = _plain(array)
    header = b"" if path is None else _npy_header(source)
    size = len(header) + source.nbytes

    def pieces() -> Iterator[bytes | memoryview]:
        yield header
        yield from _bytes_of(source)
        yield mark(size)

    mapping = create(pieces, size + len(mark(size)), path, writable=writable)
    order = "F" if _is_fortran(source) else "C"
    return _view(mapping, shape=source.shape, dtype=source.dtype, order=order, offset=len(header))


def _plain(array: Any) -> _Array:
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError("a masked array is two arrays: share array.data and array.mask")
    try:
        plain = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise UsageError(f"this is no array: {error}") from error
    _refuse_objects(plain.dtype)
    return plain


def _refuse_objects(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise UsageError(
            f"an array of dtype {dtype} holds Python objects, which are where one process has "
            'them: give it another type (.astype(float), .astype("U20") for text), or pass it '
            "as it is"
        )


def _is_fortran(array: _Array) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def _bytes_of(array: _Array) -> Iterator[memoryview]:
    """The elements in C order, or in the order in which they lie. Without a second copy of all."""
    if array.nbytes == 0:
        return
    ordered = array.T if _is_fortran(array) else array
    if ordered.flags.c_contiguous:
        yield _flat(ordered)
        return
    flags: Any = ["external_loop", "buffered"]
    step = max(1, _PIECE // array.itemsize)
    for piece in np.nditer(array, flags=flags, order="C", buffersize=step):
        yield _flat(np.ascontiguousarray(piece))


def _flat(array: _Array) -> memoryview:
    """The bytes of an array that is contiguous; not every dtype has a buffer of its own."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def _view(mapping: Mapping, **form: Any) -> SharedArray:
    """An array over the bytes of a mapping; ``form`` is what `numpy.ndarray` takes."""
    try:
        return np.ndarray.__new__(SharedArray, buffer=mapping, **form)
    except (TypeError, ValueError) as error:
        raise SharedGone(
            f"{mapping.place.path} is shorter than the array it should hold: it has been cut, or "
            "never written to its end"
        ) from error


def _attach(place: Place, writable: bool, form: dict[str, Any]) -> SharedArray:
    return _view(attach(place, writable=writable), **form)


def _mapping_of(array: Any) -> Mapping | None:
    """What an array is a view of; None when it has memory of its own."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, Mapping) else None


def _address(array: _Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


# Files


def _npy_header(array: _Array) -> bytes:
    about = np.lib.format.header_data_from_array_1_0(array)
    header = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(header, about)
    except UnicodeEncodeError as error:
        raise UsageError(f"names of fields must be Latin in a file: {error}") from error
    except ValueError:  # many fields: only the second version has room for them
        np.lib.format.write_array_header_2_0(header, about)
    return header.getvalue()


def _read_header(path: str) -> dict[str, Any]:
    """The form of the array in an ``.npy`` file."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version > (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not an .npy file that can be read: {error}") from error
    _refuse_objects(dtype)
    return {"shape": shape, "dtype": dtype, "order": "F" if fortran else "C", "offset": offset}
