"""The specification of ff.map_reduce: a fixed tree, the same bits everywhere."""

import functools
import math
import operator

import numpy as np
import pytest

import fanfold as ff
from fanfold.testing import Script
from fanfold.testing.functions import KitError, fail, square, unsteady

everywhere = pytest.mark.parametrize("on", ["serial", "threads", "processes"])


def tree(reduce, values):
    """The documented tree, level by level: node (level, k) joins nodes (level - 1, 2k and 2k + 1).

    A node without a right neighbour is taken up as it is.
    """
    values = list(values)
    while len(values) > 1:
        joined = list(map(reduce, values[::2], values[1::2]))
        values = joined + values[len(values) - len(values) % 2 :]
    return values[0]


@everywhere
def test_map_reduce(on, workers):
    """map_reduce equals the sequential fold where the operation is associative."""
    assert ff.map_reduce(square, range(100), on=on, workers=workers) == 328350
    assert ff.map_reduce(square, range(50), max, on=on, workers=workers) == 2401
    text = ff.map_reduce(str, range(120), operator.add, on=on, workers=workers)
    assert text == "".join(map(str, range(120)))


@pytest.mark.parametrize("chunk", [None, 1, 3, 64])
@everywhere
def test_map_reduce_is_bit_identical(on, workers, chunk):
    """A sum of floats has the same bits for any place, workers and chunk: a fixed tree."""
    found = ff.map_reduce(math.sin, range(1000), on=on, workers=workers, chunk=chunk)
    assert found == tree(operator.add, map(math.sin, range(1000)))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 11, 100])
@everywhere
def test_map_reduce_tree(on, count):
    """The tree depends on indices only: node (level, k) begins at k * 2**level, covers 2**level."""

    def join(left, right):
        return f"({left} {right})"

    found = ff.map_reduce(str, range(count), join, on=on, workers=2, chunk=3)
    assert found == tree(join, map(str, range(count)))


@everywhere
def test_map_reduce_initial(on):
    """initial comes first, and is the result when there is nothing to reduce."""
    assert ff.map_reduce(str, range(3), initial=">", on=on) == ">012"
    assert ff.map_reduce(str, [], initial=">", on=on) == ">"
    assert ff.map_reduce(str, [], initial=None, on=on) is None


@everywhere
def test_map_reduce_of_nothing(on):
    """Without initial, nothing to reduce is a TypeError, as for functools.reduce."""
    with pytest.raises(TypeError, match="initial"):
        ff.map_reduce(str, [], on=on)


@everywhere
def test_map_reduce_arrays(on):
    """Arrays are reduced like numbers, and the user's own inputs are left as they were."""
    inputs = [np.full(50_000, number, dtype=float) for number in range(6)]
    total = ff.map_reduce(np.square, inputs, on=on, workers=2)
    assert total.tolist() == [55.0] * 50_000
    assert [array[0] for array in inputs] == [0, 1, 2, 3, 4, 5]


@everywhere
def test_map_reduce_failure(on):
    """A failing task is raised as in map; so is a failing reduction."""
    with pytest.raises(KitError):
        ff.map_reduce(Script({5: fail}), range(20), on=on, workers=2)
    with pytest.raises(TypeError, match="concatenate"):
        ff.map_reduce(lambda number: number if number else "text", range(20), on=on, workers=2)


@everywhere
def test_map_reduce_retries(on, tmp_path):
    """Retried tasks are reduced once."""
    task = functools.partial(unsteady, tmp_path, 1)
    assert ff.map_reduce(task, range(6), on=on, workers=2, retries=1) == 15
