"""Rows L11, L36, L48, L60, L61: a task that does not end, and clocks that jump."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import fanfold as ff
from fanfold.errors import NotSerializable, TaskStalled, TaskTimeout
from fanfold.executors.pool import pool as pool_module
from fanfold.testing.faults import hold_interpreter
from fanfold.testing.functions import until

TASKS, GUILTY = 20, 7
SQUARES = {n: n * n for n in range(TASKS) if n != GUILTY}
concurrently = pytest.mark.parametrize("on", ["threads", "processes"])


def named(results):
    return dict(enumerate(results))


# Stopped


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_stopped_by_a_stranger(method, log):
    """L11: a task whose worker somebody stops soon fails with TaskStalled; the worker is killed,
    the others go on."""

    def task(n, path=log.path):
        if n == GUILTY:
            with path.open("a") as out:
                print(os.getpid(), file=out)
            time.sleep(120)
        return n * n

    def stop_it():
        log.wait_for(1)
        os.kill(log.numbers()[0], signal.SIGSTOP)

    threading.Thread(target=stop_it).start()
    began = time.monotonic()
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
        until(lambda: log.numbers()[0] not in pool.process_ids(), "it to be killed")
    error = results.pop(GUILTY)
    assert results == SQUARES
    assert (type(error), error.index) == (TaskStalled, GUILTY)
    assert "SIGSTOP" in str(error)
    assert time.monotonic() - began < 25


def test_stopped_for_a_moment(log):
    """L11: a worker that is stopped and soon goes on loses nothing."""

    def task(n, path=log.path):
        with path.open("a") as out:
            print(os.getpid(), file=out)
        time.sleep(0.3)
        return n

    with ff.ProcessExecutor(1) as pool:
        future = pool.submit(task, 5)
        log.wait_for(1)
        os.kill(log.numbers()[0], signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(log.numbers()[0], signal.SIGCONT)
        assert future.result(timeout=60) == 5
    assert len(log.lines()) == 1


def test_stopped_while_idle():
    """L11: a worker that was stopped while it had nothing to do holds nothing up: what it is given
    then runs elsewhere, and is not blamed."""
    with ff.ProcessExecutor(1) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGSTOP)
        assert pool.submit(abs, -1).result(timeout=60) == 1


def test_interpreter_held_in_c():
    """L11: C code that holds the interpreter is ended at the task's limit: the time is taken from
    outside."""

    def task(n):
        if n == GUILTY:
            hold_interpreter(60)
        return n * n

    began = time.monotonic()
    options = {"on": "processes", "workers": 2, "errors": "return", "timeout": 2.5}
    results = named(ff.map(task, range(TASKS), **options))
    assert type(results.pop(GUILTY)) is TaskTimeout
    assert results == SQUARES
    assert time.monotonic() - began < 25


# Too long


@concurrently
def test_timeout(on, gate):
    """L48: a task beyond its limit fails alone; the others have their results, its slot is free."""
    began = time.monotonic()
    results = ff.map(
        lambda n: gate.wait() if n == GUILTY else n * n,
        range(TASKS),
        on=on,
        workers=2,
        errors="return",
        timeout=2.5,
    )
    results = named(results)
    error = results.pop(GUILTY)
    assert results == SQUARES
    assert (type(error), error.index) == (TaskTimeout, GUILTY)
    assert "2.5 s" in str(error)
    assert any(f"task {GUILTY}, input {GUILTY}" in note for note in error.__notes__)
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_late_task_may_clean_up(method, log, monkeypatch):
    """L48: a late task's worker gets SIGTERM and some time to clean up, until it has; what the task
    does then counts no more: it has failed with TaskTimeout."""
    monkeypatch.setattr(pool_module, "_GRACE", 60.0)

    def leave(signum, frame, path=log.path):
        path.write_text("cleaned up\n")
        raise SystemExit

    def task(n):
        if n == GUILTY:
            signal.signal(signal.SIGTERM, leave)
            time.sleep(60)
        return n * n

    began = time.monotonic()
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return", timeout=2.5))
    assert type(results.pop(GUILTY)) is TaskTimeout
    assert results == SQUARES
    assert log.lines() == [("cleaned", "up")]
    assert time.monotonic() - began < 30  # the time that it may take is 60 s


def test_late_task_that_will_not_end(log, monkeypatch):
    """L48: a late task that ignores SIGTERM is killed."""
    monkeypatch.setattr(pool_module, "_GRACE", 4.0)

    def task(n, path=log.path):
        if n == GUILTY:
            signal.signal(signal.SIGTERM, lambda *_: path.write_text("ignored\n"))
            time.sleep(60)
        return n * n

    began = time.monotonic()
    options = {"on": "processes", "workers": 2, "errors": "return", "timeout": 2.5}
    results = named(ff.map(task, range(TASKS), **options))
    assert type(results.pop(GUILTY)) is TaskTimeout
    assert results == SQUARES
    assert log.lines() == [("ignored",)]
    assert time.monotonic() - began < 30


def test_every_task_too_long():
    """L48: limits are kept when every task exceeds them: each worker is replaced each time."""
    began = time.monotonic()
    options = {"on": "processes", "workers": 2, "errors": "return", "timeout": 0.2}
    results = ff.map(lambda n: time.sleep(60), range(8), **options)
    assert [type(result) for result in results] == [TaskTimeout] * 8
    assert time.monotonic() - began < 25


def test_thread_that_never_ends(gate):
    """L61: a task that never ends in a thread is reported at its limit and left behind; the pool
    has a new thread in its place, and the error says what would kill it."""
    with ff.ThreadExecutor(1) as pool:
        for _ in range(3):
            [error] = ff.map(gate.wait, ["stuck"], on=pool, errors="return", timeout=0.1)
            assert type(error) is TaskTimeout
            assert 'on="processes"' in str(error)
        assert ff.map(abs, [-1, -2], on=pool) == [1, 2]
        assert pool.submit(abs, -3).result(timeout=60) == 3
        gate.open()


# Waiting for oneself


def test_thread_waits_for_its_own_pool():
    """L36: a task that submits to its own pool of threads, all of them busy, and waits, gets its
    result."""

    def depth(pool, levels):
        return 1 + pool.submit(depth, pool, levels - 1).result(timeout=60) if levels else 0

    with ff.ThreadExecutor(1) as pool:
        assert pool.submit(depth, pool, 5).result(timeout=60) == 5
        until(lambda: threads_of(pool) <= 1, "the threads that helped to end")
        nested = ff.map(lambda n: sum(ff.map(abs, [-n, n], on=pool)), range(5), on=pool)
        assert nested == [2 * n for n in range(5)]


def threads_of(pool):
    prefix = pool._pool.prefix
    return sum(thread.name.startswith(prefix) for thread in threading.enumerate())


def test_process_waits_for_its_own_pool():
    """L36: a pool of processes cannot be sent to its own workers, and the error says what can."""
    with ff.ProcessExecutor(1) as pool:
        with pytest.raises(NotSerializable, match="ProcessExecutor"):
            pool.submit(lambda: pool.submit(abs, 1).result())
        with pytest.raises(NotSerializable, match=r"call ff\.map"):
            pool.submit(ff.map, abs, [1], on=pool)
        assert pool.submit(abs, -1).result(timeout=60) == 1


# Clocks


def test_clock_jumps(run):
    """L60: limits, and the waits of the pool, are measured by a clock that does not jump."""
    driver = run(
        """
        real = time.time
        began = time.monotonic()

        def jump():
            for hours in (1, -1):
                time.sleep(0.3)
                time.time = lambda: real() + 3600 * hours

        def task(n):
            now = time.time
            time.time = lambda: now() + (-3600) ** n
            time.sleep(60 if n == 3 else 0.2)
            return n

        threading.Thread(target=jump).start()
        results = ff.map(task, range(6), on="processes", workers=2, errors="return", timeout=2)
        say(type(results.pop(3)).__name__, *results)
        say(2 < time.monotonic() - began < 40)
        """
    )
    assert driver.out.splitlines() == ["TaskTimeout 0 1 2 4 5", "True"]
