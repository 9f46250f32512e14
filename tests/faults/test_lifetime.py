"""Rows L35, L56-L59, L62: pools in pools, the end of a pool, callbacks, bursts, cancelling."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, as_completed, wait

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fanfold as ff
from fanfold.errors import PoolClosed
from fanfold.testing.functions import Gate, until
from fanfold.transport.segments import process_folder

MANY = 500_000 if os.environ.get("FANFOLD_FAULTS") == "whole" else 50_000
concurrently = pytest.mark.parametrize("on", ["threads", "processes"])


# The end of a worker

FAREWELL = """
import os, pickle, socket
from fanfold.executors.pool import worker
from fanfold.executors.work.mark import new_mark
from fanfold.transport.channel import Channel
from fanfold.transport.surroundings import surroundings

class Overtaken(worker._Worker):
    began = False

    def _watch(self):
        self.began = True

    def _end_copy(self):  # the last step before it reads
        if self.began:
            self._relieve()

ours, theirs = map(Channel, socket.socketpair())
setup = worker.Setup(
    "worker 0", [], "", memory=None, initializer=None, surroundings=surroundings()
)
for operations in ([("setup", setup)], [("exit",)]):
    ours.send(pickle.dumps(operations))
os._exit(Overtaken(theirs, new_mark()[1]).serve())
"""


def test_a_farewell_that_is_overheard():
    """A worker that is told to leave does, also where its watching thread has read that while the
    other was about to: whoever shuts the pool down waits for it."""
    subprocess.run([sys.executable, "-c", FAREWELL], check=True, timeout=60)


def test_workers_may_begin_later(gate):
    """A pool may be told to start fewer workers for now, and all of them later."""
    with ff.ProcessExecutor(2) as pool:
        pool.resize(1)
        waiting = [pool.submit(gate.wait, number) for number in range(4)]
        gate.wait_for(1)
        until(pool.process_ids, "the worker to be known")
        assert len(pool.process_ids()) == 1 == len(gate.came())
        pool.resize(2)
        gate.wait_for(2)
        until(lambda: len(pool.process_ids()) > 1, "the other worker to be known")
        assert len(pool.process_ids()) == 2
        gate.open()
        wait(waiting)


# Pools in pools


@pytest.mark.parametrize("places", [("processes",) * 3, ("threads",) * 3, ("processes", "threads")])
def test_nested_maps(places):
    """L35: maps within maps, three deep, two workers each, give the right results in bounded time;
    the cores are shared: inner maps have by default the cores that their worker has."""

    def total(places, n):
        if not places:
            return n, ff.cores() + 0
        inner = ff.map(total, [places[1:]] * 2, [n, n + 1], on=places[0], workers=2)
        return sum(part for part, _ in inner), max(cores for _, cores in inner)

    def expected(depth, n):
        return expected(depth - 1, n) + expected(depth - 1, n + 1) if depth else n

    result, cores = total(places, 5)
    assert result == expected(len(places), 5)
    assert cores <= ff.cores()
    if places[0] == "processes":
        assert cores <= max(1, ff.cores() // 2)


def test_inner_pool_dies_with_its_worker(log):
    """L35: when a worker that has a pool of its own is killed, the inner workers end with it."""

    def inner(path=log.path):
        with path.open("a") as out:
            print(os.getpid(), file=out)
        time.sleep(60)

    def outer(n):
        return n if n else ff.map(lambda _: inner(), range(2), on="processes", workers=2)

    with ff.ProcessExecutor(1) as pool:
        future = pool.submit(outer, 0)
        log.wait_for(2)
        os.kill(pool.process_ids()[0], 9)
        assert isinstance(future.exception(timeout=60), ff.WorkerDied)
        until(lambda: not any(map(alive, log.numbers())), "the inner workers to end")


def test_pools_side_by_side(gate, tmp_path):
    """L35: pools of one driver do not touch each other's memory: while the results of one wait to
    be taken, those of another come, and all are right."""
    before = Gate(tmp_path)
    with ff.ProcessExecutor(1) as first, ff.ProcessExecutor(1) as second:
        first.submit(before.wait)
        held = [first.submit(np.full, 1 << 16, n) for n in range(8)]
        for future in held:
            future.add_done_callback(lambda _: gate.wait())
        before.open()
        until(lambda: len(segments()) >= 2, "results that wait")
        try:
            others = ff.map(lambda n: np.full(1 << 16, -n), range(8), on=second)
        finally:
            gate.open()
        assert all((array == -n).all() for n, array in enumerate(others))
        assert all((future.result(60) == n).all() for n, future in enumerate(held))


def segments():
    return [name for root in process_folder().roots for name in os.listdir(root)]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Callbacks


@concurrently
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_callback_that_raises(on, error, gate, caplog):
    """L56: what a future's callback raises, whatever it is, is logged, and the pool lives."""

    def callback(_):
        raise error("from a callback")

    with ff.executor(on, workers=2) as pool:
        waiting = [pool.submit(gate.wait, n) for n in range(2)]
        futures = [*waiting, pool.submit(fail), *(pool.submit(abs, -n) for n in range(3, 20))]
        for future in futures:
            future.add_done_callback(callback)
        gate.open()
        assert isinstance(futures.pop(2).exception(timeout=60), ZeroDivisionError)
        assert [future.result(timeout=60) for future in futures] == [0, 1, *range(3, 20)]
        assert pool.submit(abs, -1).result(timeout=60) == 1
    assert caplog.text.count(f"{error.__name__}: from a callback") == 20


def fail():
    raise ZeroDivisionError


@concurrently
def test_callback_that_submits(on):
    """L56: a callback may submit to the pool that calls it."""
    ends = []

    def again(future):
        n = future.result()
        if n:
            pool.submit(int, n - 1).add_done_callback(again)
        else:
            ends.append(n)

    with ff.executor(on, workers=1) as pool:
        for _ in range(3):
            pool.submit(int, 50).add_done_callback(again)
        until(lambda: len(ends) == 3, "the chains to end")


# The end


def test_submit_after_shutdown():
    """L58: a pool that was shut down takes no more work, and says so; closing twice is no error."""
    for kind in (ff.ProcessExecutor, ff.ThreadExecutor):
        for used in (True, False):
            pool = kind(1)
            if used:
                assert pool.submit(abs, -1).result() == 1
            pool.shutdown()
            pool.shutdown(wait=False, cancel_futures=True)
            with pytest.raises(PoolClosed, match="shutdown"):
                pool.submit(abs, 1)
            with pytest.raises(PoolClosed):
                ff.map(abs, [1, 2], on=pool)


@concurrently
def test_use_in_a_forked_child(on, run):
    """L58: in a forked child the parent's pool refuses, a new one works, and the parent's pool is
    none the worse when the child ends."""
    driver = run(
        """
        def refused(use):
            try:
                use()
            except ff.PoolClosed as error:
                return "belongs to the process that made it" in str(error)

        with ff.executor(sys.argv[1], workers=1) as pool:
            pool.submit(abs, -1).result()
            child = os.fork()
            if child == 0:
                say(refused(lambda: pool.submit(abs, 1)))
                say(refused(lambda: ff.map(abs, [1, 2], on=pool)))
                say(ff.map(abs, [-1, -2], on=sys.argv[1], workers=1))
                sys.exit(7)
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            say(pool.submit(abs, -2).result(timeout=60))
        """,
        on,
        limit=None,
    )
    assert driver.out.splitlines() == ["True", "True", "[1, 2]", "7", "2"]


@concurrently
def test_executor_is_collected(on):
    """L57: a pool that nobody refers to finishes what was submitted, and goes."""
    pool = ff.executor(on, workers=2)
    futures = [pool.submit(time.sleep, 0.01) for _ in range(20)]
    del pool
    gc.collect()
    assert [future.result(timeout=60) for future in futures] == [None] * 20


ENDINGS = {
    "pending": "futures = [pool.submit(work, n) for n in range(8)]",
    "after a map": "ff.map(work, range(8), on=pool)",
    "an unfinished imap": "results = ff.imap(work, range(5000), on=pool); next(results)",
    "an exception": "futures = [pool.submit(work, n) for n in range(8)]; 1 / 0",
    "sys.exit": "futures = [pool.submit(work, n) for n in range(8)]; sys.exit(0)",
    "a submit at exit": "atexit.register(lambda: pool.submit(work, 1)); pool.submit(work, 0)",
    "a map at exit": "atexit.register(lambda: say(ff.map(abs, [-1, -2], on='processes')))",
    "daemon thread that submits": "threading.Thread(target=submit, daemon=True).start()",
    "thread that ends later": "threading.Thread(target=later).start()",
    "pool in a global cycle": "pool.myself = pool; pool.submit(work, 0)",
}


@concurrently
@pytest.mark.parametrize("ending", ENDINGS)
def test_end_of_the_interpreter(on, ending, start):
    """L57: a program that ends with a pool open, busy or not, ends in time: what was submitted is
    done first, as with the standard executors, and nothing hangs or stays."""
    driver = start(
        f"""
        import atexit

        def work(n):
            time.sleep(0.02)
            say("worked")
            return n

        def submit():
            try:
                while True:
                    pool.submit(abs, 1)
            except RuntimeError:  # a thread that prints it at the very end may abort Python
                pass

        def later():
            time.sleep(0.1)
            say(ff.map(abs, [-1, -2], on="threads"))

        pool = ff.executor(sys.argv[1], workers=2)
        {ENDINGS[ending]}
        """,
        on,
    )
    code = driver.end()
    assert code == (1 if ending == "an exception" else 0), driver.report()
    if ending in ("pending", "after a map", "an exception", "sys.exit"):
        assert driver.out.count("worked") == 8
    if ending == "an unfinished imap":
        assert driver.out.count("worked") < 5000
    refused = "can't create new thread at interpreter shutdown" in driver.err  # Python 3.12
    if ending in ("thread that ends later", "a map at exit"):
        assert "[1, 2]" in driver.out or refused
    driver.nothing_is_left(names=not refused)


# Bursts


def test_bursts():
    """L59: bursts of tasks far shorter than a millisecond, from several threads at once, lose no
    wake-up: every result arrives."""
    with ff.ProcessExecutor(2) as pool:

        def burst():
            futures = [pool.submit(abs, -n) for n in range(MANY // 80)]
            sums.append(sum(future.result(timeout=30) for future in futures))

        sums = []
        for _ in range(20):
            threads = [threading.Thread(target=burst) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sums == [sum(range(MANY // 80))] * 40
        assert ff.map(abs, range(MANY), on=pool) == list(range(MANY))
        assert sum(ff.imap_unordered(abs, range(MANY), on=pool)) == sum(range(MANY))


def test_pauses_between_tasks():
    """L59: a worker that fell asleep wakes up for the next task, after a pause of any length."""
    chance = random.Random(59)
    with ff.ProcessExecutor(1) as pool:
        for n in range(60):
            time.sleep(chance.choice([0, 0.0001, 0.001, 0.01, 0.05]) * chance.random())
            assert pool.submit(abs, -n).result(timeout=60) == n
        time.sleep(0.4)
        assert pool.submit(abs, -1).result(timeout=60) == 1


# Cancelling


@concurrently
@settings(
    max_examples=MANY // 1000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_cancel_racing_completion(on, data, shared):
    """L62: a cancel that races with the start and the end of its task has exactly one outcome: it
    says True and the task never ran, or it says False and the result arrives. Once each."""
    count = data.draw(st.integers(1, 40), "tasks")
    order = data.draw(st.permutations(range(count)), "order of cancelling")
    pause = data.draw(st.sampled_from([0, 0.0005, 0.002]), "pause before it")
    nap = data.draw(st.sampled_from([0, 0.0002]), "length of a task")
    pool, log = shared(on)
    began = len(log.lines())
    told = []
    futures = [pool.submit(note, log.path, n, nap) for n in range(count)]
    for future in futures:
        future.add_done_callback(told.append)
    time.sleep(pause)
    cancelled = {n: futures[n].cancel() for n in order}
    wait(futures, timeout=60)
    for n, future in enumerate(futures):
        if cancelled[n]:
            with pytest.raises(CancelledError):
                future.result(timeout=0)
        else:
            assert future.result(timeout=0) == n
    ran = sorted(int(number) for (number,) in log.lines()[began:])
    assert ran == [n for n in range(count) if not cancelled[n]]
    until(lambda: len(told) == count, "the callbacks")
    assert len(set(map(id, told))) == count


def note(path, n, nap):
    with path.open("a") as out:
        print(n, file=out)
    time.sleep(nap)
    return n


@pytest.fixture
def shared(log):
    """One pool of each kind for all examples of a test."""
    pools = {}

    def pool_and_log(on):
        if on not in pools:
            pools[on] = ff.executor(on, workers=2)
        return pools[on], log

    yield pool_and_log
    for pool in pools.values():
        pool.shutdown()


@concurrently
def test_cancel_from_many_threads(on, gate):
    """L62: however many threads cancel the same futures, each is cancelled once or ends once."""

    def cancel():
        futures[-1].cancel()
        gate.open()
        for future in reversed(futures):
            future.cancel()

    with ff.executor(on, workers=2) as pool:
        for number in range(2):
            pool.submit(gate.wait, number)
        futures = [pool.submit(time.sleep, 0.0005) for _ in range(300)]
        threads = [threading.Thread(target=cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = list(as_completed(futures, timeout=60))
    assert len(ended) == len(set(map(id, ended))) == 300
    assert all(future.cancelled() or future.result() is None for future in futures)
    assert any(future.cancelled() for future in futures)
