"""The place is an argument: the same programs on every executor, with the same results.

What is expected of a program is what it gives on ``serial``, and written down beside it.
"""

import contextlib
import itertools
import math
import os
import signal
import sys
import traceback
import uuid
from collections import namedtuple

import numpy as np
import pytest

import fanfold as ff
from fanfold import dispatch
from fanfold.testing import Cluster, leaks

PLACES = (
    "serial", "threads", "processes", "interpreters", "mpi", "dask", "ipyparallel", "slurm", "pbs",
)  # fmt: skip
ALIVE = {"serial", "threads", "interpreters"}  # whose tasks end the program when they end theirs


@pytest.fixture(autouse=True)
def nothing_left():
    """No process stays. (The engines' own libraries keep threads for the life of a program.)"""
    with leaks(ignore=lambda line: not line.startswith("process")) as left:
        yield
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture(params=PLACES)
def pool(request, tmp_path, monkeypatch):
    """An executor with two workers; Slurm and PBS are the pretend clusters, with two elements."""
    place = request.param
    options = {}
    if place == "interpreters" and sys.version_info < (3, 14):
        pytest.skip("interpreters need Python 3.14")
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        if place in ("slurm", "pbs"):
            cluster = stack.enter_context(Cluster(tmp_path / "cluster", place))
            for name, value in cluster.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("HOME", str(tmp_path))  # what login shells read there is not ours
            options = {"elements": 2}
        yield stack.enter_context(ff.executor(place, workers=2, **options))


# Twelve programs: each takes where it runs, and returns what anybody can compare ------------------


def powers(on):
    """Many small tasks, in order."""
    return ff.map(pow, range(300), itertools.repeat(3), on=on)


def keywords_and_defaults(on):
    """Arguments arrive as they are given."""

    def describe(first, second="two", *rest):
        return first, second, rest

    return ff.starmap(describe, [("a",), ("b", None), ("ü", b"\0", math.inf, (1, [2]))], on=on)


def random_numbers(on):
    """Each task has its own stream, whoever runs it."""

    def draw(count):
        return [float(one) for one in ff.rng().random(count)]

    return ff.map(draw, [1, 2, 3, 2, 1], on=on, seed=2013)


def errors_in_place(on):
    """Failures come back as themselves, with a note that names the task, and where they arose."""

    def invert(x):
        return 1 / x

    def told(result):
        if isinstance(result, float):
            return result
        notes = [note.split(", attempt")[0] for note in result.__notes__]
        text = "".join(traceback.format_exception(result))
        return type(result), result.args, notes, "return 1 / x" in text

    return [told(result) for result in ff.map(invert, [4, 0, 2, "x"], on=on, errors="return")]


class Refused(Exception):
    """An exception whose arguments are not those of its constructor."""

    def __init__(self, what, *, code):
        super().__init__(f"{what} is refused")
        self.code = code

    def __reduce__(self):
        return _refused, (self.args[0].split()[0], self.code)


def _refused(what, code):
    return Refused(what, code=code)


def a_failure(on):
    """A failure ends the map, and is raised as itself: of several the first in the order of the
    inputs."""

    def refuse(number):
        if number in (3, 40):
            raise Refused(f"number{number}", code=number)
        return number

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dispatch, "_GRACE", 60.0)  # the worker with the first may be a slow one
        with pytest.raises(Refused, match="number3 is refused") as caught:
            ff.map(refuse, range(41), on=on)
    return caught.value.args, caught.value.code


def second_chances(on):
    """A task that fails may be tried again; the attempt is told."""

    def flaky(path):
        with open(path, "a+") as file:
            file.write("x")
            file.flush()
            if os.fstat(file.fileno()).st_size < 3:
                raise OSError("not yet")
            return os.fstat(file.fileno()).st_size

    return ff.map(flaky, [os.path.abspath(f"tried-{uuid.uuid4()}")], on=on, retries=2)


def large_arrays(on):
    """Arrays there and back, of any shape and order."""
    inputs = [np.arange(300_000.0).reshape(300, 1000), np.ones((2, 3), order="F"), np.empty((0, 3))]

    def both(array):
        return array.sum(axis=0), array.T

    results = ff.map(both, inputs, on=on)
    return [(total.tolist()[:5], twin.shape, float(twin.sum())) for total, twin in results]


def lazily(on):
    """Inputs without an end, as many as are asked for."""
    results = ff.imap(lambda n: n * n, itertools.count(), on=on)
    return list(itertools.islice(results, 50))


def a_notebook(on):
    """Functions, classes and globals that live in no file."""
    cell = {"__name__": "__main__"}
    source = """
from collections import namedtuple
factor = 3
Point = namedtuple("Point", "x y")
def scale(x):
    return Point(x * factor, helper(x))
def helper(x):
    return x + factor
"""
    exec(compile(source, "<cell>", "exec"), cell)
    return [tuple(point) for point in ff.map(cell["scale"], [1, 2, 3], on=on)]


def nested_maps(on):
    """A task may map: by itself, and with threads of its own."""

    def table(n):
        return ff.map(abs, range(-n, 0), on="serial"), ff.map(
            abs, range(-n, 0), on="threads", workers=2
        )

    return ff.map(table, [1, 2, 3], on=on)


def a_fold(on):
    """Floats added by a fixed tree: the same to the last bit."""
    return ff.map_reduce(math.sqrt, range(1, 1000), on=on).hex()


Row = namedtuple("Row", "name value")


def odd_values(on):
    """Nothing at all, and values of every kind."""
    values = [None, True, 10**40, 1 + 2j, b"\0", "\u00e4\U0001f600", {1: {2}}, range(3), slice(1)]
    values += [Row("a", np.float32(2))]
    return ff.map(str, [], on=on), list(map(repr, ff.map(lambda one: one, values, on=on)))


EXPECTED = {
    powers: [n**3 for n in range(300)],
    keywords_and_defaults: [("a", "two", ()), ("b", None, ()), ("ü", b"\0", (math.inf, (1, [2])))],
    random_numbers: None,
    errors_in_place: [
        0.25,
        (ZeroDivisionError, ("division by zero",), ["fanfold: task 1, input 0"], True),
        0.5,
        (
            TypeError,
            ("unsupported operand type(s) for /: 'int' and 'str'",),
            ["fanfold: task 3, input 'x'"],
            True,
        ),
    ],
    a_failure: (("number3 is refused",), 3),
    second_chances: [3],
    large_arrays: None,
    lazily: [n * n for n in range(50)],
    a_notebook: [(3, 4), (6, 5), (9, 6)],
    nested_maps: [([1], [1]), ([2, 1], [2, 1]), ([3, 2, 1], [3, 2, 1])],
    a_fold: None,
    odd_values: None,
}


def test_the_same_everywhere(pool):
    """Results, errors, seeds and sums do not depend on where the tasks run."""
    for program, known in EXPECTED.items():
        expected = program("serial")
        assert known is None or expected == known, program.__name__
        assert program(pool) == expected, program.__name__
    if pool.name not in ALIVE:
        assert_only_the_guilty_fails(pool)


def assert_only_the_guilty_fails(pool):
    """A task that ends its worker fails alone, by name."""
    results = ff.map(end_itself, range(6), on=pool, errors="return")
    assert [result for result in results if isinstance(result, int)] == [0, 1, 3, 4, 5]
    assert isinstance(results[2], ff.WorkerDied)
    assert results[2].index == 2


def end_itself(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
