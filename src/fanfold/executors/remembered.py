"""Functions that were packed for one submit, and are good for the next."""

from __future__ import annotations

from collections.abc import Callable, Set
from types import BuiltinFunctionType, FunctionType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fanfold.tasks import Call
from fanfold.transport.watch import Watch

__all__ = ["Remembered", "Retired", "sent_by_name"]


class _PackedCall(Protocol):
    call: Call


C = TypeVar("C", bound=_PackedCall)

_MANY = 32


class Remembered(NamedTuple, Generic[C]):
    """A function as it was packed; ``watch`` is None when it is sent by name."""

    call: C
    watch: Watch | None

    def packs(self, fn: Callable[..., Any]) -> bool:
        """Whether it is this function, as it is now."""
        return self.call.call.func is fn and (self.watch is None or self.watch.unchanged())


class Retired(Generic[C]):
    """Functions that are remembered no more, of which something may still be queued or run."""

    def __init__(self) -> None:
        self._calls: set[C] = set()
        self._many = _MANY

    def add(self, call: C, in_use: Callable[[], Set[C]]) -> Set[C]:
        """One more of them; those that can be freed now.

        To ask what is ``in_use`` may take long: it is done when twice as many are here as last.
        """
        self._calls.add(call)
        if len(self._calls) < self._many:
            return frozenset()
        free = self._calls - in_use()
        self._calls -= free
        self._many = max(_MANY, 2 * len(self._calls))
        return free


def sent_by_name(fn: Callable[..., Any], packed: object) -> bool:
    """Whether a pickled function says no more than where to import it from.

    >>> import pickle
    >>> sent_by_name(len, pickle.dumps(len))
    True
    """
    by_name = isinstance(fn, (FunctionType, BuiltinFunctionType, type))
    return by_name and isinstance(packed, bytes) and b"cloudpickle" not in packed
