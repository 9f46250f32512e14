"""Rows L02, L06, L07, L12: somebody else ends a worker."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import numpy as np
import psutil
import pytest
from tests.faults.test_deaths import runs

import fanfold as ff
from fanfold.errors import WorkerDied
from fanfold.executors.pool.copied import Copied
from fanfold.testing.functions import until
from fanfold.transport.segments import process_folder

TASKS = 20


def named(results):
    return dict(enumerate(results))


def segments():
    """The segments of this process and its workers."""
    return [name for root in process_folder().roots for name in os.listdir(root)]


@pytest.mark.parametrize("way", ["map", "submit"])
def test_strangers_at_random_times(way, log):
    """L02: when somebody kills workers at random times, each death fails exactly the task that ran
    in that process, by name; all others have their results; nothing runs more often than it lost
    its worker."""
    chance = random.Random(2)
    naps = [chance.uniform(0.002, 0.02) for _ in range(300)]

    def task(n, nap, path=log.path):
        with path.open("a") as out:
            print(n, os.getpid(), 0, file=out)
        time.sleep(nap)
        with path.open("a") as out:
            print(n, os.getpid(), 1, file=out)
        return n * n

    killed = []
    with ff.ProcessExecutor(2) as pool:
        over = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=(pool, chance, over, killed))
        killer.start()
        if way == "map":
            results = named(ff.map(task, range(len(naps)), naps, on=pool, errors="return"))
        else:
            futures = [pool.submit(task, n, nap) for n, nap in enumerate(naps)]
            results = named(future.exception(100) or future.result() for future in futures)
        over.set()
        killer.join()
    errors = {n: value for n, value in results.items() if isinstance(value, BaseException)}
    assert {n: results[n] for n in results.keys() - errors} == {
        n: n * n for n in range(len(naps)) if n not in errors
    }
    ran = [tuple(map(int, line)) for line in log.lines()]
    last_of = {pid: n for n, pid, _ in ran}
    for n, error in errors.items():
        assert type(error) is WorkerDied
        assert (error.index, error.exitcode) == (n if way == "map" else None, -9)
        assert error.pid in killed
        assert last_of.get(error.pid) == n or not any(line[:2] == (n, error.pid) for line in ran)
    for n, pid, ended in ran:
        assert ended or (n, pid, 1) in ran or errors[n].pid == pid
    times = Counter(n for n, _, ended in ran if not ended)
    assert sum(times.values()) <= len(naps) + len(killed)
    assert len(killed) > 10


def test_strangers_while_large_values_travel():
    """L02, L06, L07: when somebody kills workers at random times while arguments and results travel
    through shared memory, no result is lost or wrong, and all of that memory is given back."""
    chance, killed, over = random.Random(6), [], threading.Event()
    arrays = [np.full(1 << 18, n) for n in range(150)]
    with ff.ProcessExecutor(2) as pool:
        killer = threading.Thread(target=kill_now_and_then, args=(pool, chance, over, killed))
        killer.start()
        try:
            while len(killed) <= 5:
                results = ff.map(np.negative, iter(arrays), on=pool, retries=200)
                pairs = zip(results, arrays, strict=True)
                wrong = [(n, a) for n, (a, b) in enumerate(pairs) if not np.array_equal(a, -b)]
                assert wrong == []
                del results, pairs
        finally:
            over.set()
            killer.join()
        until(lambda: segments() == [], "the memory to be given back")


def test_death_while_an_early_result_is_packed(log, gate):
    """L02, L07: a result that takes long to pack, in a worker that goes on with the next task
    meanwhile and is killed then, is neither lost nor taken for another's."""

    class Slow:
        def __init__(self, n):
            self.n = n

        def __reduce__(self):
            if os.getpid() != driver:
                gate.wait("packing")
            return Slow, (self.n,)

    def task(n, path=log.path):
        if n == 0:
            with path.open("a") as out:
                print(os.getpid(), file=out)
            return Slow(n)
        return gate.wait(n)

    def kill():
        gate.wait_for(2)
        assert gate.came() == {"packing", "1"}
        os.kill(log.numbers()[0], signal.SIGKILL)
        gate.open()

    driver = os.getpid()
    killer = threading.Thread(target=kill)
    killer.start()
    options = {"on": "processes", "workers": 1, "chunk": 4, "retries": 3, "progress": False}
    results = ff.map(task, range(4), **options)
    killer.join()
    assert type(results[0]).__name__ == "Slow"
    assert results[1:] == [1, 2, 3]


def kill_now_and_then(pool, chance, over, killed):
    """For so many times only: on a busy machine no new worker may come to its first task between
    two of them."""
    while len(killed) < 40 and not over.wait(0.05):
        for pid in chance.sample(pool.process_ids() or [0], 1):
            if pid:
                killed.append(pid)
                with_suppressed(os.kill, pid, signal.SIGKILL)


def with_suppressed(function, *args):
    try:
        function(*args)
    except ProcessLookupError:
        return


def test_idle_worker_killed(method):
    """L12: the death of a worker that has nothing to do fails nothing."""
    with ff.ProcessExecutor(1, mp_context=method) as pool:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            pid = pool.submit(os.getpid).result()
            os.kill(pid, signum)
            assert pool.submit(os.getpid).result(timeout=60) != pid


def test_death_while_loading_is_tried_again(log):
    """L06: a worker that is killed while it loads a large argument loses nothing: the argument is
    kept, and loaded once more elsewhere."""

    def load(path=log.path):
        with path.open("a") as out:
            print(os.getpid(), file=out)
        if len(path.read_text().splitlines()) == 1:
            time.sleep(60)
        return "loaded"

    class Slow:
        def __reduce__(self):
            return load, ()

    large = np.arange(25 << 17)
    with ff.ProcessExecutor(1) as pool:
        future = pool.submit(lambda array, text: (int(array[-1]), text), large, Slow())
        log.wait_for(1)
        os.kill(log.numbers()[0], signal.SIGKILL)
        assert future.result(timeout=60) == ((25 << 17) - 1, "loaded")
    assert len(log.lines()) == 2


def test_death_before_reading(method):
    """L06: a worker killed with half a message in its channel loses nothing."""
    with ff.ProcessExecutor(1, mp_context=method) as pool:
        pid = pool.submit(os.getpid).result()
        os.kill(pid, signal.SIGSTOP)
        futures = [pool.submit(len, b"x" * 100_000) for _ in range(50)]
        os.kill(pid, signal.SIGKILL)
        assert [future.result(timeout=60) for future in futures] == [100_000] * 50


@pytest.mark.parametrize("copied", [False, True], ids=["usual", "copied"])
def test_launcher_killed(copied, log, gate):
    """L02: when somebody kills the launcher of the workers, the tasks that ran fail as if their
    workers had been killed, no other does, and the pool goes on with a new one."""

    def task(n, path=log.path, gate=gate):
        if n >= 5:
            with path.open("a") as out:
                print(os.getpid(), file=out)
            gate.wait()
        return n * n

    def kill():
        log.wait_for(1)
        [pid, *_] = log.numbers()
        launcher.kill()
        until(lambda: not runs(pid), "its worker to end")
        gate.open()

    copy = Copied() if copied else None
    with ff.ProcessExecutor(2, mp_context=copy) as pool:
        launcher = psutil.Process(pool.submit(os.getppid).result())
        killer = threading.Thread(target=kill)
        killer.start()
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
        killer.join()
        lost = [n for n, value in results.items() if type(value) is WorkerDied]
        assert 0 < len(lost) <= 2
        assert {n: results[n] for n in results if n not in lost} == {
            n: n * n for n in range(TASKS) if n not in lost
        }
        assert ff.map(task, range(4), on=pool) == [0, 1, 4, 9]
    if copy is not None:
        copy.close()
