"""BLAS threads in threads and forked workers: no more than the cores, and none in vain."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, threading, time
import numpy as np
import fanfold as ff
from threadpoolctl import threadpool_info

def threads():
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

def multiply(number):
    np.ones((300, 300)) @ np.ones((300, 300))
    return threads()

def native():
    for _ in range(100):  # a thread of Python's that has ended may be there for a moment
        found = len(os.listdir("/proc/self/task")) - threading.active_count()
        if not found:
            break
        time.sleep(0.01)
    return found
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is limited at once")


def run(tmp_path, lines):
    program = tmp_path / "program.py"
    program.write_text(SCRIPT + lines)
    environment = {**os.environ, "FANFOLD_CORES": "2", "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


def test_threads_share_the_cores(tmp_path):
    """With as many workers as cores each calls a BLAS of one thread; afterwards it is as it was."""
    found = run(tmp_path, """
np.ones((300, 300)) @ np.ones((300, 300))  # its threads are there
before = threads()
print(ff.map(multiply, range(40), on="threads", workers=2)[-1], threads() == before)
""")  # fmt: skip
    assert found[0] == "[1] True"


def test_more_threads_than_cores(tmp_path):
    """However many there are, each calls a BLAS of one thread; afterwards it is as it was."""
    found = run(tmp_path, """
np.ones((300, 300)) @ np.ones((300, 300))
before, many = threads(), 4 * os.cpu_count()
print(ff.map(multiply, range(40 * many), on="threads", workers=many)[-1], threads() == before)
""")  # fmt: skip
    assert found[0] == "[1] True"


def test_who_loads_a_blas_later(tmp_path):
    """What a task has loaded is limited too, and free again afterwards."""
    program = tmp_path / "program.py"
    program.write_text("""
import fanfold as ff
def multiply(number):
    import numpy as np
    np.ones((300, 300)) @ np.ones((300, 300))
    from threadpoolctl import threadpool_info
    return [one["num_threads"] for one in threadpool_info()]
last = ff.map(multiply, range(200), on="threads", workers=2)[-1]
print(last, multiply(0) == last)
""")
    environment = {**os.environ, "FANFOLD_CORES": "2", "OPENBLAS_NUM_THREADS": "2"}
    line = [sys.executable, str(program)]
    told = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert (told.stdout, told.stderr) == ("[1] False\n", "")


@linux
def test_tasks_that_wait_are_not_limited(tmp_path):
    """Where the threads of a BLAS do nothing, nobody looks for it: that takes milliseconds."""
    found = run(tmp_path, """
def wait(number):
    time.sleep(0.005)
    return threads()
np.ones((300, 300)) @ np.ones((300, 300))  # its threads are there
time.sleep(0.5)  # and rest now: for a moment after their work they wait awake
print(ff.map(wait, range(40), on="threads", workers=2) == [threads()] * 40)
""")  # fmt: skip
    assert found[0] == "True"


@linux
def test_no_threads_are_started_to_be_limited(tmp_path):
    """Where a BLAS has no threads, as after a fork, none are started; when tasks start them, they
    are limited."""
    found = run(tmp_path, """
if os.fork() == 0:  # OpenBLAS ends its threads before, and starts them again when they are needed
    ff.map(time.sleep, [0.001] * 40, on="threads", workers=2)
    print(native())
    print(ff.map(multiply, range(400), on="threads", workers=2)[-1], native() > 0, flush=True)
    os._exit(0)
os.wait()
""")  # fmt: skip
    assert found[:2] == ["0", "[1] True"]


def test_forked_workers_share_the_cores(tmp_path):
    """So do processes that were forked with a BLAS."""
    found = run(tmp_path, """
with ff.ProcessExecutor(2, "fork") as pool:
    print(ff.map(multiply, range(200), on=pool, chunk=5)[-1])
""")  # fmt: skip
    assert found[0] == "[1]"
