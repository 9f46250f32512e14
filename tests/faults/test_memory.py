"""Workers whose memory has a limit: who grows is named, who leaks is replaced, nobody else pays."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from tests.runs.small import site_in

import fanfold as ff
from fanfold.executors.work.memory import _own_memory_elsewhere, own_memory

MB = 1 << 20
LIMIT = "120MB"  # NumPy takes about 30 of them
METHODS = ["forkserver", "fork", "spawn"]


def grow(megabytes: int) -> int:
    """Have so much memory, and wait to be ended for it."""
    kept = np.ones(megabytes * MB, np.uint8)
    if megabytes > 100:
        Event().wait(30)
    return len(kept) // MB


def leak(megabytes: int) -> int:
    """Leave so much behind, for as long as the worker lives."""
    sys.__dict__.setdefault("kept", []).append(np.ones(megabytes * MB, np.uint8))
    return os.getpid()


def total_and_place(array: np.ndarray) -> tuple[float, int]:
    return float(array.sum()), os.getpid()


# One task that needs too much


@pytest.mark.parametrize("method", METHODS)
def test_a_task_that_grows(method: str) -> None:
    """L04: a task that needs more than max_memory_per_worker is ended, and named with its input,
    the limit and what its worker had; all others have their results."""
    inputs = [1, 2, 200, 3, 4, 5, 300, 6]
    with ff.ProcessExecutor(2, method, max_memory_per_worker=LIMIT) as pool:
        results = ff.map(grow, inputs, on=pool, errors="return")
    assert [one for one in results if isinstance(one, int)] == [1, 2, 3, 4, 5, 6]
    for index in (2, 6):
        error = results[index]
        assert type(error) is ff.TaskTooLarge
        assert isinstance(error, MemoryError)
        assert error.index == index
        assert error.limit == 120 * MB < error.memory
        assert "max_memory_per_worker is 120.0 MB" in str(error)
        assert f"task {index}, input {inputs[index]}, attempt 1" in error.__notes__[0]


def test_a_submitted_task_that_grows() -> None:
    """L04: the future of a submit fails with the same error, and the executor goes on."""
    with ff.ProcessExecutor(1, max_memory_per_worker=120 * MB) as pool:
        large, small = pool.submit(grow, 200), pool.submit(grow, 1)
        assert isinstance(large.exception(timeout=60), ff.TaskTooLarge)
        assert small.result(timeout=60) == 1


def seldom(index: int) -> int:
    return grow(200) if index == 60 else index


def test_one_of_many_tiny_tasks_grows() -> None:
    """L04: where tiny tasks run together it is not known which of them grows: they run again one by
    one, and only the guilty one fails."""
    with ff.ProcessExecutor(1, max_memory_per_worker=LIMIT) as pool:
        results = ff.map(seldom, range(100), on=pool, chunk=100, errors="return")
    assert isinstance(results.pop(60), ff.TaskTooLarge)
    assert results == [*range(60), *range(61, 100)]


class Heavy:
    """Small where it is made, and large where it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return grow, (200,)


def test_an_argument_that_is_too_large() -> None:
    """L04: what is loaded for a task counts as the task's."""
    with ff.ProcessExecutor(1, max_memory_per_worker=LIMIT) as pool:
        results = ff.map(str, [1, Heavy(), 3], on=pool, errors="return", chunk=3)
    assert (results[0], results[2]) == ("1", "3")
    assert isinstance(results[1], ff.TaskTooLarge)


def test_retries() -> None:
    """L04: such a task is tried again where the map asks for it, in a new worker."""
    with ff.ProcessExecutor(1, max_memory_per_worker=LIMIT) as pool:
        [error] = ff.map(grow, [200], on=pool, errors="return", retries=1)
    assert "attempt 2" in error.__notes__[0]


def leave_free(megabytes: int) -> list[bytes]:
    """Make the C library keep so much for later, in pieces between what is returned."""
    pieces = [bytes(99_000) for _ in range(10 * megabytes)]
    return pieces[::9]


def trim_and_grow(megabytes: int) -> int:
    ctypes.CDLL(None).malloc_trim(0)
    return grow(megabytes)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this is glibc's")
def test_what_was_free_when_it_was_forked() -> None:
    """L04: a forked worker may give back memory that was free in its parent. That makes no room."""
    kept = leave_free(200)
    with ff.ProcessExecutor(1, "fork", max_memory_per_worker=LIMIT) as pool:
        error = pool.submit(trim_and_grow, 200).exception(timeout=60)
    assert isinstance(error, ff.TaskTooLarge), len(kept)
    assert error.memory > 120 * MB


# What earlier tasks have left


def test_workers_that_leak(caplog: pytest.LogCaptureFixture) -> None:
    """L50: a worker that has kept too much after a task is replaced. No task fails or runs twice,
    and it is told once."""
    with ff.ProcessExecutor(2, max_memory_per_worker=LIMIT) as pool, caplog.at_level("WARNING"):
        pids = ff.map(leak, [10] * 60, on=pool, chunk=1)
    assert len(set(pids)) > 2
    assert max(pids.count(pid) for pid in pids) <= 20  # 12 fit, and some end between two looks
    [told] = [record for record in caplog.records if record.name == "fanfold"]
    assert told.levelno == logging.WARNING
    assert re.search(r"worker \d+ has kept 1\d\d\.. MB .* is 120\.0 MB", told.getMessage())


def test_who_finds_too_much_is_not_to_blame() -> None:
    """L50: a task that would have room in a new worker, and has none where others have left much,
    runs again in a new one."""
    with ff.ProcessExecutor(1, max_memory_per_worker=LIMIT) as pool:
        first = pool.submit(leak, 70).result(timeout=60)
        second = pool.submit(stay_until_ended, 70, first).result(timeout=60)
    assert second != first


def stay_until_ended(megabytes: int, worker: int) -> int:
    """Have memory; in that worker wait to be ended."""
    kept = np.ones(megabytes * MB, np.uint8)
    if os.getpid() == worker:
        Event().wait(30)
    return os.getpid() if len(kept) else 0


def test_what_is_freed_does_not_count() -> None:
    """What a task has freed when it ends is no growth: one worker does them all."""

    def use(megabytes: int) -> tuple[int, int]:
        return len(np.ones(megabytes * MB, np.uint8)) // MB, os.getpid()

    with ff.ProcessExecutor(1, max_memory_per_worker=LIMIT) as pool:
        assert len(set(ff.map(use, [40] * 20, on=pool))) == 1


# What counts


def test_what_is_shared_does_not_count() -> None:
    """Arrays that many workers see are nobody's growth: shared ones, and large inputs."""
    large = np.ones(200 * MB // 8)
    with ff.ProcessExecutor(2, max_memory_per_worker=LIMIT) as pool, ff.share(large) as shared:
        found = ff.map(total_and_place, [shared, large] * 4, on=pool, chunk=1)
    assert {total for total, _ in found} == {large.size}
    assert len({pid for _, pid in found}) <= 2


def test_what_a_forked_worker_inherits_does_not_count() -> None:
    """A worker that is forked has all that the driver has, and has not asked for it."""
    mine = np.ones(200 * MB, np.uint8)
    assert own_memory(os.getpid()) > 200 * MB
    with ff.ProcessExecutor(1, "fork", max_memory_per_worker=LIMIT) as pool:
        assert pool.submit(grow, 10).result(timeout=60) == 10
    assert mine[-1] == 1


def test_where_there_is_no_proc() -> None:
    """Elsewhere than on Linux psutil tells about the same; a process that is gone has nothing."""
    script = (
        "import os\n"
        "from fanfold.executors.work.memory import _own_memory_elsewhere, own_memory\n"
        "kept = b'.' * (100 << 20)\n"
        "print(_own_memory_elsewhere(os.getpid()), own_memory(os.getpid()))\n"
    )
    told = subprocess.check_output([sys.executable, "-c", script], text=True)
    elsewhere, here = map(int, told.split())
    assert abs(elsewhere - here) < 60 * MB < here
    assert _own_memory_elsewhere(2**22 + 1) == own_memory(2**22 + 1) == 0


def test_an_initializer_that_needs_more() -> None:
    """Where no worker can begin with so little, that is told, with both sizes."""
    with (
        pytest.raises(ff.StartupFailed, match=r"before its first task, and .* is 120\.0 MB"),
        ff.ProcessExecutor(2, initializer=leak, initargs=(150,), max_memory_per_worker=LIMIT) as p,
    ):
        ff.map(grow, [1, 2], on=p)


@pytest.mark.parametrize("size", [0, -1, True, "2", "much", 1.5j])
def test_what_is_no_size(size: object) -> None:
    """A limit is a number of bytes, or text with a unit: anything else is refused at once."""
    with pytest.raises(ff.UsageError, match=r"write .*\dGB|write 2MB or"):
        ff.ProcessExecutor(1, max_memory_per_worker=size)


# Durable runs


def test_a_run_keeps_it(tmp_path: Path) -> None:
    """A durable run has the limit too, and keeps who exceeded it, by name, for its report."""
    run = ff.run(grow, [1, 200, 2], folder=tmp_path, workers=2, max_memory_per_worker=LIMIT)
    [failure] = run.wait().failures()
    assert failure.index == 1
    assert "TaskTooLarge" in (report := str(run.report()))
    assert "max_memory_per_worker is 120.0 MB" in report


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (grow, {"on": "threads"}, "is for processes"),
        (ff.command("echo {}"), {}, "not of the programs that it runs"),
    ],
)
def test_where_it_means_nothing(tmp_path: Path, function, options, says) -> None:
    """Threads have no memory of their own, and a program's is not its worker's."""
    with pytest.raises(ff.UsageError, match=says):
        ff.run(function, ["1"], folder=tmp_path, max_memory_per_worker="1GB", **options)


def test_elements_of_a_job_array_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of an element of a job array have the limit that the run was given."""
    with site_in(tmp_path, monkeypatch):
        run = ff.run(grow, [1, 200, 2], on="slurm", elements=1, max_memory_per_worker=LIMIT)
        [failure] = run.wait().failures()
    assert (failure.index, failure.kind) == (1, "TaskTooLarge")


def test_the_command_has_it(tmp_path: Path) -> None:
    """``fanfold run --max-memory-per-worker`` sets the limit; a size that is none is a wrong
    command."""
    head = f"from threading import Event\nimport numpy as np\nMB = {MB}\n"
    (tmp_path / "work.py").write_text(head + inspect.getsource(grow))
    command = [sys.executable, "-m", "fanfold", "run", "work.py:grow", "--max-memory-per-worker"]
    done = run_command([*command, LIMIT, "1", "200", "2"], tmp_path)
    assert done.returncode == 1
    assert done.stdout.split() == ["index", "input", "result", "0", "1", "1", "2", "2", "2"]
    assert "task 1, input 200: TaskTooLarge" in done.stderr
    done = run_command([*command, "7", "1"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "write 7MB or 7GB" in done.stderr


def run_command(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
