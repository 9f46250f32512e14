"""CPython's own tests of concurrent.futures, run on fanfold's executors.

The tests are those of the interpreter that runs this: they are imported from its ``test`` package,
and nothing of them is copied. Each test case is derived anew, with fanfold's executor in the place
of the standard one. What differs by intention stands in `DIFFERENCES` with its reason: a test that
fails and is not listed is an error, and so is a listed one that passes.

The tests look into the standard executors: ``_threads``, ``_processes`` and
the like. Here these are answered by what can be seen from outside, so that such tests still mean
something. And errors have fanfold's names: where a test waits for a broken pool because a worker
died, ``BrokenProcessPool`` stands for `TaskError`, the error of that one task; ``PicklingError``
stands for `NotSerializable`.
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

import cloudpickle
import psutil
import pytest

import fanfold as ff
from fanfold.errors import RemoteTraceback

pytest.importorskip(
    "test.test_concurrent_futures.util",
    reason="this interpreter comes without CPython's tests (test.test_concurrent_futures)",
)

# The start methods differ in how workers begin and end; what these do between is the same, and is
# tried with one method only.
EVERYWHERE = ("test_init", "test_process_pool", "test_shutdown", "test_thread_pool")
ONCE = ("test_as_completed", "test_deadlock", "test_wait")
MODULES = {
    name: importlib.import_module(f"test.test_concurrent_futures.{name}")
    for name in (*EVERYWHERE, *ONCE)
}

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

# Test, as a pattern -> why it does not apply.
DIFFERENCES = {
    "ThreadPoolFailingInitializerTest.test_initializer": (
        "StartupFailed has the initializer's exception as its cause; nothing is logged besides"
    ),
    "ThreadPoolExecutorTest.test_default_workers": (
        "the default is the cores that may be used, not four more than the machine has"
    ),
    "ThreadPoolShutdownTest.test_thread_names_default": "threads are named after fanfold",
    "ProcessPool*FailingInitializerTest.test_initializer": (
        "it sends a multiprocessing.Queue, which children inherit, and workers are no children"
    ),
    "ProcessPool*.test_saturation": (
        "it submits a multiprocessing.Semaphore, refused at once, and counts the workers that the "
        "standard pool starts in vain"
    ),
    "ProcessPool*.test_processes_terminate": "likewise",
    "ProcessPool*.test_killed_child": "a dead worker is replaced; the pool works on",
    "ProcessPool*.test_max_tasks_per_child_defaults_to_spawn_context": (
        "the launcher is free of threads: forkserver serves max_tasks_per_child too"
    ),
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child": (
        "it wants max_tasks_per_child refused with fork; here it works"
    ),
    "ProcessPool*.test_python_finalization_error": (
        "it replaces a private function that starts the standard pool's second thread"
    ),
}


class Visible:
    """What can be seen of any executor."""

    def __init__(self, *args, **kwargs):
        self._other_threads = set(threading.enumerate())
        super().__init__(*args, **kwargs)

    @property
    def _max_workers(self):
        return self.workers

    @property
    def _threads(self):
        """Those that began since the executor was made."""
        return set(threading.enumerate()) - self._other_threads

    @property
    def _broken(self):
        try:
            self.submit(int)
        except concurrent.futures.BrokenExecutor:
            return True
        return False


class ThreadPool(Visible, ff.ThreadExecutor):
    pass


class Worker(psutil.Process):
    def join(self):
        self.wait(timeout=30)


class ProcessPool(Visible, ff.ProcessExecutor):
    """What the standard pool says in a future, ours may say at submit already."""

    def submit(self, fn, /, *args, **kwargs):
        try:
            return super().submit(fn, *args, **kwargs)
        except ff.NotSerializable as error:
            future = concurrent.futures.Future()
            future.set_exception(error)
            return future

    @property
    def _processes(self):
        return {pid: Worker(pid) for pid in self.process_ids()}

    @property
    def _executor_manager_thread(self):
        threads = self._threads
        return types.SimpleNamespace(join=lambda: [thread.join() for thread in threads])

    @property
    def _call_queue(self):
        return types.SimpleNamespace(join_thread=lambda: None)


OURS = {
    concurrent.futures.ThreadPoolExecutor: ThreadPool,
    concurrent.futures.ProcessPoolExecutor: ProcessPool,
}


def standard_futures():
    """`concurrent.futures`, with classes of ours under the standard names."""
    futures = types.SimpleNamespace()
    for name in concurrent.futures.__all__:
        setattr(futures, name, getattr(concurrent.futures, name))
    futures.ThreadPoolExecutor = type("ThreadPoolExecutor", (ThreadPool,), {})
    futures.ProcessPoolExecutor = type("ProcessPoolExecutor", (ProcessPool,), {})
    futures.process = types.SimpleNamespace(**vars(concurrent.futures.process))
    futures.process._RemoteTraceback = RemoteTraceback
    return futures


def script_runner(assert_python_ok):
    """`assert_python_ok` for scripts that import an executor: they get fanfold's."""
    path = os.pathsep.join([str(Path(ff.__file__).parents[1]), *filter(None, sys.path)])

    def run(flag, text, **environment):
        for standard, ours in (
            ("ThreadPool", "ThreadExecutor"),
            ("ProcessPool", "ProcessExecutor"),
        ):
            text = text.replace(
                f"from concurrent.futures import {standard}",
                f"import multiprocessing; from fanfold import {ours} as {standard}",
            )
        code, out, err = assert_python_ok(flag, text, PYTHONPATH=path, **environment)
        return code, out, err.replace(b"fanfold.errors.PoolClosed", b"RuntimeError")

    return run


def derived_cases():
    """For every test case that tests an executor: one of the same name that tests ours."""
    executor_tests = MODULES["test_process_pool"].ExecutorTest
    between = {name: None for name in vars(executor_tests) if name.startswith("test_")}
    for module_name, module in MODULES.items():
        for name, case in vars(module).items():
            if not isinstance(case, type) or not hasattr(case, "executor_type"):
                continue
            if not issubclass(case, unittest.TestCase):
                continue
            again = getattr(case, "ctx", "forkserver") != "forkserver"
            if not again or module_name in EVERYWHERE:
                # Its name is not to be found in that module, so that it travels by value.
                namespace = {"__module__": module.__name__, **(between if again else {})}
                ours = OURS[case.executor_type]
                yield name, type(name, (case,), {**namespace, "executor_type": ours})


globals().update(derived_cases())


@pytest.fixture(autouse=True)
def in_place_of_the_standard_ones(request, monkeypatch):
    """During a test, its module sees fanfold's executors; a listed difference must show."""
    module = sys.modules[request.cls.__module__]
    names = {
        "futures": standard_futures(),
        "BrokenProcessPool": ff.TaskError,
        "PicklingError": ff.NotSerializable,
    }
    if hasattr(module, "assert_python_ok"):
        names["assert_python_ok"] = script_runner(module.assert_python_ok)
    for name, value in names.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(RemoteTraceback, "tb", property(str), raising=False)
    test = f"{request.cls.__name__}.{request.node.name}"
    for pattern, reason in DIFFERENCES.items():
        if fnmatch.fnmatchcase(test, pattern):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
