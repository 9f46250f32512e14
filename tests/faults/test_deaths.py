"""Rows L01, L03, L05, L07, L08, L10, L12, L20, L21, L32, L49, L52, L53: a task ends its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

import fanfold as ff
from fanfold.errors import TaskTimeout, WorkerDied
from fanfold.executors.base import StartupFailed
from fanfold.testing import descendants
from fanfold.testing.faults import kill_self
from fanfold.testing.functions import until

TASKS, GUILTY = 20, 7


def squares_but(guilty=GUILTY, count=TASKS):
    return {n: n * n for n in range(count) if n != guilty}


def named(results):
    return dict(enumerate(results))


# A task ends its own worker


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_killed_by_signal(method, signum, log):
    """L01, L12: the task that is killed fails alone, with its index, input, pid and signal; its
    worker is replaced; it ran once, and the others at most once more than they lost a worker."""

    def task(n, path=log.path):
        with path.open("a") as out:
            print(n, os.getpid(), file=out)
        if n == GUILTY:
            os.kill(os.getpid(), signum)
            signal.pause()
        return n * n

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
        error = results.pop(GUILTY)
        until(lambda: error.pid not in pool.process_ids(), "the dead worker to be forgotten")
        again = ff.map(task, [1, 2, 3], on=pool)
    assert results == squares_but()
    assert again == [1, 4, 9]
    assert type(error) is WorkerDied
    assert (error.index, error.signal, error.exitcode) == (GUILTY, signum, -signum)
    ran = [tuple(map(int, line)) for line in log.lines()]
    assert [pid for n, pid in ran if n == GUILTY] == [error.pid]
    assert max(Counter(n for n, _ in ran if n > 3).values()) <= 2


@pytest.mark.parametrize("code", [0, 3])
def test_exit(method, code):
    """L08: a worker that exits fails its task, also with exit code 0: there is no result."""
    results = ff.map(
        lambda n: os._exit(code) if n == GUILTY else n * n,
        range(TASKS),
        on=ff.ProcessExecutor(2, mp_context=method),
        errors="return",
    )
    results = named(results)
    error = results.pop(GUILTY)
    assert results == squares_but()
    assert (type(error), error.exitcode, error.signal) == (WorkerDied, code, None)
    assert f"code {code}" in str(error)


CRASHES = {
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGABRT": "os.abort()",
    "SIGFPE": "signal.raise_signal(signal.SIGFPE)",
    "SIGBUS": "past_the_end()",
}


@pytest.mark.parametrize("name", CRASHES)
def test_crash_in_c(name, run):
    """L10: a crash in C fails its task alone, by signal and input, and the stack with the user's
    function is on stderr."""
    driver = run(
        f"""
        import ctypes, mmap, tempfile

        def past_the_end():
            with tempfile.TemporaryFile() as file:
                file.truncate(mmap.PAGESIZE)
                page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
                file.truncate(0)
                return page[0]

        def guilty_function(text):
            return {CRASHES[name]} if text == "bad one" else text

        inputs = ["good"] * 7 + ["bad one"] + ["good"] * 12
        results = ff.map(guilty_function, inputs, on="processes", workers=2, errors="return")
        error = results.pop(7)
        say(len(results), set(results), error.signal.name, error.index, *error.__notes__)
        """
    )
    assert f"19 {{'good'}} {name} 7 fanfold: task 7, input 'bad one'" in driver.out
    assert "in guilty_function" in driver.err


def test_load_ends_the_worker(method, log):
    """L20: an argument that ends the process that loads it fails its task alone, with the phase; it
    is tried once more before it is blamed, and nobody else is."""

    class Deadly:
        def __reduce__(self):
            text = f"open({str(log.path)!r}, 'a').write('loaded\\n'); __import__('os')._exit(3)"
            return exec, (text,)

        def __repr__(self):
            return "Deadly()"

    inputs = [Deadly() if n == GUILTY else n for n in range(TASKS)]
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(lambda n: n * n, inputs, on=pool, errors="return"))
        future = pool.submit(lambda n: n, inputs[GUILTY])
        single = future.exception(timeout=60)
        assert pool.submit(abs, -1).result(timeout=60) == 1
    error = results.pop(GUILTY)
    assert results == squares_but()
    for one in (error, single):
        assert (type(one), one.phase, one.exitcode) == (WorkerDied, "load", 3)
        assert "Deadly()" in one.__notes__[0]
    assert (error.index, single.index) == (GUILTY, None)
    assert 2 <= len(log.lines()) <= 5  # with its chunk, alone, and twice by submit


@pytest.mark.parametrize("way", ["map", "submit"])
def test_pickling_ends_the_worker(way):
    """L07: a result that ends the process that pickles it fails its own task, in the phase "send",
    although results of neighbours wait to be sent with it."""

    class Deadly:
        def __reduce__(self):
            os._exit(5)

    def task(n):
        return Deadly() if n == GUILTY else [n * n]

    with ff.ProcessExecutor(1) as pool:
        if way == "map":
            results = ff.map(task, range(TASKS), on=pool, errors="return", chunk=TASKS)
        else:
            futures = [pool.submit(task, n) for n in range(TASKS)]
            errors = [future.exception(timeout=60) for future in futures]
            results = [e or f.result() for e, f in zip(errors, futures, strict=True)]
    results = named(results)
    error = results.pop(GUILTY)
    assert results == {n: [square] for n, square in squares_but().items()}
    assert (type(error), error.phase, error.exitcode) == (WorkerDied, "send", 5)


@pytest.mark.parametrize("way", ["map", "submit"])
def test_pickling_ends_the_worker_beside_a_long_task(way):
    """L07: also when the result that ends the process is pickled while the next task runs already,
    it is its own task that fails, and not the one that runs."""

    class Deadly:
        def __reduce__(self):
            os._exit(5)

    def task(n):
        if n == 1:
            return Deadly()
        time.sleep(0.3 if n == 2 else 0)
        return n

    with ff.ProcessExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        if way == "map":
            results = ff.map(task, range(4), on=pool, errors="return", chunk=4)
        else:
            gate = pool.submit(time.sleep, 0.1)  # so that the others travel together
            futures = [pool.submit(task, n) for n in range(4)]
            results = [
                gate.result() or future.exception(60) or future.result() for future in futures
            ]
    error = results.pop(1)
    assert results == [0, 2, 3]
    assert (type(error), error.phase, error.exitcode) == (WorkerDied, "send", 5)


def test_death_while_sending():
    """L07: what a worker had stored of a large result when it died is freed at once."""

    def task(n):
        if n == GUILTY:
            from fanfold.transport import segments

            def write_half(path, buffer):
                Path(path).write_bytes(buffer[: len(buffer) // 2])
                kill_self()

            segments._write_file = write_half
            return np.ones(1 << 27, np.uint8)
        return n * n

    with ff.ProcessExecutor(2) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
        error = results.pop(GUILTY)
        assert results == squares_but()
        assert (type(error), error.exitcode, error.index) == (WorkerDied, -9, GUILTY)
        assert error.peak_memory > 1 << 27
        assert segments() == []


def segments():
    """The segments of this process and its workers."""
    from fanfold.transport.segments import process_folder

    return [name for root in process_folder().roots for name in os.listdir(root)]


@pytest.mark.parametrize("way", ["map", "submit"])
def test_crash_when_collected(way):
    """L21: an object that ends the process when it is freed, after its task has returned, costs no
    result, and nobody else is blamed."""
    driver = os.getpid()

    class CrashesAtEnd:
        def __del__(self):
            if os.getpid() != driver:
                os._exit(4)

    inputs = [(CrashesAtEnd() if n == GUILTY else None, n) for n in range(TASKS)]
    with ff.ProcessExecutor(2) as pool:
        if way == "map":
            results = ff.map(lambda pair: pair[1] ** 2, inputs, on=pool, errors="return")
        else:
            futures = [pool.submit(lambda pair: pair[1] ** 2, pair) for pair in inputs]
            results = [future.result(timeout=60) for future in futures]
    assert results == [n * n for n in range(TASKS)]


def test_out_of_memory():
    """L03: a SIGKILL of the kernel's for want of memory (here sent by the task itself, once it has
    grown) is told with the peak memory, and that it may have been the kernel."""

    def task(n):
        if n == GUILTY:
            grown = bytearray(200 << 20)
            grown[:: 1 << 12] = b"x" * len(grown[:: 1 << 12])
            os.kill(os.getpid(), signal.SIGKILL)
        return n * n

    results = named(ff.map(task, range(TASKS), on="processes", workers=2, errors="return"))
    error = results.pop(GUILTY)
    assert results == squares_but()
    assert 200 << 20 < error.peak_memory < 400 << 20
    assert "for want of memory" in str(error)
    assert "peak memory 2" in str(error)


# Start-up


@pytest.mark.parametrize("end", [partial(os._exit, 1), partial(os.abort)], ids=["exit", "abort"])
def test_initializer_ends_the_worker(method, end, log, gate):
    """L05: workers that die before they are ready are not started again and again: all tasks fail
    with the reason."""

    def initialize(path=log.path, submitted=gate):
        submitted.wait(os.getpid())
        with path.open("a") as out:
            print(os.getpid(), file=out)
        end()

    with ff.ProcessExecutor(2, mp_context=method, initializer=initialize) as pool:
        futures = [pool.submit(abs, -n) for n in range(TASKS)]
        gate.open()
        errors = [future.exception(timeout=60) for future in futures]
        with pytest.raises(StartupFailed):
            pool.submit(abs, 1)
    assert {type(error) for error in errors} == {StartupFailed}
    assert "initializer" in str(errors[0])
    assert 3 <= len(log.lines()) <= 7  # some were on their way when the third had died


def test_initializer_whose_module_is_gone(tmp_path, monkeypatch):
    """L05: an initializer that the worker cannot import is named, with the module, at once."""
    (tmp_path / "soon_gone.py").write_text("def initialize(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import soon_gone

    with ff.ProcessExecutor(2, initializer=soon_gone.initialize) as pool:
        (tmp_path / "soon_gone.py").unlink()
        error = pool.submit(abs, 1).exception(timeout=60)
    del sys.modules["soon_gone"]
    assert type(error) is StartupFailed
    assert "soon_gone" in str(error)


# What a worker leaves behind


def runs(pid):
    """Whether a process lives; one that ended and was not buried by its new parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_children_of_a_killed_worker(method, log):
    """L32: what a task has started ends with its worker, whole."""

    def task(n, path=log.path):
        if n == GUILTY:
            children = [subprocess.Popen(["sleep", "999"]) for _ in range(2)]
            with path.open("a") as out:
                print(*(child.pid for child in children), file=out)
            os.kill(os.getpid(), signal.SIGKILL)
        return n * n

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
        assert type(results.pop(GUILTY)) is WorkerDied
        assert results == squares_but()
        until(lambda: not any(map(runs, log.numbers())), "its children to end")
    assert len(log.numbers()) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_of_a_killed_worker(method):
    """L32: the death of a worker is seen at once although a child that its task forked still holds
    all that the worker had open; the child ends too."""
    driver = descendants()

    def task(n):
        if n == GUILTY:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return n * n

    began = time.monotonic()
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
    assert type(results.pop(GUILTY)) is WorkerDied
    assert results == squares_but()
    assert time.monotonic() - began < 30  # and not for as long as the child lives
    until(lambda: len(descendants()) <= len(driver) + 1, "the child to end")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_task_that_returns_twice(method):
    """L32: a task that forks and returns in both processes has one result; the second process ends
    and disturbs nobody."""

    def task(n):
        if n == GUILTY:
            os.fork()
        return n * n

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        for _ in range(5):
            assert ff.map(task, range(TASKS), on=pool) == [n * n for n in range(TASKS)]
        until(lambda: len(pool.process_ids()) <= 2, "no more workers than two")


def test_task_becomes_another_program(method):
    """L08: a task that replaces its process by another program fails, alone, with its exit code."""

    def task(n):
        if n == GUILTY:
            os.execvp("sh", ["sh", "-c", "exit 5"])
        return n * n

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = named(ff.map(task, range(TASKS), on=pool, errors="return"))
    error = results.pop(GUILTY)
    assert results == squares_but()
    assert type(error) is WorkerDied
    assert error.exitcode in (5, -9)  # its channel closes a moment before


def test_task_that_masks_signals():
    """L49: a task that ignores and masks every signal is ended all the same at its limit."""

    def task(n):
        if n == GUILTY:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(120)
        return n * n

    began = time.monotonic()
    options = {"on": "processes", "workers": 2, "errors": "return", "timeout": 1}
    results = named(ff.map(task, range(TASKS), **options))
    assert type(results.pop(GUILTY)) is TaskTimeout
    assert results == squares_but()
    assert time.monotonic() - began < 60


def test_no_zombies(method):
    """L52: every process that ended is waited for, while the pool lives."""

    def task(n):
        if n % 50 == 49:
            os._exit(1)
        return n

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        results = ff.map(task, range(1000), on=pool, errors="return")
        deaths = sum(type(result) is WorkerDied for result in results)
        until(lambda: not any(map(is_zombie, descendants())), "all of them to be waited for")
    assert deaths == 20


def is_zombie(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


REAPERS = {
    "a thread that waits for every child": """
        def reap():
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    time.sleep(0.001)

        threading.Thread(target=reap, daemon=True).start()
        """,
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "every signal blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
}


@pytest.mark.parametrize("reaper", REAPERS)
def test_user_code_that_reaps(method, reaper, run):
    """L53: a death is seen also when the user's code waits for our children before we do, or lets
    no signal of theirs through."""
    script = """
        def task(n):
            if n == 7:
                os._exit(1)
            return n * n

        pool = ff.ProcessExecutor(2, mp_context=sys.argv[1])
        results = ff.map(task, range(20), on=pool, errors="return")
        say(type(results.pop(7)).__name__, len(set(results)))
        say(*ff.map(abs, [-1, -2], on=pool))
        pool.shutdown()
        """
    driver = run(textwrap.dedent(REAPERS[reaper]) + textwrap.dedent(script), method)
    assert driver.out.splitlines() == ["WorkerDied 19", "1 2"]
