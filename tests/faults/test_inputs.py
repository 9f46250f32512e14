"""Rows L23-L27, L55: inputs that are many, endless, late, broken, or none."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time

import psutil
import pytest

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.testing.functions import until

MIB = 1 << 20
MANY = 10_000 if os.environ.get("FANFOLD_FAULTS") == "whole" else 1000
everywhere = pytest.mark.parametrize("on", ["serial", "threads", "processes"])
concurrently = pytest.mark.parametrize("on", ["threads", "processes"])
lazily = pytest.mark.parametrize("imap", [ff.imap, ff.imap_unordered])


# Many


@concurrently
def test_slow_consumer(on):
    """L23: with a slow consumer inputs are drawn ahead of it by no more than it takes in some
    tenths of a second, and memory does not grow with their number."""
    drawn, ahead, growth = 0, 0, 0
    process = psutil.Process()
    before = process.memory_info().rss

    def megabytes():
        nonlocal drawn
        for _ in range(MANY):
            drawn += 1
            yield os.urandom(16) * (MIB // 16)

    for taken, size in enumerate(ff.imap(len, megabytes(), on=on, workers=2)):
        assert size == MIB
        time.sleep(0.001)
        ahead = max(ahead, drawn - taken)
        growth = max(growth, process.memory_info().rss - before)
    assert drawn == taken + 1
    assert ahead <= 200
    assert growth < (2 * ahead + 50) * MIB  # and all of them are a thousand


# Endless


@lazily
@concurrently
def test_endless_inputs(on, imap):
    """L25: endless inputs are drawn as results are taken; leaving the loop ends it, and the pool
    can be used again."""
    drawn = itertools.count()
    with ff.executor(on, workers=2) as pool:
        results = imap(
            lambda n: time.sleep(1e-3) or 2 * n, (next(drawn) for _ in itertools.count()), on=pool
        )
        firsts = list(itertools.islice(results, 20))
        results.close()
        assert set(firsts) <= set(range(0, 400, 2))
        assert next(drawn) < 400
        assert ff.map(abs, [-1, -2], on=pool) == [1, 2]


def test_leaving_stops_what_runs(gate):
    """L25: leaving the loop stops tasks that run and forgets those that wait."""
    began = time.monotonic()
    with ff.ProcessExecutor(2) as pool:
        for result in ff.imap(lambda n: n or gate.wait(), itertools.count(1), on=pool):
            if result == 5:
                break
        slow = ff.imap_unordered(
            lambda n: n if n < 3 else gate.wait(n), itertools.count(1), on=pool
        )
        assert {next(slow), next(slow)} == {1, 2}
        slow.close()
        assert pool.submit(abs, -1).result(timeout=25) == 1
    assert time.monotonic() - began < 25  # nobody opens the gate, where they wait for 60 s


# Broken


class BrokenInputError(Exception):
    pass


def broken_after(count, error=BrokenInputError):
    yield from range(count)
    raise error(f"no input {count}")


@everywhere
def test_inputs_that_raise(on):
    """L24: when the inputs raise at item 10, the results of 0 to 9 are delivered, then that error,
    and the pool is as good as before."""
    with ff.executor(on, workers=2) as pool:
        results = ff.imap(lambda n: n * n, broken_after(10), on=pool)
        assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
        with pytest.raises(BrokenInputError, match="no input 10"):
            next(results)
        with pytest.raises(BrokenInputError):
            ff.map(abs, broken_after(10), on=pool, errors="return")
        assert ff.map(abs, [-1, -2], on=pool) == [1, 2]


@everywhere
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_inputs_that_exit(on, error):
    """L24: also an exception that is no Exception comes out of the map that draws the inputs."""
    results = ff.imap(abs, broken_after(10, error), on=on, workers=2)
    seen = []
    with pytest.raises(error):
        seen.extend(results)
    # Ctrl-C, which it may be, is not held back until the inputs before it are done.
    assert seen == list(range(len(seen) if error is KeyboardInterrupt else 10))


# Late


@concurrently
def test_inputs_that_block(on):
    """L26: results come while the inputs block, and the inputs are drawn by one thread only."""
    inputs, drawers = queue.Queue(), set()

    def draw():
        while (item := inputs.get(timeout=30)) is not None:
            drawers.add(threading.get_ident())
            yield item

    results = ff.imap(lambda n: n + 1, draw(), on=on, workers=2)
    for n in range(20):
        inputs.put(n)
        assert next(results) == n + 1
    inputs.put(None)
    assert list(results) == []
    assert len(drawers) == 1


@concurrently
def test_leaving_while_inputs_block(on):
    """L26: one can leave while the inputs block; their thread ends when they do."""
    inputs, threads = queue.Queue(), threading.active_count()
    inputs.put(1)
    results = ff.imap(abs, iter(inputs.get, None), on=on, workers=2)
    assert next(results) == 1
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 20
    inputs.put(None)
    until(lambda: threading.active_count() <= threads, "the thread of the inputs to end")


@concurrently
def test_inputs_that_are_not_thread_safe(on):
    """L26: a generator as input is never asked twice at the same time."""

    def touchy():
        inside = threading.Lock()
        for n in range(2000):
            assert inside.acquire(blocking=False)
            yield n
            inside.release()

    expected = list(range(2000))
    assert list(ff.imap(abs, touchy(), on=on, workers=2)) == expected
    assert ff.map(abs, touchy(), on=on, workers=2) == expected


# None, few, and nonsense


@everywhere
@pytest.mark.parametrize("inputs", [[], (), range(0), iter(()), {}, ""], ids=repr)
def test_no_inputs(on, inputs):
    """L27: no inputs give no results, and no error."""
    assert ff.map(abs, inputs, on=on) == []
    assert list(ff.imap(abs, inputs, on=on)) == []
    assert ff.starmap(pow, inputs, on=on) == []


@everywhere
def test_fewer_inputs_than_workers(on):
    """L27: more workers than inputs is no problem."""
    for count in (1, 2):
        assert ff.map(abs, range(-count, 0), on=on, workers=5) == list(range(count, 0, -1))


NONSENSE = {
    "workers": [0, -1, 1.5, float("nan"), "8 ", True, [2]],
    "chunk": [0, -1, 0.5, "2", True],
    "retries": [-1, 0.5, "1", None, True],
    "timeout": [0, -1, float("nan"), float("inf"), "60s", True],
    "errors": ["ignore", None, 1],
    "seed": [-1, 0.5, "x", True],
    "on": ["gpu", "", None, 3, object()],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in NONSENSE for value in NONSENSE[option]]
)
def test_nonsense(option, value):
    """L27: an option that makes no sense is refused before anything runs, in one sentence that
    names it and its value."""
    ran = []
    for function in (ff.map, lambda *args, **options: list(ff.imap(*args, **options))):
        with pytest.raises(UsageError) as caught:
            function(ran.append, [1, 2], **{"on": "threads", option: value})
        message = str(caught.value)
        assert option in message
        assert repr(value) in message or str(value) in message
        assert "\n" not in message
    assert ran == []


# The machinery itself


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", ["map", "submit"])
def test_pool_thread_that_raises(way, monkeypatch):
    """L55: when the pool's own machinery raises, everything that waits fails with that error, and
    what is given to it later too: nobody waits for ever."""
    from fanfold.executors.pool import pool as module

    with ff.ProcessExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1

        def broken(*args):
            raise ZeroDivisionError("injected")

        monkeypatch.setattr(module.Pool, "_answer", broken)
        if way == "map":
            with pytest.raises(ff.StartupFailed, match="injected"):
                ff.map(abs, range(10), on=pool)
        else:
            assert type(pool.submit(abs, -1).exception(timeout=60)) is ff.StartupFailed
            with pytest.raises(ff.StartupFailed, match="injected"):
                pool.submit(abs, -1)
