"""Has a function changed since it was packed?

A function that travels by value takes along what it refers to: its closure, its defaults, the
globals it names, and theirs. Its packed form may be used again only while all of that is the same,
which can be told only when all of it is immutable or is itself such a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["Watch", "watch"]

_ABSENT = object()
_IMMUTABLE = (int, float, complex, bool, str, bytes, type(None), ModuleType, type)


class Watch:
    """What a function refers to, as it was.

    >>> def area(r): return pi * r
    >>> area.__globals__["pi"] = 3
    >>> seen = watch(area)
    >>> seen.unchanged()
    True
    >>> area.__globals__["pi"] = 3.14
    >>> seen.unchanged()
    False
    """

    __slots__ = ("_attributes", "_cells", "_globals")

    def __init__(self) -> None:
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._cells: list[tuple[CellType, Any]] = []
        self._attributes: list[tuple[FunctionType, CodeType, Any, Any]] = []

    def unchanged(self) -> bool:
        for function, code, defaults, keywords in self._attributes:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not keywords
            ):
                return False
        for cell, value in self._cells:
            if cell.cell_contents is not value:
                return False
        for names, name, value in self._globals:  # noqa: SIM110 - twice as fast as all()
            if names.get(name, _ABSENT) is not value:
                return False
        return True

    def _add(self, function: FunctionType, seen: set[int]) -> bool:
        """Note all that ``function`` refers to; False when some of it could change unseen."""
        if id(function) in seen:
            return True
        seen.add(id(function))
        if function.__dict__ or function.__kwdefaults__:
            return False
        self._attributes.append(
            (function, function.__code__, function.__defaults__, function.__kwdefaults__)
        )
        values = list(function.__defaults__ or ())
        for cell in function.__closure__ or ():
            try:
                self._cells.append((cell, cell.cell_contents))
            except ValueError:  # an empty cell: to be filled
                return False
            values.append(cell.cell_contents)
        names = function.__globals__
        for name in _names(function.__code__):
            self._globals.append((names, name, names.get(name, _ABSENT)))
            if name in names:
                values.append(names[name])
        return all(self._holds_still(value, seen) for value in values)

    def _holds_still(self, value: object, seen: set[int]) -> bool:
        if isinstance(value, FunctionType):
            return self._add(value, seen)
        if isinstance(value, (tuple, frozenset)):
            return all(self._holds_still(member, seen) for member in value)
        return type(value) in _IMMUTABLE or isinstance(value, (type, BuiltinFunctionType))


def watch(function: Callable[..., Any]) -> Watch | None:
    """A watch over a function; None when a change could go unnoticed."""
    result = Watch()
    if not isinstance(function, FunctionType) or not result._add(function, set()):
        return None
    return result


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
