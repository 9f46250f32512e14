"""What ff.map takes as function, arguments and results: any callable, and big arrays cheaply."""

import functools
import operator
import os

import numpy as np
import pytest

import fanfold as ff
from fanfold.testing.functions import square

everywhere = pytest.mark.parametrize("on", ["serial", "threads", "processes"])


class Multiplier:
    def __init__(self, factor):
        self.factor = factor

    def times(self, number):
        return self.factor * number

    def __call__(self, number):
        return self.factor * number

    @staticmethod
    def double(number):
        return 2 * number


def unchanged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@unchanged
def decorated_double(number):
    return 2 * number


def closure(factor):
    return lambda number: factor * number


DOUBLES = {
    "lambda": lambda number: 2 * number,
    "closure": closure(2),
    "partial": functools.partial(operator.mul, 2),
    "partial of lambda": functools.partial(lambda factor, number: factor * number, 2),
    "bound method": Multiplier(2).times,
    "callable object": Multiplier(2),
    "static method": Multiplier.double,
    "decorated": decorated_double,
    "method of a builtin": (2).__mul__,
}


@pytest.mark.parametrize("kind", DOUBLES)
@everywhere
def test_functions_of_every_kind(on, kind):
    """Any callable works on any place: it need not be importable, or even have a name."""
    assert ff.map(DOUBLES[kind], range(5), on=on, workers=2) == [0, 2, 4, 6, 8]


def array_facts(array):
    return array.shape, str(array.dtype), float(array.sum()), array.flags.writeable


def test_big_arrays_arrive_read_only():
    """In a worker process a big argument is equal, and read-only: it is shared memory."""
    array = np.arange(1_000_000, dtype=float).reshape(1000, 1000)
    facts = ff.map(array_facts, [array] * 4, on="processes", workers=2)
    assert facts == [((1000, 1000), "float64", float(array.sum()), False)] * 4
    assert array.flags.writeable


def mapped_file(array, _):
    """The file behind the memory of an array, in this process: device and inode."""
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, _, device, inode, *_ = line.split()
            begin, end = (int(number, 16) for number in span.split("-"))
            if begin <= address < end:
                return device, inode
    raise AssertionError("the array is nowhere in memory")


@pytest.mark.skipif("not __import__('os').path.exists('/proc/self/maps')", reason="reads /proc")
def test_an_array_is_stored_once():
    """The same array passed to many tasks lies in one place, which all workers see."""
    array = np.ones(500_000)
    arguments = [(array, number) for number in range(12)]
    places = set(ff.starmap(mapped_file, arguments, on="processes", workers=2))
    assert len(places) == 1
    assert places != {("00:00", "0")}


def test_array_bound_to_the_function():
    """A function that holds a big array takes it along, once."""
    array = np.arange(500_000)
    picked = ff.map(functools.partial(np.take, array), [3, 400_000], on="processes", workers=2)
    assert [int(value) for value in picked] == [3, 400_000]


@everywhere
def test_results_can_be_changed(on):
    """A result is the caller's own: a big array that came back can be written to."""
    (result, _) = ff.map(np.zeros, [300_000, 2], on=on, workers=2)
    result[0] = 1
    assert result.sum() == 1


@everywhere
def test_map_inside_a_task(on):
    """A task may call ff.map itself."""

    def outer(number):
        return sum(ff.map(square, range(number), on="serial"))

    assert ff.map(outer, range(5), on=on, workers=2) == [0, 0, 1, 5, 14]


def test_a_function_of_a_frozen_module(tmp_path):
    """os and a few others are frozen into Python: they are imported by a worker as any other, and
    a lambda that uses them later finds them whole."""
    with ff.ProcessExecutor(1) as pool:
        assert pool.submit(os.getenv, "HOME").result() == os.getenv("HOME")
        assert pool.submit(lambda: os.stat(tmp_path).st_mtime).result() == tmp_path.stat().st_mtime
