"""Several threads use one pool in every way while somebody kills its workers: run by `test_soak`.

``python chaos.py SEED SECONDS METHOD TASKS_PER_CHILD`` prints what it did. Its exit code is 1, and
the reasons are printed, when a result was lost, or wrong, or shared memory stayed in use.
"""

from __future__ import annotations

import faulthandler
import itertools
import operator
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np

import fanfold as ff
from fanfold.transport.segments import process_folder

ENOUGH = {"retries": 50, "progress": False}
KILLED = ff.WorkerDied, ff.TaskStalled, ff.TaskTimeout  # what the stranger may make of a task
MOST = 10  # kills while no worker is ready: at 15 the pool gives up
LONGEST = 60.0  # seconds after its end until the program shows every stack and gives up


def nap(n):
    time.sleep(n % 5 * 1e-3)
    return n


def plain_map(pool, chance):
    count, chunk = chance.randrange(1, 200), chance.choice([None, 1, 7])
    assert ff.map(nap, range(count), on=pool, chunk=chunk, **ENOUGH) == list(range(count))


def tiny_tasks(pool, chance):
    count = chance.randrange(1, 1000)
    assert ff.map(abs, range(count), on=pool, **ENOUGH) == list(range(count))


def leave_a_loop(pool, chance):
    count = chance.randrange(1, 50)
    results = ff.imap(nap, itertools.count(), on=pool, **ENOUGH)
    assert list(itertools.islice(results, count)) == list(range(count))
    results.close()


def fold(pool, chance):
    numbers = [chance.random() for _ in range(chance.randrange(1, 300))]
    here = ff.map_reduce(float, numbers, reduce=operator.add, on="serial")
    assert ff.map_reduce(float, numbers, reduce=operator.add, on=pool, **ENOUGH) == here


def large_values(pool, chance):
    inputs = [np.full(40_000, n) for n in range(chance.randrange(1, 20))]
    for n, result in enumerate(ff.imap(np.negative, inputs, on=pool, **ENOUGH)):
        assert (result == -n).all()


def submit_and_cancel(pool, chance):
    futures = [pool.submit(nap, n) for n in range(chance.randrange(1, 80))]
    cancelled = {n for n in range(len(futures)) if chance.random() < 0.3 and futures[n].cancel()}
    for n, future in enumerate(futures):
        if n in cancelled:
            assert future.cancelled()
        else:
            error = future.exception(timeout=50)
            assert isinstance(error, KILLED) or future.result() == n


def one_fails(pool, chance):
    """The guilty task fails as it should, and the others at most because they were killed."""
    guilty = chance.choice([lambda: os._exit(3), lambda: time.sleep(60), lambda: 1 / 0])

    def task(n):
        return guilty() if n == 3 else nap(n)

    results = ff.map(task, range(8), on=pool, timeout=0.3, errors="return", progress=False)
    error = results.pop(3)
    assert isinstance(error, (*KILLED, ZeroDivisionError)), error
    for n, result in zip((0, 1, 2, 4, 5, 6, 7), results, strict=True):
        assert result == n or isinstance(result, KILLED), result


WAYS = [plain_map, tiny_tasks, leave_a_loop, fold, large_values, submit_and_cancel, one_fails]


def use(pool, seed, end, done, wrong):
    chance = random.Random(seed)
    while time.monotonic() < end:
        way = chance.choice(WAYS)
        try:
            way(pool, chance)
        except BaseException:
            wrong.append(f"{way.__name__}: {traceback.format_exc()}")
        done.append(way.__name__)


def kill(pool, seed, end, killed):
    """Workers in any state; but from a pool that gets none ready nobody would expect results."""
    chance = random.Random(seed)
    since_ready = 0
    while time.monotonic() < end:
        time.sleep(chance.expovariate(15))
        ready = any(worker.ready for worker in list(pool._pool._workers.values()))
        since_ready = 0 if ready else since_ready + 1
        if since_ready > MOST:
            continue
        for pid in chance.sample(pool.process_ids() or [0], 1):
            signum = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signum)
                    killed.append(pid)


def main() -> int:
    seed, seconds, method, tasks_per_child = sys.argv[1:]
    faulthandler.dump_traceback_later(float(seconds) + LONGEST, exit=True)
    pool = ff.ProcessExecutor(2, method, max_tasks_per_child=int(tasks_per_child) or None)
    end = time.monotonic() + float(seconds)
    done, killed, wrong = [], [], []
    threads = [
        threading.Thread(target=use, args=(pool, f"{seed}-{n}", end, done, wrong)) for n in range(4)
    ]
    threads.append(threading.Thread(target=kill, args=(pool, seed, end, killed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.shutdown()
    kept = [str(name) for root in process_folder().roots for name in Path(root).iterdir()]
    wrong += [f"shared memory in use: {name}" for name in kept]
    print(f"{len(done)} calls, {len(killed)} kills, {len(wrong)} wrong", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
