"""What it takes to bring tasks to a worker process, estimated without doing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from fanfold.errors import NotSerializable
from fanfold.transport.pickling import dumps, pack_small

__all__ = ["loading_time", "plain_function", "sending_time", "why_not_sent"]

_MESSAGE = 3e-6  # seconds to pack and unpack something small
_RATE = 3e9  # bytes a second, into shared memory and out of it
_ITEM = 1.5e-7  # seconds for each item of a container
_MODULE = 4e-4  # seconds to import a module, as those of NumPy and pandas are
_LARGE = 1e-3  # seconds of sending above which nothing is packed only to see whether it can be


def sending_time(value: Any) -> float:
    """About how many seconds it takes to send a value to a process of this machine.

    Nothing is packed to find out: that could take longer than the task.

    >>> sending_time(3) < 1e-5 < sending_time(bytes(10**6)) < sending_time([0.0] * 10**6)
    True
    """
    if isinstance(value, partial):
        return sending_time(value.args) + sending_time(tuple(value.keywords.values()))
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return _MESSAGE + size / _RATE
    if isinstance(value, str | bytes | bytearray):
        return _MESSAGE + len(value) / _RATE
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, range):
        some = [item for item, _ in zip(value, range(8), strict=False)]
        deep = sum(map(sending_time, some)) - _MESSAGE * len(some)
        return _MESSAGE + len(value) * (_ITEM + deep / max(1, len(some)))
    return _MESSAGE + sys.getsizeof(value, 0) / _RATE


def plain_function(func: Callable[..., Any]) -> FunctionType | None:
    """The Python function inside partials and methods; None for what is written in C."""
    inner: Any = func
    while isinstance(inner, partial):
        inner = inner.func
    inner = getattr(inner, "__func__", inner)
    return inner if isinstance(inner, FunctionType) else None


def loading_time(func: Callable[..., Any]) -> float:
    """About how many seconds a new worker imports until it can call ``func``: so many modules are
    loaded here of the packages that the function names.

    >>> loading_time(abs)
    0.0
    """
    function = plain_function(func)
    if function is None:
        return 0.0
    code = function.__code__  # with constants, for import_module("name")
    names = [*code.co_names, *(one for one in code.co_consts if isinstance(one, str))]
    named = (_package(name, function.__globals__) for name in names)
    needed = {name for name in named if name} - {"fanfold"}
    standard = sys.stdlib_module_names
    return _MODULE * sum(
        root in needed and root not in standard
        for root in (name.partition(".")[0] for name in list(sys.modules))
    )


def _package(name: str, scope: Mapping[str, Any]) -> str:
    """The package that a name stands for, or a part of it; of an import in the function, itself."""
    value = scope.get(name, sys.modules.get(name))
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return module.partition(".")[0] if isinstance(module, str) else ""


def why_not_sent(value: Any) -> str | None:
    """Why a value cannot go to another process; None when it can, or is too large to try."""
    if sending_time(value) > _LARGE or pack_small(value) is not None:
        return None
    try:
        dumps(value)
    except NotSerializable as error:
        return str(error)
    return None
