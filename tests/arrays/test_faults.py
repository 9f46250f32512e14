"""What is shared where something fails: workers that end, memory that is full, odd sources."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.arrays.conftest import output
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.arrays import memory
from fanfold.testing.functions import until
from fanfold.transport import segments

# Shared by a task


kept: list[Any] = []


def share_and_end(how: str) -> list[str]:
    """Share in a task, keep it, and end the worker."""
    shared = [ff.share(np.ones(10**6)), ff.share(np.ones(3), writable=True), ff.SharedValue(1)]
    kept.extend(shared)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        shared[1].lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    return [one.path for one in shared]


@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
@pytest.mark.parametrize("how", ["exit", "kill", "replaced"])
def test_what_a_worker_has_shared(how: str, method: str) -> None:
    """A04: what a task has shared goes with its worker, however that ends, while the pool lives:
    by os._exit, by SIGKILL, a lock held or not, or replaced after its tasks."""
    limit = 1 if how == "replaced" else None
    with ff.ProcessExecutor(1, method, max_tasks_per_child=limit) as pool:
        [result] = ff.map(share_and_end, [how], on=pool, errors="return")
        assert pool.submit(len, "next").result(timeout=30) == 4
        until(lambda: segments.held() == (0, 0), "the first worker to be buried")
    if how == "replaced":
        assert not any(map(os.path.exists, result))
    else:
        assert isinstance(result, ff.WorkerDied)


def test_what_a_worker_shares_is_seen_by_others() -> None:
    """As long as its worker lives, what a task has shared is seen by other tasks and the driver."""
    with ff.ProcessExecutor(1) as pool:
        [paths] = ff.map(share_and_end, ["stay"], on=pool)
        assert all(map(os.path.exists, paths))
        assert sum(segments.held()) > 8 * 10**6
    assert not any(map(os.path.exists, paths))


def map_inside(number: int) -> float:
    """A map in a task, with a shared array of its own."""
    with ff.share(np.full(1000, float(number))) as shared:
        return float(sum(ff.map(np.sum, np.array_split(shared, 2), on="processes", workers=2)))


def test_pools_inside_tasks() -> None:
    """Workers of a worker's pool see what that one shares, and clear up after themselves alone."""
    with ff.share(np.ones(10)) as shared, ff.ProcessExecutor(2) as pool:
        assert ff.map(map_inside, range(4), on=pool, chunk=1) == [0.0, 1000.0, 2000.0, 3000.0]
        assert ff.map(np.sum, [shared], on=pool) == [10.0]


# Memory that is full

FULL = """
import warnings
warnings.simplefilter("ignore")

def write(out, counter, row):
    with out.lock:
        out[row] = row
        counter.value += 1
    counter.add(1)

filler = ff.share(np.zeros(240_000))
out, counter = ff.share(np.zeros((100, 2000)), writable=True), ff.SharedValue(0)
say(*(path.startswith("/dev/shm") for path in (filler.path, out.path)))
ff.starmap(write, [(out, counter, row) for row in range(100)], on="processes", workers=2)
say(counter.value, out.sum() == 2000 * sum(range(100)))
fill = open("/dev/shm/filler", "wb", buffering=0)
try:
    while fill.write(bytes(4096)):
        pass
except OSError:
    pass
late = ff.SharedValue(0)
say(late.path.startswith("/dev/shm"))
ff.map(late.add, range(100), on="processes", workers=2)
say(late.value)
"""


@mounts
def test_writing_where_shared_memory_is_full(script: Any) -> None:
    """L41: what lies in a file because /dev/shm is full is written, locked and counted as ever: a
    writable array, and a value. Nobody dies of a bus error."""
    told = output(script(FULL, prefix=with_mounts(("/dev/shm", "3m"))))
    assert told == ["True False", "200 True", "False", "4950"]


def test_an_array_larger_than_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A07: one write() moves less than 2 GiB: a larger array is written in several, bit by bit."""
    monkeypatch.setattr(memory, "_WRITE_LIMIT", 1000)
    array = np.arange(12_345, dtype=">i4").reshape(5, -1)
    with ff.share(array) as whole, ff.share(array[::-1, ::2]) as part:
        assert whole.tobytes() == array.tobytes()
        assert part.tobytes() == array[::-1, ::2].tobytes()


# Odd sources


def test_a_mapped_file_that_is_deleted(tmp_path: Path) -> None:
    """A07: a map of a file that has no name any more is shared, as long as it can be read."""
    np.save(tmp_path / "a.npy", np.arange(1000))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    (tmp_path / "a.npy").unlink()
    with ff.share(mapped) as shared:
        assert ff.map(np.sum, [shared], on="processes") == [499_500]


def test_a_source_that_changes_later() -> None:
    """A09: what is shared is a copy: later changes of its source are nobody's surprise."""
    source = np.arange(10)
    with ff.share(source) as shared:
        source[:] = -1
        assert ff.map(np.sum, [shared], on="processes") == [45]


OTHERS = """
import subprocess
from fanfold.doctor.machine import _shared_memory

code = "import time, numpy as np, fanfold as ff; kept = ff.share(np.ones(10**6)); "
code += "print(kept.path, flush=True); time.sleep(600)"
with ff.share(np.ones(1000)):
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    path = owner.stdout.readline().strip()
    living = _shared_memory().what
    say(os.path.exists(path), str(owner.pid) in living, str(os.getpid()) in living)
    owner.kill()
    owner.wait()
    say("removed 7.6 MB in 1 segment that dead processes had left" in _shared_memory().what)
say(os.path.exists(path))
"""


@mounts
def test_what_others_keep_is_told(script: Any, tmp_path: Path) -> None:
    """`fanfold doctor` tells how much lies in segments and whose that is; what a dead process has
    left is told, and removed. (Here nobody else can remove it before.)"""
    alone = [*with_mounts(("/dev/shm", "64m")), "env", f"TMPDIR={tmp_path}"]
    assert output(script(OTHERS, prefix=alone)) == ["True True True", "True", "False"]
