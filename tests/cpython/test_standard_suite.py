"""CPython's own tests of concurrent.futures, run on fanfold's executors.

The tests are those of the interpreter that runs this: they are imported from its ``test`` package,
and nothing of them is copied. Each test case is derived anew, with fanfold's executor in the place
of the standard one. What differs by intention stands in `DIFFERENCES` with its reason: a test that
fails and is not listed is an error, and so is a listed one that passes.

The tests look into the standard executors: ``_threads``, ``_processes``, ``_max_workers``,
``_broken``. Here these are answered by what can be seen from outside, so that such tests still mean
something. Where a test waits for a broken pool because a worker died, fanfold answers with the
error of that one task, so ``BrokenProcessPool`` stands for `TaskError` here.
"""

import concurrent.futures
import fnmatch
import importlib
import os
import sys
import threading
import types
import unittest
from pathlib import Path

import psutil
import pytest

import fanfold as ff

pytest.importorskip(
    "test.test_concurrent_futures.util",
    reason="this interpreter comes without CPython's tests (test.test_concurrent_futures)",
)

# The start methods differ in how workers begin and end; what they do between is the same.
EVERYWHERE = ("test_init", "test_process_pool", "test_shutdown", "test_thread_pool")
ONCE = ("test_as_completed", "test_deadlock", "test_wait")
MODULES = {
    name: importlib.import_module(f"test.test_concurrent_futures.{name}")
    for name in (*EVERYWHERE, *ONCE)
}

DIFFERENCES = {}


class Visible:
    """What can be seen of any executor."""

    @property
    def _max_workers(self):
        return self.workers

    @property
    def _broken(self):
        try:
            self.submit(int)
        except concurrent.futures.BrokenExecutor:
            return True
        return False


class ThreadPool(Visible, ff.ThreadExecutor):
    """``_threads``: those that began since the executor was made."""

    def __init__(self, *args, **kwargs):
        self._others = set(threading.enumerate())
        super().__init__(*args, **kwargs)

    @property
    def _threads(self):
        return set(threading.enumerate()) - self._others


class Worker(psutil.Process):
    def join(self):
        self.wait(timeout=30)


def worker_processes():
    """The grandchildren of this process: fanfold's launcher is their parent."""
    children = psutil.Process().children(recursive=True)
    return {child.pid: Worker(child.pid) for child in children if child.ppid() != os.getpid()}


class ProcessPool(Visible, ff.ProcessExecutor):
    """``_processes``: those that began since the executor was made."""

    def __init__(self, *args, **kwargs):
        self._others = worker_processes()
        super().__init__(*args, **kwargs)

    @property
    def _processes(self):
        now = worker_processes()
        return {pid: worker for pid, worker in now.items() if pid not in self._others}


OURS = {
    concurrent.futures.ThreadPoolExecutor: ThreadPool,
    concurrent.futures.ProcessPoolExecutor: ProcessPool,
}


def standard_futures():
    """`concurrent.futures`, with classes of ours under the standard names."""
    futures = types.SimpleNamespace(process=concurrent.futures.process)
    for name in concurrent.futures.__all__:
        setattr(futures, name, getattr(concurrent.futures, name))
    futures.ThreadPoolExecutor = type("ThreadPoolExecutor", (ThreadPool,), {})
    futures.ProcessPoolExecutor = type("ProcessPoolExecutor", (ProcessPool,), {})
    return futures


def script_runner(assert_python_ok):
    """`assert_python_ok` for scripts that import an executor: they get fanfold's."""
    path = os.pathsep.join([str(Path(ff.__file__).parents[1]), *filter(None, sys.path)])

    def run(flag, text, **environment):
        for standard, ours in (("ThreadPool", "ThreadExecutor"), ("ProcessPool", "ProcessExecutor")):
            text = text.replace(
                f"from concurrent.futures import {standard}",
                f"import multiprocessing; from fanfold import {ours} as {standard}",
            )
        return assert_python_ok(flag, text, PYTHONPATH=path, **environment)

    return run


def derived_cases():
    """For every test case that tests an executor: one of the same name that tests ours."""
    for module_name, module in MODULES.items():
        for name, case in vars(module).items():
            if not isinstance(case, type) or not issubclass(case, unittest.TestCase):
                continue
            method = getattr(case, "ctx", "forkserver")
            if hasattr(case, "executor_type") and (
                method == "forkserver" or module_name in EVERYWHERE
            ):
                namespace = {"executor_type": OURS[case.executor_type], "__module__": __name__}
                yield name, type(name, (case,), {**namespace, "standard_module": module})


globals().update(derived_cases())


@pytest.fixture(autouse=True)
def in_place_of_the_standard_ones(request, monkeypatch):
    """During a test, its module sees fanfold's executors; a listed difference must show."""
    module = request.cls.standard_module
    names = {"futures": standard_futures(), "BrokenProcessPool": ff.TaskError}
    if hasattr(module, "assert_python_ok"):
        names["assert_python_ok"] = script_runner(module.assert_python_ok)
    for name, value in names.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    test = f"{request.cls.__name__}.{request.node.name}"
    for pattern, reason in DIFFERENCES.items():
        if fnmatch.fnmatchcase(test, pattern):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
