"""Rows L33, L34, L43, L44, L46, L47, L51: what surrounds the driver, and what tasks do to it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import fanfold as ff
from fanfold.testing.functions import until

SQUARES = [n * n for n in range(20)]


# Threads


def test_start_while_locks_are_held():
    """L33: workers never inherit a lock that another thread of the driver held: while one thread
    holds the lock of logging over and over, 60 workers start, and each logs."""
    over = threading.Event()
    handler = logging.NullHandler()

    def hold():
        while not over.is_set():
            handler.acquire()
            logging._acquireLock() if hasattr(logging, "_acquireLock") else logging._lock.acquire()
            over.wait(0.001)
            logging._releaseLock() if hasattr(logging, "_releaseLock") else logging._lock.release()
            handler.release()

    def log(n):
        logging.getLogger(f"worker.{n}").warning("%s", n)
        return n

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        with ff.ProcessExecutor(2, max_tasks_per_child=1) as pool:
            assert ff.map(log, range(60), on=pool) == list(range(60))
    finally:
        over.set()
        holder.join()


def test_submit_from_a_thread_that_ends(method):
    """L34: workers started by a thread that ends go on living."""
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        first = []
        thread = threading.Thread(target=lambda: first.append(pool.submit(os.getpid).result()))
        thread.start()
        thread.join()
        until(lambda: not thread.is_alive(), "the thread to end")
        pids = {pool.submit(os.getpid).result(timeout=60) for _ in range(50)}
        assert first[0] in pids


# How the driver was started


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]], ids=str)
def test_standard_streams_closed_at_start(method, closed, tmp_path, launch):
    """L43: a driver that was started without stdin, stdout or stderr works, and so do tasks that
    write to them."""
    program = """if True:
        import sys
        import fanfold as ff
        task = lambda n: print(n) or n * n
        results = ff.map(task, range(20), on=ff.ProcessExecutor(2, sys.argv[1]))
        with open("answer", "w") as file:
            print(results, file=file)
        """
    shell = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", program, method]
    driver = launch(command, tmp_path)
    assert driver.end() == 0, driver.report()
    assert (tmp_path / "answer").read_text() == f"{SQUARES}\n"
    driver.nothing_is_left()


PROGRAM = """\
import os
import fanfold as ff

print("main runs", flush=True)

class Point:
    def __init__(self, n):
        self.n = n

def square(n):
    return Point(n * n)

print([p.n for p in ff.map(square, range(20), on=ff.ProcessExecutor(2, METHOD))], flush=True)
"""

LAUNCHES = {
    "file": ["main.py"],
    "folder": ["app"],
    "module": ["-m", "app"],
    "-c": ["-c", PROGRAM],
    "stdin": ["-"],
    "interactive": ["-i", "-q"],
    "run by another": ["-c", "import runpy; runpy.run_path('main.py', run_name='__main__')"],
    "doctest": ["-m", "doctest", "-v", "session.txt"],
    "optimized, safe path": ["-O", "-P", "main.py"],
}


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("form", LAUNCHES)
def test_forms_of_main(method, form, tmp_path, launch):
    """L44: functions and classes of a main program without a guard work, however the program is
    launched, and the program is not run again in the workers."""
    program = PROGRAM.replace("METHOD", repr(method))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(program)
    (tmp_path / "main.py").write_text(program)
    (tmp_path / "stdin").write_text(program)
    session = [
        ">>> " + program.splitlines()[1],
        ">>> ff.map(lambda n: n * n, range(4))",
        "[0, 1, 4, 9]",
    ]
    (tmp_path / "session.txt").write_text("\n".join(session) + "\n")
    arguments = [word.replace("METHOD", repr(method)) for word in LAUNCHES[form]]
    with (tmp_path / "stdin").open() as stdin:
        driver = launch([sys.executable, *arguments], tmp_path, stdin=stdin)
        assert driver.end() == 0, driver.report()
    driver.nothing_is_left()
    if form == "doctest":
        assert "2 passed" in driver.out
    else:
        assert driver.out.splitlines() == ["main runs", str(SQUARES)]


def test_function_of_an_interactive_session(tmp_path, launch):
    """L44: functions typed at the prompt work; a new definition is taken, the old one is not."""
    (tmp_path / "typed").write_text(
        "import fanfold as ff\n"
        "pool = ff.ProcessExecutor(1)\n"
        "def f(n): return n + 1\n\n"
        "print(ff.map(f, [1, 2], on=pool), pool.submit(f, 1).result())\n"
        "def f(n): return n - 1\n\n"
        "print(ff.map(f, [1, 2], on=pool), pool.submit(f, 1).result())\n"
        "pool.shutdown()\n"
    )
    with (tmp_path / "typed").open() as stdin:
        driver = launch([sys.executable, "-i", "-q"], tmp_path, stdin=stdin)
        assert driver.end() == 0
    assert driver.out.splitlines() == ["[2, 3] 2", "[0, 1] 0"]


# Modules


def test_module_edited_while_the_pool_lives(tmp_path, run):
    """L46: the code of a module is that of its first import in each worker; a new pool has the new
    code; `importlib.reload` in the driver does not reach workers that live."""
    driver = run(
        """
        sys.path.insert(0, os.getcwd())
        sys.dont_write_bytecode = True

        def write(answer):
            with open("edited.py", "w") as file:
                file.write(f"def answer(n): return {answer}\\n")

        write(1)
        import edited
        with ff.ProcessExecutor(1) as pool:
            say(ff.map(edited.answer, [0, 0], on=pool))
            write(2222)
            say(ff.map(edited.answer, [0, 0], on=pool))
        with ff.ProcessExecutor(1) as pool:
            say(ff.map(edited.answer, [0, 0], on=pool))
        """
    )
    assert driver.out.splitlines() == ["[1, 1]", "[1, 1]", "[2222, 2222]"]


def test_module_found_later(tmp_path, monkeypatch):
    """L46: a module that is found through a path added while the pool lives is found by workers
    that were started before, too."""
    with ff.ProcessExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        (tmp_path / "late_module.py").write_text("def answer(n): return 42 + n\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        import late_module

        try:
            assert ff.map(late_module.answer, [0, 1], on=pool) == [42, 43]
        finally:
            del sys.modules["late_module"]


def test_module_gone(tmp_path, monkeypatch):
    """L46: a module that the worker cannot find is named in the error of the task that needs it."""
    (tmp_path / "gone_module.py").write_text("def answer(n): return 42 + n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone_module

    with ff.ProcessExecutor(1) as pool:
        assert pool.submit(gone_module.answer, 0).result() == 42
    (tmp_path / "gone_module.py").unlink()
    with ff.ProcessExecutor(1) as pool:
        error = pool.submit(gone_module.answer, 0).exception(timeout=60)
        del sys.modules["gone_module"]
        assert isinstance(error, ff.LoadFailed)
        assert "No module named 'gone_module'" in str(error)
        assert pool.submit(abs, -1).result(timeout=60) == 1


def test_files_named_like_modules(method, tmp_path, launch):
    """L47: files in the current folder that are named like modules of the standard library do not
    keep workers from starting."""
    for name in ("signal", "random", "socket", "selectors", "pickle", "struct", "numpy", "psutil"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    code = f"import fanfold as ff; print(ff.map(abs, [-1], on=ff.ProcessExecutor(1, {method!r})))"
    driver = launch([sys.executable, "-P", "-c", code], tmp_path)
    assert driver.end() == 0, driver.report()
    assert driver.out == "[1]\n"


# What tasks change

IMPORTS = "import gc, os, signal, sys, threading, time; "
CHANGES = {
    "working folder": "os.chdir('/')",
    "working folder that is gone": "os.mkdir(f'{n}'); os.chdir(f'{n}'); os.rmdir(f'../{n}')",
    "umask": "os.umask(0o777)",
    "environment": "os.environ.clear()",
    "signal handlers": "[signal.signal(s, signal.SIG_IGN) for s in (2, 10, 12, 13, 15, 17)]",
    "signal mask": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "alarm": "signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(0, .001, .001)",
    "niceness": "os.nice(5)",
    "affinity": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "process group": "os.setpgid(0, os.getppid())",
    "recursion limit": "sys.setrecursionlimit(60 + len(__import__('inspect').stack()))",
    "paths": "sys.path.clear()",
    "default encoding error": "sys.stdout.reconfigure(encoding='ascii')",
    "threads": "[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(20)]",
    "garbage collector": "gc.disable()",
    "tracing": "sys.settrace(lambda *a: None)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_task_changes(change):
    """L51: what a task changes of its process stays in that worker, as documented: it does not
    reach the driver, nor other pools, nor does it keep the worker from running, returning large
    results, being ended at a time limit, or being replaced."""

    def changed(n, code=IMPORTS + CHANGES[change]):
        exec(code, {"n": n})

    def large(n):
        return bytes([n]) * (1 << 20)

    def state(n=0):
        umask = os.umask(0)
        os.umask(umask)
        handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1)]
        return os.getcwd(), umask, os.environ.get("PATH"), handlers, os.nice(0), sys.path

    before = state()
    with ff.ProcessExecutor(1) as pool:
        ff.map(changed, [1], on=pool)
        assert ff.map(large, [1, 2], on=pool) == [large(1), large(2)]
        [error] = ff.map(lambda n: time.sleep(60), [1], on=pool, timeout=0.2, errors="return")
        assert type(error) is ff.TaskTimeout
        assert ff.map(large, [3], on=pool) == [large(3)]
    assert state() == before
    assert ff.map(state, [0], on="processes", workers=1) == [before]


def test_what_workers_inherit(tmp_path, start):
    """L51: workers begin with the driver's working folder, environment, umask, paths and affinity,
    as they are when the pool starts. Of its signals only those that it ignores are inherited, as
    by any process, but for SIGCHLD; none is blocked."""
    driver = start(
        textwrap.dedent(
            """
            os.makedirs("below")
            os.chdir("below")
            os.umask(0o027)
            os.environ["COLOUR"] = "green"
            sys.path.append("/nowhere/at/all")
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            signal.signal(signal.SIGTERM, lambda *_: None)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

            def state(_):
                umask = os.umask(0)
                os.umask(umask)
                affinity = os.sched_getaffinity(0)
                return os.getcwd(), umask, os.environ["COLOUR"], sys.path[-1], affinity

            def signals(_):
                names = signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD
                handlers = [signal.getsignal(name).name for name in names]
                return *handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ())

            for method in ("forkserver", "spawn"):
                pool = ff.ProcessExecutor(1, method)
                say(ff.map(state, [0], on=pool) == [state(0)], *ff.map(signals, [0], on=pool)[0])
                pool.shutdown()
            """
        )
    )
    assert driver.end() == 0, driver.report()
    assert driver.out.splitlines() == ["True SIG_DFL SIG_IGN SIG_DFL set()"] * 2


def test_the_environment_has_changed_since(monkeypatch):
    """L51: the launcher goes on from pool to pool; workers have the variables of now, also where
    some are new, have changed or are gone."""
    names = ["FANFOLD_TEST_NEW", "FANFOLD_TEST_CHANGED", "FANFOLD_TEST_GONE"]
    for values in ([None, "before", "before"], ["now", "now", None]):
        for name, value in zip(names, values, strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        assert ff.map(os.getenv, names, on="processes", workers=1) == values


@pytest.mark.parametrize("umask", [0o777, 0o000], ids=oct)
def test_any_umask(umask, run):
    """L51: large values travel under any umask, and are never open to others."""
    driver = run(
        f"""
        os.umask({umask})
        from pathlib import Path
        from fanfold.testing import Gate
        from fanfold.transport.segments import process_folder

        def mode(path):
            return oct(os.stat(path).st_mode & 0o777)

        with ff.ProcessExecutor(1) as pool:
            blocked, gate = threading.Event(), Gate(Path())
            pool.submit(gate.wait).add_done_callback(lambda _: blocked.wait())
            gate.wait_for(1)
            future = pool.submit(bytes, 1 << 20)  # sent before the callback stops everything
            gate.open()
            roots = process_folder().roots
            names = []
            while not names or "0o0" in map(mode, names):  # a moment later it has its mode
                names = [f"{{root}}/{{name}}" for root in roots for name in os.listdir(root)]
            say(*{{mode(root) for root in roots}}, *{{mode(name) for name in names}})
            blocked.set()
            say(future.result() == bytes(1 << 20))
        """
    )
    assert driver.out.splitlines() == ["0o700 0o600", "True"]


def test_empty_environment(tmp_path):
    """L51: a driver that was started with an empty environment works."""
    code = "import fanfold as ff; print(ff.map(abs, [-1, -2], on='processes'))"
    here = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env=here, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("[1, 2]\n", 0), done.stderr
