"""Interpreters of this process: `InterpreterExecutor`, and what it says where there are none."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
from tests.engines.inside import a_lock, add_up, fatal, gives_work, where, with_numpy

import fanfold as ff
from fanfold.testing import ExecutorTests

NEW = sys.version_info >= (3, 14)
new = pytest.mark.skipif(not NEW, reason="Python 3.14 brings interpreters; this one is older")
REFUSED = "ignore:.* cannot be loaded in a second interpreter:RuntimeWarning"


@pytest.mark.skipif(NEW, reason="this Python has interpreters")
@pytest.mark.parametrize("make", [ff.InterpreterExecutor, lambda: ff.executor("interpreters")])
def test_an_older_python(make) -> None:
    """Before Python 3.14 it is a usage error, which says what to use."""
    with pytest.raises(ff.UsageError, match=r'needs Python 3\.14 .*: use on="processes"'):
        make()
    with pytest.raises(ff.UsageError, match="this is 3"):
        ff.map(abs, [1, 2], on="interpreters")


@new
@pytest.mark.filterwarnings(REFUSED)  # the kit's arrays need NumPy, which no second one can load
class TestInterpreters(ExecutorTests):
    """They share this process: no task dies alone, so the kit's tests of that do not apply."""

    def make(self, **options):
        return ff.InterpreterExecutor(**options)


@pytest.fixture
def pool() -> Iterator[ff.InterpreterExecutor]:
    with ff.executor("interpreters", workers=2) as pool:
        yield pool


@new
def test_they_are_in_this_process(pool: ff.InterpreterExecutor) -> None:
    """A task runs in this process, in another interpreter than the main one."""
    [(pid, number)] = ff.map(where, [0], on=pool)
    assert pid == os.getpid()
    assert number > 0


@new
def test_what_a_task_changes_stays_there(pool: ff.InterpreterExecutor) -> None:
    """Nothing is shared: a task works on a copy."""
    seen: list[int] = []
    assert ff.map(seen.append, [1, 2], on=pool) == [None, None]
    assert seen == []


@new
def test_buffers_are_seen_where_they_are(pool: ff.InterpreterExecutor) -> None:
    """A large buffer is not copied on its way, and is read-only there."""
    numbers = bytearray(b"\x01" * 5_000_000)
    assert ff.map(add_up, [pickle.PickleBuffer(numbers)] * 2, on=pool) == [(5, True)] * 2


@new
def test_what_cannot_be_sent(pool: ff.InterpreterExecutor) -> None:
    """An argument or a result that cannot be pickled fails its own task, and no other."""
    results = ff.map(str, [1, threading.Lock(), 3], on=pool, errors="return")
    assert isinstance(results.pop(1), ff.NotSerializable)
    assert results == ["1", "3"]
    [error] = ff.map(a_lock, [0], on=pool, errors="return")
    assert isinstance(error, ff.NotSerializable)


@new
def test_the_same_random_numbers(pool: ff.InterpreterExecutor) -> None:
    """The stream of a task follows its index, in worker processes that take over, too: NumPy draws
    the numbers."""

    def draw(_: int) -> float:
        return float(ff.rng().random())

    with pytest.warns(RuntimeWarning, match="numpy cannot be loaded in a second"):
        there = ff.map(draw, range(20), on=pool, seed=7)
    assert there == ff.map(draw, range(20), on="serial", seed=7)


@new
@pytest.mark.parametrize("how", ["in the task", "in the arguments", "in the initializer"])
def test_a_module_that_cannot_be_loaded(how: str) -> None:
    """A module that refuses other interpreters costs a sentence, said once, and no result."""
    import numpy

    options = {"initializer": with_numpy, "initargs": (4,)} if how == "in the initializer" else {}
    task, inputs = {
        "in the task": (with_numpy, [n * n for n in range(8)]),
        "in the arguments": (float, [numpy.float64(n) for n in range(8)]),
        "in the initializer": (float, list(range(8))),
    }[how]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with ff.InterpreterExecutor(2, **options) as pool:
            for _ in range(2):
                assert ff.map(task, inputs, on=pool) == list(range(8))
    [warning] = [str(one.message) for one in said if one.category is RuntimeWarning]
    assert warning.startswith("numpy cannot be loaded in a second interpreter (numpy.")
    assert warning.endswith('worker processes do the tasks now, as with on="processes"')


@new
@pytest.mark.parametrize("on", ["serial", "threads", "processes"])
@pytest.mark.filterwarnings("ignore:.*worker processes do the tasks now:RuntimeWarning")
def test_a_task_that_gives_work(pool: ff.InterpreterExecutor, on: str) -> None:
    """A map inside a task works; one that needs the main interpreter is run in a worker process."""
    assert ff.map(gives_work, [(1, on), (3, on)], on=pool) == [[0], [0, 1, 4]]


@new
@pytest.mark.filterwarnings(REFUSED)
def test_a_worker_process_that_dies_meanwhile() -> None:
    """Once worker processes have taken over, a task that kills its worker fails alone."""

    with ff.InterpreterExecutor(2) as pool:
        assert ff.map(with_numpy, [4], on=pool) == [2.0]
        results = ff.map(fatal, range(8), on=pool, errors="return")
    died = results.pop(3)
    assert isinstance(died, ff.WorkerDied)
    assert (died.exitcode, died.index) == (7, 3)
    assert results == [0, 1, 2, 4, 5, 6, 7]


@new
def test_ends_with_python_whatever_still_runs() -> None:
    """A program that leaves while a task goes on for ever ends: nothing hangs."""
    program = (
        "import time, fanfold as ff\n"
        "pool = ff.InterpreterExecutor(1)\n"
        "future = pool.submit(time.sleep, 1000)\n"
        "while not future.running(): time.sleep(0.01)\n"
        "pool._traffic.abandon()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
