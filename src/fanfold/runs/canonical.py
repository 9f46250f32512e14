"""One form for equal values: the same bytes in every process and for every hash seed.

What is equal in content has the same form, whatever the order of its sets and dictionaries and
whatever its members share. Types distinguish: 1, 1.0, True and "1" differ.
"""

from __future__ import annotations

import copyreg
import math
import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["Canonical", "UnstableError", "closure_of", "code_form", "fold"]

_TOO_DEEP = "it is nested too deeply"
_BUFFER = 1 << 16  # elements copied at a time from an array that is not contiguous


class UnstableError(Exception):
    """A value has no form that another process would give it.

    ``value`` is the innermost such; ``why`` says more than its type does, or nothing.
    """

    def __init__(self, value: object, why: str = "") -> None:
        super().__init__(value, why)
        self.value = value
        self.why = why


class _CycleError(Exception):
    """A value holds itself."""


class Canonical:
    """Makes the canonical form of values: short for plain ones, a digest for all others.

    Arrays count by dtype, shape and content, in whatever order they lie in memory; functions by
    what they are compiled to, with their defaults and closures; classes by name; all other objects
    by the parts that pickle would store.

    >>> Canonical().of({1, 2}) == Canonical().of({2, 1})
    True
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._done: dict[int, tuple[bytes, Any]] = {}  # the values too, to keep their ids theirs
        self._numbers: dict[int, tuple[int, Any]] | None = None

    def of(self, value: object) -> bytes:
        """The form of ``value``. Raises `UnstableError`."""
        outer, self._numbers = self._numbers, None
        try:
            return self.form(value)
        except _CycleError:
            return self._of_cycle(value)
        except RecursionError as error:
            raise UnstableError(value, _TOO_DEEP) from error
        finally:
            self._numbers = outer

    def form(self, value: object) -> bytes:
        """As `of`, for a part of a value."""
        plain = _PLAIN.get(type(value))
        if plain is not None:
            return plain(value)
        if self._numbers is None:
            return self._nested(value)
        return self._numbered(value, self._numbers)

    def code(self, value: Any) -> bytes | None:
        """The form of what is code rather than data; None for data."""
        kind = type(value)  # and not isinstance(), which would ask a proxy what it stands for
        if issubclass(kind, ModuleType):
            return fold(b"module", [value.__name__.encode()])
        if issubclass(kind, type):
            return fold(b"class", [str(value.__module__).encode(), value.__qualname__.encode()])
        if kind is FunctionType:
            state = (value.__qualname__, value.__defaults__, value.__kwdefaults__)
            closure = [self.form(held) for _, held in closure_of(value)]
            return fold(b"function", [code_form(value.__code__), self.form(state), *closure])
        return None

    def unstable(self, value: object) -> bytes:
        """What stands for a value that has no stable form."""
        raise UnstableError(value)

    def _nested(self, value: object) -> bytes:
        """By content alone. Fails for a value that holds itself."""
        key = id(value)
        if key in self._done:
            return self._done[key][0]
        if key in self._open:
            raise _CycleError
        self._open.add(key)
        try:
            form = self._compose(value)
        finally:
            self._open.discard(key)
        self._done[key] = form, value
        return form

    def _of_cycle(self, value: object) -> bytes:
        self._numbers = {}
        try:
            return self.form(value)
        except _CycleError as error:
            raise UnstableError(value, "it holds itself in a set or a key") from error
        except RecursionError as error:
            raise UnstableError(value, _TOO_DEEP) from error

    def _numbered(self, value: object, numbers: dict[int, tuple[int, Any]]) -> bytes:
        """By content and by what is the same object: the way for values that hold themselves."""
        key = id(value)
        if key in numbers:
            return b"#%d" % numbers[key][0]
        numbers[key] = len(numbers), value
        return self._compose(value)

    def _compose(self, value: Any) -> bytes:
        kind = type(value)
        if kind is tuple or kind is list:
            return fold(kind.__name__.encode(), map(self.form, value))
        if kind is dict:
            return fold(b"dict", self._pairs(value))
        if kind is set or kind is frozenset:
            return fold(kind.__name__.encode(), sorted(map(self._alone, value)))
        if issubclass(kind, PurePath):  # whose class has moved between versions of Python
            return fold(b"path", [os.fsencode(value)])
        form = self.code(value)
        if form is None:
            form = self._array(value)
        return self._reduced(value) if form is None else form

    def _alone(self, value: object) -> bytes:
        """The form of a member without an order: nothing that came before may show in it."""
        numbers, self._numbers = self._numbers, None
        try:
            return self.form(value)
        finally:
            self._numbers = numbers

    def _pairs(self, pairs: dict[Any, Any]) -> list[bytes]:
        keyed = sorted(((self._alone(key), key) for key in pairs), key=lambda pair: pair[0])
        return sorted(fold(b":", [form, self.form(pairs[key])]) for form, key in keyed)

    def _array(self, value: Any) -> bytes | None:
        """NumPy's arrays and scalars, without a copy of big ones; None for anything else."""
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return None
        kind = type(value)
        scalar = issubclass(kind, numpy.generic)
        if not scalar and kind not in (numpy.ndarray, numpy.memmap, _shared_array()):
            return None
        dtype = value.dtype
        about = [kind.__name__.encode(), repr(value.shape).encode(), _type_text(dtype).encode()]
        if dtype.hasobject or dtype.kind == "T":  # pointers say nothing about the content
            return None if scalar else fold(b"objects", [*about, self.form(value.tolist())])
        if scalar:
            return fold(b"scalar", [*about, value.tobytes()])
        return fold(b"array", [*about, _content(numpy, value)])

    def _reduced(self, value: Any) -> bytes:
        """By the parts that pickle would store, without the order in which pickle meets them."""
        kind = type(value)
        try:
            reduce = copyreg.dispatch_table.get(kind)
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - whatever a user's class raises: it has no pickle
            return self.unstable(value)
        if isinstance(reduced, str):
            module = getattr(value, "__module__", None) or kind.__module__
            return fold(b"name", [module.encode(), reduced.encode()])
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        members = None if items is None else list(items)
        entries: Any = None if pairs is None else list(pairs)
        if entries is not None and not issubclass(kind, OrderedDict):
            entries = dict(entries)
        return fold(b"object", map(self.form, (make, arguments, state, members, entries)))


def fold(kind: bytes, forms: Iterable[bytes]) -> bytes:
    """The form of something made of parts.

    >>> fold(b"tuple", [b"ab", b"c"]) == fold(b"tuple", [b"a", b"bc"])
    False
    """
    digest = blake2b(len(kind).to_bytes() + kind, digest_size=16)
    for form in forms:
        digest.update(len(form).to_bytes(8))
        digest.update(form)
    return b"(" + digest.digest()


def code_form(code: CodeType) -> bytes:
    """The form of compiled code, wherever in a file it stands.

    It holds for one version of Python, and does not know docstrings from other constants.
    """
    constants = [
        code_form(constant) if isinstance(constant, CodeType) else Canonical().form(constant)
        for constant in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    form = Canonical().form
    return fold(
        b"code", [code.co_code, code.co_exceptiontable, form(names), form(counts), *constants]
    )


def closure_of(function: FunctionType) -> list[tuple[str, Any]]:
    """The names and values that a function holds from around it, without those not yet set."""
    cells: tuple[CellType, ...] = function.__closure__ or ()
    held = []
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            held.append((name, cell.cell_contents))
        except ValueError:  # an empty cell
            continue
    return held


def _integer(value: int) -> bytes:
    return b"i" + value.to_bytes((value.bit_length() + 8) >> 3, "little", signed=True)


def _real(value: float) -> bytes:
    return b"f" + struct.pack("<d", math.nan if value != value else value)


def _text(value: str) -> bytes:
    return b"s" + value.encode("utf-8", "surrogatepass")


_PLAIN: dict[type, Callable[[Any], bytes]] = {
    int: _integer,
    float: _real,
    str: _text,
    bool: lambda value: b"T" if value else b"F",
    complex: lambda value: b"c" + _real(value.real) + _real(value.imag),
    bytes: lambda value: b"b" + value,
    bytearray: lambda value: b"y" + value,
    type(None): lambda _: b"N",
    type(...): lambda _: b".",
}


def _type_text(dtype: Any) -> str:
    return str(dtype.str if dtype.fields is None else dtype)


def _shared_array() -> Any:
    """The class of `fanfold.share`'s arrays, where there can be any: told by what is in them."""
    module = sys.modules.get("fanfold.arrays.array")
    return None if module is None else module.SharedArray


def _content(numpy: Any, array: Any) -> bytes:
    """A digest of the elements in C order."""
    digest = blake2b(digest_size=16)
    if array.size and array.itemsize:
        if array.flags.c_contiguous:
            digest.update(array.reshape(-1).view(numpy.uint8))
        else:
            options = {"flags": ["external_loop", "buffered"], "order": "C", "buffersize": _BUFFER}
            for block in numpy.nditer(array, **options):
                digest.update(numpy.ascontiguousarray(block).view(numpy.uint8))
    return digest.digest()
