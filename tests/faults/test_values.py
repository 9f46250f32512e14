"""Rows L09, L13-L19, L22, L37, L38, L45: functions, inputs, results, exceptions of every kind."""

from __future__ import annotations

import functools
import math
import operator
import os
import resource
import sys
import threading
import traceback

import numpy as np
import psutil
import pytest

import fanfold as ff
from fanfold.errors import LoadFailed, NotSerializable, RemoteError, WorkerDied
from fanfold.testing import faults
from fanfold.testing.faults import LockedError, PickyError, nested, raises_on_load

TASKS, GUILTY = 20, 7
SQUARES = {n: n * n for n in range(TASKS) if n != GUILTY}


class OddError(BaseException):
    """Not an Exception, and not known to anybody."""


def mapped(fault, **options):
    """The results of squares, and what came of task 7, which returns ``fault()``."""
    task = faults.Script({GUILTY: fault})
    results = ff.map(task, range(TASKS), errors="return", workers=2, **options)
    results = dict(enumerate(results))
    return results.pop(GUILTY), results


def raiser(kind, *args):
    return functools.partial(faults.raise_error, kind, *args)


# Exceptions


@pytest.mark.parametrize("on", ["serial", "threads", "processes"])
@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, OddError])
def test_base_exceptions(on, kind):
    """L09: an exception that is no Exception ends its task, and neither its worker nor the map."""
    error, rest = mapped(raiser(kind, "as asked"), on=on)
    assert (type(error), error.args) == (kind, ("as asked",))
    assert rest == SQUARES


def test_worker_survives_exceptions():
    """L09: a worker whose task raises, whatever it is, goes on with the next."""
    kinds = [SystemExit, KeyboardInterrupt, GeneratorExit, OddError, MemoryError, RecursionError]
    with ff.ProcessExecutor(1) as pool:
        pid = pool.submit(os.getpid).result()
        for kind in kinds:
            assert type(pool.submit(faults.raise_error, kind).exception(timeout=60)) is kind
        assert pool.submit(os.getpid).result() == pid


def test_exception_that_cannot_be_pickled():
    """L15: an exception that cannot be sent comes as RemoteError: its type by name, its text, its
    traceback."""
    error, rest = mapped(raiser(LockedError, "the door is locked"), on="processes")
    assert rest == SQUARES
    assert (type(error), error.index) == (RemoteError, GUILTY)
    assert error.original_type == "fanfold.testing.faults.LockedError"
    assert "the door is locked" in str(error)
    text = "".join(traceback.format_exception(error))
    assert "in raise_error" in text
    assert f"task {GUILTY}, input {GUILTY}" in text


def test_exception_that_cannot_be_made_again():
    """L16: an exception whose `__init__` cannot be replayed comes as RemoteError, by name."""
    error, rest = mapped(raiser(PickyError, "here", "too picky"), on="processes")
    assert rest == SQUARES
    assert (type(error), error.index) == (RemoteError, GUILTY)
    assert error.original_type == "fanfold.testing.faults.PickyError"
    assert "here: too picky" in str(error)


def test_exception_that_becomes_another():
    """L16: an exception that would be something else when loaded is not passed off as that."""

    class Shifty(Exception):
        def __reduce__(self):
            return int, ()

    error, rest = mapped(raiser(Shifty, "now you see me"), on="processes")
    assert rest == SQUARES
    assert (type(error), error.original_type.split(".")[-1]) == (RemoteError, "Shifty")


def test_exception_without_text():
    """L15: an exception whose `__str__` and `__repr__` raise is reported all the same."""

    class Mute(Exception):
        def __init__(self):
            self.lock = threading.Lock()

        def __str__(self):
            raise ZeroDivisionError

        __repr__ = __str__

    error, rest = mapped(raiser(Mute), on="processes")
    assert rest == SQUARES
    assert (type(error), error.original_type.split(".")[-1]) == (RemoteError, "Mute")


def test_exception_that_refuses_notes():
    """L15: an exception that cannot be given a note, or whose notes are nonsense, is the task's."""

    class Curt(Exception):
        def add_note(self, note):
            raise ValueError("no notes")

    class Odd(Exception):
        __notes__ = 5

    for kind in (Curt, Odd):
        for on in ("threads", "processes"):
            error, rest = mapped(raiser(kind, "as asked"), on=on)
            assert rest == SQUARES
            assert type(error) is kind or error.original_type.endswith(kind.__name__)


@pytest.mark.parametrize("end", [lambda: 1 / 0, lambda: os._exit(3)], ids=["raises", "dies"])
def test_input_that_cannot_be_shown(end):
    """L09: an input whose `repr` raises, whatever it raises, is shown by its type, in the note of a
    task that fails and of one that ends its worker."""

    class Shy:
        def __mul__(self, other):
            return end()

        def __repr__(self):
            raise SystemExit

    inputs = [Shy() if n == GUILTY else n for n in range(TASKS)]
    results = ff.map(lambda n: n * n, inputs, on="processes", workers=2, errors="return")
    results = dict(enumerate(results))
    [note] = results.pop(GUILTY).__notes__
    assert results == SQUARES
    assert "Shy, whose repr raises SystemExit" in note


# What cannot be sent


class Boat:
    def __init__(self, cargo):
        self.cargo = cargo

    def sail(self, n=0):
        return n


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (threading.Lock(), "_thread.lock"),
        ((n for n in range(3)), "generator"),
        (sys.stdout, "TextIOWrapper|EncodedFile"),
        (Boat({"deck": [1, threading.Lock()]}), r"\.cargo\['deck'\]\[1\]"),
    ],
    ids=["lock", "generator", "file", "member"],
)
def test_argument_that_cannot_be_sent(thing, name):
    """L13: an argument that cannot be sent is refused by submit itself, which names the member; in
    a map it fails its task alone."""
    with ff.ProcessExecutor(2) as pool:
        with pytest.raises(NotSerializable, match=name):
            pool.submit(abs, thing)
        with pytest.raises(NotSerializable, match=name):
            pool.submit(print, file=thing)
        inputs = [thing if n == GUILTY else n for n in range(TASKS)]
        results = dict(enumerate(ff.map(lambda n: n * n, inputs, on=pool, errors="return")))
    error = results.pop(GUILTY)
    assert results == SQUARES
    assert (type(error), error.index) == (NotSerializable, GUILTY)
    assert f"task {GUILTY}, input " in error.__notes__[0]


def test_function_that_cannot_be_sent(log):
    """L13: a function that cannot be sent is refused before any task runs, and the member of it
    that is to blame is named."""
    lock = threading.Lock()

    def note(n, path=log.path):
        with path.open("a") as out, lock:
            print(n, file=out)

    for function in (note, functools.partial(note, path=log.path), Boat(lock).sail):
        with pytest.raises(NotSerializable, match=r"lock object.*\.(lock|cargo)\)"):
            ff.map(function, range(TASKS), on="processes", workers=2, errors="return")
    with ff.ProcessExecutor(1) as pool, pytest.raises(NotSerializable, match=r"\.lock"):
        pool.submit(note, 1)
    assert log.lines() == []


def test_result_that_cannot_be_sent():
    """L14: a result that cannot be sent fails its task alone, and is named."""
    error, rest = mapped(threading.Lock, on="processes")
    assert rest == SQUARES
    assert (type(error), error.index) == (NotSerializable, GUILTY)
    assert "_thread.lock" in str(error)
    error, rest = mapped(lambda: {"key": Boat(threading.Lock())}, on="processes")
    assert "(at ['key'].cargo)" in str(error)


# What cannot be loaded


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt])
def test_result_that_raises_when_loaded(kind):
    """L17: a result that raises when the caller loads it, whatever it raises, fails its task alone,
    with that as the cause."""
    error, rest = mapped(functools.partial(Loads, faults.raise_error, kind), on="processes")
    assert rest == SQUARES
    assert (type(error), error.index) == (LoadFailed, GUILTY)
    assert type(error.__cause__) is kind
    with ff.ProcessExecutor(1) as pool:
        with pytest.raises(LoadFailed, match=f"loaded here: {kind.__name__}"):
            pool.submit(Loads, faults.raise_error, kind).result(timeout=60)
        assert pool.submit(abs, -1).result(timeout=60) == 1


class Loads:
    """To load it is to call ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("way", ["fold", "reduce"])
def test_fold_that_raises_when_loaded(way):
    """L17: a value of a map_reduce that cannot be sent or loaded raises; it does not hang."""
    if way == "fold":
        function, reduce = abs, lambda a, b: raises_on_load()
    else:
        function, reduce = abs, lambda a, b: threading.Lock()
    with pytest.raises((LoadFailed, NotSerializable, TypeError)):
        ff.map_reduce(function, range(1000), reduce=reduce, on="processes", workers=2)


def test_result_that_exits_when_loaded(start):
    """L18: a result that ends the process that loads it ends the caller, as documented; nothing of
    it stays."""
    driver = start(
        """
        say("begun")
        ff.map(lambda n: faults.exits_on_load(9) if n == 7 else n, range(20), on="processes")
        say("not reached")
        """
    )
    assert driver.end() == 9
    assert driver.out == "begun\n"
    driver.nothing_is_left()


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, MemoryError])
def test_argument_that_raises_when_loaded(kind):
    """L19: an argument that raises when the worker loads it, whatever it raises, fails its task
    alone; the worker goes on."""
    guilty = Loads(faults.raise_error, kind)
    inputs = [guilty if n == GUILTY else n for n in range(TASKS)]
    with ff.ProcessExecutor(1) as pool:
        pid = pool.submit(os.getpid).result()
        results = dict(enumerate(ff.map(lambda n: n * n, inputs, on=pool, errors="return")))
        single = pool.submit(abs, guilty).exception(timeout=60)
        assert pool.submit(os.getpid).result() == pid
    error = results.pop(GUILTY)
    assert results == SQUARES
    assert [type(error), type(single)] == [LoadFailed, LoadFailed]
    assert (error.index, single.index) == (GUILTY, None)
    assert kind.__name__ in str(error)
    assert "in the worker" in str(error)


def test_function_that_raises_when_loaded():
    """L19: a function that raises when it is loaded fails every task of its call, and no other."""
    bad = functools.partial(abs, Loads(faults.raise_error, LookupError))
    with ff.ProcessExecutor(2) as pool:
        errors = ff.map(bad, range(3), on=pool, errors="return")
        assert [type(error) for error in errors] == [LoadFailed] * 3
        assert "the function" in str(errors[0])
        assert ff.map(abs, [-1, -2], on=pool) == [1, 2]


# Deep and large


def test_recursion():
    """L37: endless recursion, a result or an argument nested too deep to be pickled: each fails its
    task alone."""
    error, rest = mapped(faults.recurse, on="processes")
    assert (type(error), rest) == (RecursionError, SQUARES)
    error, rest = mapped(nested, on="processes")
    assert (type(error), rest) == (NotSerializable, SQUARES)
    with ff.ProcessExecutor(1) as pool, pytest.raises(NotSerializable):
        pool.submit(len, nested())


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept on Linux only")
def test_memory_error():
    """L38: a MemoryError is the task's own; its worker goes on."""

    def limit():
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))

    with ff.ProcessExecutor(1, initializer=limit) as pool:
        pid = pool.submit(os.getpid).result()
        task = faults.Script({GUILTY: functools.partial(bytearray, 1 << 30)})
        results = dict(enumerate(ff.map(task, range(TASKS), on=pool, errors="return")))
        assert type(results.pop(GUILTY)) is MemoryError
        assert results == SQUARES
        assert pool.submit(os.getpid).result() == pid


def test_large_values():
    """L22: an argument and a result of any size go through segments; here one that fills several
    writes, and a text of many megabytes. (The grid has 2 GiB + 10, at full size.)"""
    with ff.ProcessExecutor(1) as pool:
        array = np.arange(1 << 23)
        assert np.array_equal(pool.submit(operator.neg, array).result(timeout=60), -array)
        assert pool.submit(operator.mul, "abc", 1 << 23).result(timeout=60) == "abc" * (1 << 23)


# Functions


def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)

    return wrapper


@doubled
def decorated(n):
    return n + 1


def kinds_of_functions():
    factor = 3

    class Local:
        def __init__(self, offset):
            self.offset = offset

        def method(self, n):
            return n + self.offset

        @classmethod
        def of_class(cls, n):
            return cls(n).offset

        @staticmethod
        def static(n):
            return n - 1

        def __call__(self, n):
            return n * self.offset

    def countdown(n):
        return countdown(n - 1) if n > 0 else "lift-off"

    return {
        "lambda": lambda n: n + 1,
        "closure": lambda n: n * factor,
        "recursive closure": countdown,
        "bound method": Local(5).method,
        "class method": Local.of_class,
        "static method": Local.static,
        "callable object": Local(7),
        "class": complex,
        "local class": lambda n: Local(n).offset,
        "partial": functools.partial(pow, 2),
        "partial of a lambda": functools.partial(lambda a, b: (a, b), "x"),
        "decorated": decorated,
        "built in": math.sqrt,
        "method of a built-in": "{}!".format,
        "operator": operator.methodcaller("bit_length"),
        "ufunc": np.square,
        "vectorized": np.vectorize(lambda n: n + 1),
    }


@pytest.mark.parametrize("kind", kinds_of_functions())
def test_functions_of_every_kind(kind):
    """L45: whatever is callable, and not tied to this process, runs in workers as it does here."""
    function = kinds_of_functions()[kind]
    expected = [function(n) for n in range(5)]
    assert ff.map(function, range(5), on="processes", workers=2) == expected


def test_no_death_is_an_exception_of_the_user():
    """L09: WorkerDied is told from any exception that a task raises, one of that type included."""
    error, rest = mapped(raiser(WorkerDied, "says who?"), on="processes")
    assert (type(error), error.pid, str(error)) == (WorkerDied, None, "says who?")
    assert rest == SQUARES
