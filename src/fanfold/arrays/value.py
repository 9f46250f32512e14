"""SharedValue: one number that many workers see and change."""

from __future__ import annotations

import operator
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

from fanfold.arrays.lock import SharedLock, mark
from fanfold.arrays.memory import Mapping, Place, attach, create, place_of
from fanfold.errors import UsageError

__all__ = ["SharedValue"]

# The file: eight bytes that tell the kind, the base, a flag for each group of cells, the cells, and
# the mark of the lock. Each cell has 64 bytes, a cache line, of which 8 are used: workers that add
# at the same time do not slow each other down.
_KINDS = {"q": b"ffvalueq", "d": b"ffvalued"}
_HEADER = 64
_LINE = 64
_GROUP = 64  # cells that are read together
_GROUPS = 16
_FLAGS = slice(16, 16 + _GROUPS)


class SharedValue:
    """A number in memory that all workers of this machine share: an integer or a float.

    ``value`` is what it begins with; its type stays. It pickles as a handle of a few hundred
    bytes, inside other arguments too, and is one object in each process. With ``path``, a new file
    there holds it, which elements of a job array see too, on whatever node; the file is yours, and
    stays. Without, it lives as long as this process keeps it: `close`, the last reference or the
    end of the process remove it.

    Raises `UsageError` for what is no real number, or for a path that exists, and `NoSpace`.

    >>> import fanfold as ff
    >>> with ff.SharedValue(0) as counter:
    ...     _ = ff.map(counter.add, [1, 2, 3], on="threads")
    ...     counter.value
    6
    """

    def __init__(self, value: float = 0, *, path: str | os.PathLike[str] | None = None) -> None:
        content = _content(value, with_cells=path is None)
        self._bind(create(lambda: [content], len(content), path, writable=True))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SharedValue:
        """The value that the file at ``path`` holds. Raises `UsageError` when it holds none.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = SharedValue(2.5, path=f"{folder}/total")
        ...     SharedValue.open(f"{folder}/total") is found
        True
        """
        return _attach(place_of(path))

    def _bind(self, mapping: Mapping) -> None:
        kind = next((kind for kind, magic in _KINDS.items() if mapping[:8] == magic), None)
        if kind is None or len(mapping) < _HEADER:
            raise UsageError(f"{mapping.place.path} is not the file of a SharedValue")
        assert mapping.lock is not None  # it is writable  # noqa: S101
        self._mapping = mapping
        self._lock = mapping.lock
        view = memoryview(mapping)
        self._base: memoryview[Any] = view[8:16].cast(kind)  # type: ignore[call-overload]
        self._flags = view[_FLAGS]
        cells = len(view[_HEADER:]) // _LINE if mapping.place.is_memory() else 0
        self._cells = view[_HEADER : _HEADER + cells * _LINE].cast("q")[:: _LINE // 8]
        self._seen = 0, 0  # the lock's turn, and what others had added then
        self._start()
        _values[id(mapping)] = self

    def _start(self) -> None:
        """This process has no cells yet."""
        self._local = threading.local()
        self._guard = threading.RLock()
        self._next = 0
        self._free: list[int] = []

    @property
    def lock(self) -> SharedLock:
        """The lock of this value, for changes that depend on what it was."""
        return self._lock

    @property
    def path(self) -> str:
        """The file that it lies in."""
        return self._mapping.place.path

    @property
    def value(self) -> Any:
        """The number. Setting it takes the lock; ``value.value += 1`` must hold it all along:

        two workers that both read 1, and then both write 2, have lost one of the two. What
        others `add` while the lock is held is never lost: it comes after.

        >>> with SharedValue(1) as value, value.lock:
        ...     value.value *= 10
        ...     value.value
        10
        """
        own = self._own()
        others = self._sum() - own
        if self._lock.held:
            self._seen = self._lock.turn, others
        return self._base[0] + others + own

    @value.setter
    def value(self, number: float) -> None:
        with self._lock:
            turn, others = self._seen
            if turn != self._lock.turn:  # what was read under this lock is what is changed
                others = self._sum() - self._own()
            with self._fitting(number):
                self._base[0] = number - others - self._own()

    def add(self, amount: float = 1) -> None:
        """Add to it; nothing is lost, whoever else adds at the same time.

        An integer in memory takes no lock for that: each thread adds to a cell of its own, and
        reading sums them. A float, or a value with a path, takes the lock.

        Raises `UsageError` when the sum does not fit: integers have 64 bits.
        """
        try:
            cell = self._local.cell
        except AttributeError:
            cell = self._claim()
        if cell is None:
            with self._lock, self._fitting(amount):
                self._base[0] += amount
            return
        try:
            cell[0] += amount
        except (TypeError, ValueError) as error:
            raise self._misfit(amount) from error

    @contextmanager
    def _fitting(self, number: object) -> Iterator[None]:
        try:
            yield
        except (TypeError, ValueError) as error:
            raise self._misfit(number) from error

    def _misfit(self, number: object) -> UsageError:
        holds = "an integer of 64 bits" if self._base.format == "q" else "a float"
        return UsageError(f"{number!r} does not fit: this SharedValue holds {holds}")

    # Cells

    def _claim(self) -> memoryview[int] | None:
        """A cell for this thread; None where there is none (left), and the lock has to do."""
        self._local.cell = None
        with self._guard:
            index = self._free.pop() if self._free else self._next_index()
        if index is not None:
            self._local.seat = _Seat(index, self._free)
            self._local.cell = self._cells[index : index + 1]
        return self._local.cell  # type: ignore[no-any-return]

    def _next_index(self) -> int | None:
        """A cell that no living process has: each holds a lock on the byte of its cells."""
        while self._next < len(self._cells):
            index = self._next
            self._next += 1
            if self._lock.keep_byte(1 + index):
                used = index // _GROUP + 1
                self._flags[:used] = b"\1" * used
                return index
        return None

    def _own(self) -> int:
        """What this thread has in its cell."""
        cell = getattr(self._local, "cell", None)
        return 0 if cell is None else cell[0]

    def _sum(self) -> int:
        """What is in all cells that have been used."""
        used = sum(self._flags)
        return sum(self._cells[: _GROUP * used].tolist()) if used else 0

    # Life

    def close(self) -> None:
        """Remove it: nobody can attach to it any more; who has may go on. A file of yours stays."""
        self._mapping.let_go()

    def __enter__(self) -> SharedValue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._mapping.handle(),)

    def __repr__(self) -> str:
        return f"SharedValue({self.value!r})"


class _Seat:
    """A cell that a thread has: given back to its process when the thread ends."""

    def __init__(self, index: int, free: list[int]) -> None:
        self._index = index
        self._free = free

    def __del__(self) -> None:
        self._free.append(self._index)


def _content(value: object, *, with_cells: bool) -> bytes:
    """What the file of a value begins as. Cells are for integers that no other machine sees."""
    kind, number = _number(value)
    try:
        base = struct.pack(kind, number)
    except struct.error as error:
        raise UsageError(f"{value!r} does not fit into 64 bits") from error
    cells = _GROUP * _GROUPS if with_cells and kind == "q" else 0
    content = (_KINDS[kind] + base).ljust(_HEADER + cells * _LINE, b"\0")
    return content + mark(len(content))


def _number(value: object) -> tuple[str, float]:
    """The kind of a number, "q" or "d", and the number as Python has it."""
    try:
        return "q", int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        if isinstance(value, Real):
            return "d", float(value)
    raise UsageError(
        f"{value!r} is no integer or float: share other things as an array, "
        "ff.share(np.array(...), writable=True)"
    )


_values: weakref.WeakValueDictionary[int, SharedValue] = weakref.WeakValueDictionary()
_guard = threading.RLock()


def _attach(place: Place) -> SharedValue:
    """The value at a place: the same object each time, in one process."""
    mapping = attach(place, writable=True)
    with _guard:
        value = _values.get(id(mapping))
        if value is None:
            value = SharedValue.__new__(SharedValue)
            value._bind(mapping)
        return value


def _start_in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for value in list(_values.values()):
        value._start()


os.register_at_fork(after_in_child=_start_in_child)
