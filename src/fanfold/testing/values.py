"""The part of the kit about what travels: arguments and results of every kind."""

from __future__ import annotations

import concurrent.futures as cf
import datetime
import decimal
import enum
import fractions
import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from functools import partial
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
import pytest

from fanfold.testing.functions import same, square
from fanfold.testing.kit import ExecutorKit

__all__ = ["ValueTests"]


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: str


@dataclass(frozen=True)
class Record:
    name: str
    size: float


PLAIN: list[Any] = [
    None,
    True,
    2**200,
    -0.5,
    1 + 2j,
    "naïve ☃ \x00",
    b"bytes \xff",
    bytearray(b"changeable"),
    (),
    (1, (2, [3, {4: {5}}])),
    frozenset({1, 2}),
    {"b": 1, "a": [None]},
    range(3, 30, 3),
    slice(1, None, 2),
    Ellipsis,
    NotImplemented,
    datetime.datetime(2013, 1, 9, 12, 30, tzinfo=datetime.UTC),
    decimal.Decimal("0.1"),
    fractions.Fraction(1, 3),
    pathlib.PurePosixPath("a/b"),
    Colour.RED,
    Pair(1, "one"),
    Record("disk", 1.5),
    OrderedDict(a=1),
    defaultdict(list, a=[1]),
    Counter("letters"),
    deque([1, 2], maxlen=3),
    square,
    int,
    "x" * 1_000_000,
    b"y" * 1_000_000,
]

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "5 MB": np.arange(640_000, dtype=np.float64),
    "empty": np.empty((0, 3)),
    "no dimensions": np.array(7),
    "booleans": np.eye(3, dtype=bool),
    "complex": np.arange(4) * 1j,
    "big-endian": np.arange(5, dtype=">i4"),
    "text": np.array(["a", "ünïcode"]),
    "dates": np.array(["2013-01-09"], dtype="datetime64[D]"),
    "records": np.array([(1, 2.5)], dtype=[("number", "i4"), ("value", "f8")]),
    "objects": np.array([None, {"a": 1}, "text"], dtype=object),
    "column order": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "not contiguous": np.arange(1_000_000)[::2],
}


class ValueTests(ExecutorKit):
    """Arguments and results arrive equal, both ways, with their types."""

    @pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
    def test_plain_values(self, executor: cf.Executor, value: Any) -> None:
        """A value comes back equal and of the same type."""
        result = executor.submit(same, value).result(timeout=30)
        assert type(result) is type(value)
        assert result == value

    @pytest.mark.parametrize("name", ARRAYS)
    def test_arrays(self, executor: cf.Executor, name: str) -> None:
        """An array comes back equal, of its type and shape, whatever its size or layout."""
        array = ARRAYS[name]
        result = executor.submit(same, array).result(timeout=30)
        # NumPy's own pickles turn foreign byte orders into this machine's
        assert result.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        assert result.shape == array.shape
        assert np.array_equal(result, array)

    def test_arrays_inside_other_things(self, executor: cf.Executor) -> None:
        """Arrays inside containers, and bound to a function, arrive equal."""
        array = ARRAYS["5 MB"]
        result = executor.submit(same, {"here": [array, array[:3]], "there": 1}).result(timeout=30)
        assert np.array_equal(result["here"][0], array)
        assert result["here"][1].tolist() == [0, 1, 2]
        assert list(executor.map(partial(np.searchsorted, array), [0, 10])) == [0, 10]

    @pytest.mark.parametrize("size", [256, 200_192, 5_000_192])
    def test_functions_of_any_size(self, executor: cf.Executor, size: int) -> None:
        """What is bound to a function arrives with it, also when it is used again."""
        func: partial[int] = partial(getitem, bytes(range(256)) * (size // 256))
        for _ in range(2):
            assert list(executor.map(func, range(20))) == list(range(20))
            assert executor.submit(func, 7).result(timeout=30) == 7
