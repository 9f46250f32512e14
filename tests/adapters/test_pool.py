"""`ff.Pool` is a drop-in for `multiprocessing.Pool`: what its documentation shows works alike."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import fanfold as ff
from fanfold.errors import PoolClosed, RemoteTraceback, UsageError
from fanfold.testing import Gate, kill_self
from fanfold.testing.functions import divide, echo, fail, same, square, until

PLACES = ("processes", "threads", "serial")


@pytest.fixture(params=PLACES)
def pool(request: pytest.FixtureRequest) -> Iterator[ff.Pool]:
    pool = ff.Pool(2, on=request.param)
    with pool:
        yield pool
    pool.join()


# What its documentation shows ---------------------------------------------------------------------


def test_map(pool: ff.Pool) -> None:
    """`map` gives the list of results, in order."""
    assert pool.map(square, range(10)) == [n * n for n in range(10)]
    assert pool.map(square, iter(range(10)), chunksize=3) == [n * n for n in range(10)]
    assert pool.map(square, []) == []


def test_apply(pool: ff.Pool) -> None:
    """`apply` waits for one call, keywords included; `apply_async` gives a handle for it."""
    assert pool.apply(divide, (9, 3)) == 3
    assert pool.apply(echo, (1,), {"two": 2}) == ((1,), {"two": 2})
    result = pool.apply_async(square, (20,))
    assert result.get(timeout=30) == 400
    assert result.ready()
    assert result.successful()


def test_starmap(pool: ff.Pool) -> None:
    """`starmap` and `starmap_async` spread each input over the arguments."""
    assert pool.starmap(divide, [(1, 1), (6, 3)]) == [1, 2]
    assert pool.starmap_async(divide, iter([(8, 2)])).get(30) == [4]


def test_imap(pool: ff.Pool) -> None:
    """`imap` is an iterator in order, which also has `next` with a timeout."""
    results = pool.imap(square, range(4))
    assert next(results) == 0
    assert results.next(timeout=30) == 1
    assert list(results) == [4, 9]
    with pytest.raises(StopIteration):
        results.next()


def test_imap_unordered(pool: ff.Pool) -> None:
    """`imap_unordered` gives all results, in any order."""
    assert sorted(pool.imap_unordered(square, range(100), chunksize=7)) == [
        n * n for n in range(100)
    ]


def test_workers_are_other_processes() -> None:
    """Calls run in the pool's processes, each of which is initialized once."""
    with ff.Pool(processes=2, initializer=os.putenv, initargs=["GREETING", "hello"]) as pool:
        ids = {result.get(30) for result in [pool.apply_async(os.getpid) for _ in range(4)]}
        assert os.getpid() not in ids
        greeting = [sys.executable, "-c", "import os; print(os.environ['GREETING'])"]
        assert pool.apply(subprocess.check_output, (greeting,)) == b"hello\n"
    pool.join()


def test_default_size() -> None:
    """Without a number there is a worker for each core that may be used; `size` tells."""
    with ff.Pool() as pool:
        assert pool.size == int(ff.cores())


def test_a_result_that_is_late() -> None:
    """`get` and `next` with a timeout raise multiprocessing.TimeoutError, also a TimeoutError."""
    with ff.Pool(2, on="threads") as pool:
        gate = threading.Event()
        result = pool.apply_async(gate.wait)
        for kind in (multiprocessing.TimeoutError, TimeoutError):
            with pytest.raises(kind, match=r"the result is not there after 0\.01 s"):
                result.get(timeout=0.01)
        with pytest.raises(multiprocessing.TimeoutError):
            pool.imap(gate.wait, [None]).next(timeout=0.01)
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        result.wait(0.01)
        gate.set()
        assert result.get() is True
    pool.join()


def test_a_task_that_raises_a_timeout_is_not_late(pool: ff.Pool) -> None:
    """A TimeoutError of the task is its failure, whatever the timeout of `get`."""
    result = pool.apply_async(_time_out)
    with pytest.raises(TimeoutError, match="of its own"):
        result.get(timeout=30)
    assert not result.successful()


def _time_out() -> None:
    raise TimeoutError("of its own")


def test_callbacks(pool: ff.Pool) -> None:
    """One callback is called for each call or map, with its result, before that is ready."""
    seen: list[object] = []
    failed: list[BaseException] = []
    pool.apply_async(square, (3,), callback=seen.append, error_callback=failed.append).wait()
    pool.map_async(square, [1, 2], callback=seen.append, error_callback=failed.append).wait()
    assert (seen, failed) == ([9, [1, 4]], [])
    pool.apply_async(fail, callback=seen.append, error_callback=failed.append).wait()
    pool.starmap_async(divide, [(1, 0)], None, seen.append, failed.append).wait()
    assert len(seen) == 2
    assert [type(error).__name__ for error in failed] == ["KitError", "ZeroDivisionError"]


def test_a_callback_that_raises(pool: ff.Pool, caplog: pytest.LogCaptureFixture) -> None:
    """L56: it is logged; the result is there, and the pool works on."""
    assert pool.apply_async(square, (3,), callback=fail).get(30) == 9
    assert pool.map_async(square, [3], callback=fail).get(30) == [9]
    assert pool.map(square, [4]) == [16]
    assert caplog.text.count("a callback of a pool raised") == 2


def test_close_and_join() -> None:
    """After `close` what was given is done, results that nobody has asked for included."""
    pool = ff.Pool(2)
    single = pool.apply_async(square, (5,))
    many = pool.map_async(square, range(100))
    results = pool.imap(square, (n for n in range(3000)))
    seen: list[object] = []
    pool.map_async(square, range(3), callback=seen.append)
    pool.close()
    pool.join()
    assert (single.get(), sum(many.get())) == (25, sum(n * n for n in range(100)))
    assert list(results) == [n * n for n in range(3000)]
    assert seen == [[0, 1, 4]]


def test_with_terminates() -> None:
    """Leaving the block ends what runs; whoever waits gets an error, and does not hang."""
    with ff.Pool(2) as pool:
        single = pool.apply_async(time.sleep, (1000,))
        many = pool.map_async(time.sleep, [1000] * 8)
        one_by_one = pool.imap(time.sleep, itertools.repeat(1000))
    pool.join()
    with pytest.raises((PoolClosed, ff.WorkerDied)):
        single.get(30)
    with pytest.raises(PoolClosed, match="terminated"):
        many.get(30)
    with pytest.raises(PoolClosed, match="terminated"):
        one_by_one.next(30)


def test_terminate_threads() -> None:
    """Threads cannot be ended: their tasks are, once they return, and no other begins."""
    began, gate, seen = threading.Event(), threading.Event(), []
    with ff.Pool(1, on="threads") as pool:
        first = pool.apply_async(lambda: began.set() or gate.wait())
        second = pool.apply_async(seen.append, (1,))
        began.wait(60)
    gate.set()
    pool.join()
    assert first.get(30) is True
    with pytest.raises(PoolClosed, match="terminated before this could run"):
        second.get(30)
    assert not second.successful()
    assert seen == []


def test_use_after_the_end() -> None:
    """A pool that is closed takes nothing more, and one that is not cannot be joined: ValueError,
    as there."""
    pool = ff.Pool(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(ValueError, match="Pool not running"):
            call(square, (1,))
    for call in (pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="Pool not running"):
            call(square, [1])
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass
    pool.join()


def test_maxtasksperchild() -> None:
    """A worker process ends after so many calls, and another takes its place."""
    with ff.Pool(1, maxtasksperchild=2) as pool:
        ids = [pool.apply(os.getpid) for _ in range(6)]
    pool.join()
    assert len(set(ids)) == 3


@pytest.mark.parametrize("context", ["spawn", multiprocessing.get_context("fork")])
def test_context(context: object) -> None:
    """`context` says how worker processes start, as the fifth argument does there."""
    with ff.Pool(1, None, (), None, context) as pool:
        assert pool.map(square, [3]) == [9]
    pool.join()


# Failures -----------------------------------------------------------------------------------------


def test_a_failure_comes_home(pool: ff.Pool) -> None:
    """The task's own exception is raised, after the other tasks: the first one by its index."""
    seen = pool.map(same, [1, 2])
    with pytest.raises(ValueError, match="'b'"):
        pool.map(int, ["1", "b", "2", "c"])
    assert seen == [1, 2]


def test_the_traceback_of_the_worker_is_there() -> None:
    """An exception from a process shows where in the worker it was raised."""
    with ff.Pool(1) as pool, pytest.raises(ZeroDivisionError) as caught:
        pool.apply(divide, (1, 0))
    pool.join()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "return dividend / divisor" in str(caught.value.__cause__)


def test_imap_goes_on_after_a_failure(pool: ff.Pool) -> None:
    """A task that failed raises in its place, and the results after it follow."""
    results = pool.imap(int, ["1", "b", "3"])
    assert next(results) == 1
    with pytest.raises(ValueError, match="'b'"):
        next(results)
    assert list(results) == [3]


def test_an_exception_is_also_a_value(pool: ff.Pool) -> None:
    """What a task returns is a result, an exception too."""
    [value] = pool.map(same, [KeyError("x")])
    assert repr(value) == "KeyError('x')"
    assert repr(next(pool.imap(same, [KeyError("x")]))) == "KeyError('x')"


def test_inputs_that_raise(pool: ff.Pool) -> None:
    """L24: what the inputs before gave is there; then their exception; the pool works on."""

    def inputs() -> Iterator[int]:
        yield from range(5)
        raise RuntimeError("out of inputs")

    with pytest.raises(RuntimeError, match="out of inputs"):
        pool.map(square, inputs())
    results = pool.imap(square, inputs())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(RuntimeError, match="out of inputs"):
        next(results)
    assert pool.map(square, [2]) == [4]


def test_endless_inputs(pool: ff.Pool) -> None:
    """L25: `imap` begins at once, and stops to draw them when its iterator is dropped."""
    inputs = itertools.count()
    results = pool.imap(square, (n for n in inputs))
    assert [next(results) for _ in range(20)] == [n * n for n in range(20)]
    del results
    until(lambda: not _maps(), "the map to end")
    drawn = next(inputs)
    assert drawn >= 20
    assert pool.map(square, [2]) == [4]
    assert next(inputs) == drawn + 1


def _maps() -> list[threading.Thread]:
    names = {"fanfold-pool-map", "fanfold-inputs"}
    return [thread for thread in threading.enumerate() if thread.name in names]


def test_a_worker_that_dies() -> None:
    """L01: its task alone fails, by name; where the standard pool waits for ever, this one goes on
    with a new worker."""
    with ff.Pool(2) as pool:
        results = pool.imap(kill_self, [signal.SIGKILL])
        with pytest.raises(ff.WorkerDied, match="SIGKILL"):
            results.next(timeout=60)
        died = pool.apply_async(kill_self, (signal.SIGKILL,))
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        with pytest.raises(ff.WorkerDied, match="SIGKILL"):
            died.get(60)
    pool.join()


def test_an_initializer_that_raises() -> None:
    """It is an error at once; the standard pool starts workers for ever."""
    with ff.Pool(1, initializer=fail) as pool, pytest.raises(ff.StartupFailed, match="as asked"):
        pool.map(square, [1])
    pool.join()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "greater than 0"),
        ({"processes": -1}, "greater than 0"),
        ({"maxtasksperchild": 0}, ">= 1"),
        ({"maxtasksperchild": 0.5}, "a whole number, not 0.5"),
        ({"on": "proceses"}, "did you mean 'processes'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    """They are a ValueError that says what would be right."""
    with pytest.raises(ValueError, match=message):
        ff.Pool(**options)


def test_a_wrong_chunk_size(pool: ff.Pool) -> None:
    """It is refused by the call, before anything runs."""
    for call in (pool.map, pool.imap):
        with pytest.raises(UsageError, match="chunk must be a whole number from 1"):
            call(square, [1], chunksize=0)


# What is more than there --------------------------------------------------------------------------


def test_functions_of_any_kind() -> None:
    """Lambdas and closures work, where the standard pool cannot send them."""
    factor = 3
    with ff.Pool(1) as pool:
        assert pool.map(lambda n: factor * n, range(3)) == [0, 3, 6]
    pool.join()


def test_on_an_executor() -> None:
    """Any executor can be given: its workers do the work, and it stays open."""
    with ThreadPoolExecutor(2) as standard, ff.ThreadExecutor(2) as ours:
        for executor in (standard, ours):
            with ff.Pool(on=executor) as pool:
                assert pool.map(square, range(3)) == [0, 1, 4]
                assert list(pool.imap(square, range(3))) == [0, 1, 4]
                assert pool.apply(square, (4,)) == 16
            pool.join()
            assert executor.submit(square, 5).result() == 25
        with pytest.raises(UsageError, match="initializer, initargs cannot be changed"):
            ff.Pool(on=ours, initializer=fail)


def test_maps_at_the_same_time(gate: Gate) -> None:
    """Several maps share the workers; a map does not wait for one that was begun before it."""
    with ff.Pool(2) as pool:
        slow = pool.map_async(gate.wait, [None])
        assert pool.map(square, range(20)) == [n * n for n in range(20)]
        assert not slow.ready()
        gate.open()
        slow.wait(60)
        assert slow.successful()
    pool.join()


def test_it_stays_where_it_is() -> None:
    """A pool cannot be sent to a worker, and says so."""
    with ff.Pool(1, on="threads") as pool, pytest.raises(TypeError, match="cannot be sent"):
        pool.__reduce__()


def test_a_script_that_forgets_the_pool() -> None:
    """L57: a program that neither closes nor terminates its pool ends, and leaves no process."""
    script = (
        "import itertools, time, fanfold as ff\n"
        "pool = ff.Pool(2)\n"
        "print(pool.map(abs, [-1, -2]), flush=True)\n"
        "results = pool.imap(abs, itertools.count())\n"
        "print(next(results))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[1, 2]\n0\n", "")
