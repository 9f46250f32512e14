"""The evidence of a task that ended its worker, or that was ended: its death certificate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.errors import TaskStalled, TaskTimeout, WorkerDied
from fanfold.executors.base import StartupFailed
from fanfold.executors.pool import pool as pool_module
from fanfold.executors.work.memory import KernelKills
from fanfold.testing.faults import die_sending, exits_on_load, kill_self, segfault

TASKS, GUILTY = 8, 5
MIB = 1 << 20


def printing(act):
    """A task that prints, and whose guilty one prints and then does ``act``."""

    def task(n):
        print("out", n)
        print("err", n, file=sys.stderr)
        if n == GUILTY:
            print("last words", end="")
            print(end="\n")
            return act()
        return n

    return task


def innocents_are_well(ran):
    for n, one in enumerate(ran):
        if n != GUILTY:
            assert (one.error, one.out, one.err) == (None, b"out %d\n" % n, b"err %d\n" % n)


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("chunk", [1, TASKS])
def test_segfault(method, chunk, maps):
    """A task that crashes has in its own part of the log what it printed, and the stack that the
    crash handler of Python wrote; the report has the same evidence as the error."""
    before = time.time()
    with ff.ProcessExecutor(2, mp_context=method) as pool:
        ran = maps(pool, printing(segfault), range(TASKS), chunk=chunk)
    guilty = ran[GUILTY]
    assert isinstance(guilty.error, WorkerDied)
    assert guilty.error.signal == signal.SIGSEGV
    assert guilty.error.out_of_memory is False
    assert guilty.out == b"out 5\nlast words\n"
    assert guilty.err.startswith(b"err 5\n")
    assert b"Fatal Python error: Segmentation fault" in guilty.err
    assert b"in segfault" in guilty.err
    assert guilty.error.evidence == guilty.piece
    assert (guilty.piece.first, guilty.piece.count) == (GUILTY, 1)
    assert before < guilty.piece.began < time.time()
    assert 0 < guilty.piece.seconds < 60
    assert guilty.outcome.seconds == guilty.piece.seconds
    assert MIB < guilty.piece.peak_memory <= guilty.error.peak_memory
    innocents_are_well(ran)


def test_kill(maps):
    """What a task printed before it was killed is in its part of the log, though it flushed
    nothing; that it was not the kernel, for want of memory, is known where the system tells."""
    kills = KernelKills()
    with ff.ProcessExecutor(2) as pool:
        ran = maps(pool, printing(kill_self), range(TASKS), chunk=TASKS)
    guilty = ran[GUILTY]
    assert guilty.error.signal == signal.SIGKILL
    assert guilty.out == b"out 5\nlast words\n"
    if kills.explain_one() is False:  # nor has it ended a process of somebody else meanwhile
        assert guilty.error.out_of_memory is False
        assert "not for want of memory" in str(guilty.error)
    innocents_are_well(ran)


def test_exit(maps):
    """A task that exits at once has evidence too."""
    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, printing(lambda: os._exit(3)), range(TASKS))
    assert ran[GUILTY].error.exitcode == 3
    assert ran[GUILTY].out == b"out 5\nlast words\n"
    innocents_are_well(ran)


def test_death_among_tiny_tasks(maps):
    """A task that dies in a slice of tiny ones is found, and its evidence is of the time that it
    ran alone."""

    def task(n):
        if n == 700:
            os.write(2, b"last words\n")
            os._exit(1)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(2000), chunk=2000)
    assert [one.outcome.index for one in ran if one.error] == [700]
    assert ran[700].err == b"last words\n"
    assert ran[700].piece.count == 1


def test_death_while_sending(maps):
    """A task whose result is being sent when its worker dies keeps what it printed."""
    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, printing(lambda: die_sending(512 * MIB, 0.1)), range(TASKS))
    assert ran[GUILTY].error.phase == "send"
    assert ran[GUILTY].out == b"out 5\nlast words\n"
    assert ran[GUILTY].piece.seconds < 60
    innocents_are_well(ran)


def test_death_while_loading(maps):
    """A task that dies of its input has evidence from the beginning of its loading."""

    class Loud:
        def __reduce__(self):
            return eval, ("(__import__('os').write(1, b'loading'), __import__('os')._exit(1))",)

    before = time.time()
    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, type, [1, Loud(), exits_on_load(), 2], chunk=4)
    assert [one.error is None for one in ran] == [True, False, False, True]
    assert ran[1].error.phase == "load"
    assert ran[1].out == b"loading"
    assert before < ran[1].piece.began < time.time()
    assert ran[1].piece.seconds < 60


def test_timeout(maps):
    """A task that is ended at its time limit has evidence: how long it ran, and what it printed."""
    with ff.ProcessExecutor(2) as pool:
        ran = maps(pool, printing(lambda: time.sleep(60)), range(TASKS), timeout=2.0)
    guilty = ran[GUILTY]
    assert isinstance(guilty.error, TaskTimeout)
    assert guilty.error.evidence == guilty.piece
    assert guilty.out == b"out 5\nlast words\n"
    assert 2.0 <= guilty.piece.seconds < 60
    assert guilty.piece.peak_memory > MIB
    innocents_are_well(ran)


def test_timeout_that_is_handled(maps, monkeypatch):
    """What a task prints while it cleans up after SIGTERM is of its part of the log too."""
    monkeypatch.setattr(pool_module, "_GRACE", 4.0)

    def act():
        signal.signal(signal.SIGTERM, lambda *_: print("cleaning up"))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, printing(act), range(TASKS), timeout=1.5)
    assert ran[GUILTY].out == b"out 5\nlast words\ncleaning up\n"
    innocents_are_well(ran)


def test_stalled(maps):
    """A task whose worker is stopped (SIGSTOP) has evidence when it is given up."""
    with ff.ProcessExecutor(2) as pool:
        ran = maps(pool, printing(lambda: kill_self(signal.SIGSTOP)), range(TASKS))
    assert isinstance(ran[GUILTY].error, TaskStalled)
    assert ran[GUILTY].error.evidence == ran[GUILTY].piece
    assert ran[GUILTY].out == b"out 5\nlast words\n"
    innocents_are_well(ran)


def test_every_attempt_has_evidence(maps):
    """Each attempt of a task that dies again and again has its own part of its worker's log."""
    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, printing(kill_self), range(TASKS), retries=2)
    retried = [event.report for event in maps.events if hasattr(event, "report")]
    assert [report.attempt for report in retried] == [1, 2]
    for report in retried:
        (piece,) = report.evidence
        assert maps.printed(report.worker, piece.log)[0] == b"out 5\nlast words\n"
    assert ran[GUILTY].outcome.attempt == 3


def test_without_evidence():
    """Where no evidence is asked for, a dead task has none."""
    with ff.ProcessExecutor(1) as pool:
        error = pool.submit(os._exit, 1).exception(timeout=30)
        (other,) = ff.map(os._exit, [1], on=pool, errors="return")
    assert error.evidence is None
    assert other.evidence is None


def test_initializer_that_dies(maps):
    """Workers that never get ready are told as ever."""
    with ff.ProcessExecutor(1, initializer=os._exit, initargs=(1,)) as pool:
        ran = maps(pool, abs, range(3))
    assert all(isinstance(one.error, StartupFailed) for one in ran)


# Want of memory


@pytest.fixture
def memory_group():
    """A control group that may have 300 MB, for a driver to put itself into."""
    own = Path("/sys/fs/cgroup/memory")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if "memory" in line.split(":")[1].split(","):
                own = own / line.split(":", 2)[2].lstrip("/")
    group = own / f"fanfold-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(300 * MIB))
        with suppress(OSError):  # where swap is counted
            (group / "memory.memsw.limit_in_bytes").write_text(str(300 * MIB))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group for memory can be made here (root, version 1): {error}")
    yield group
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)


HUNGRY = """
import os, signal, sys
import fanfold as ff
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))

def task(n):
    if n == 3:
        print("hungry")
        blocks = [b"x" * (10 << 20) for _ in range(100)]
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return n

results = ff.map(task, range(8), on="processes", workers=2, errors="return", progress=False)
for n, result in enumerate(results):
    print(n, result.out_of_memory if isinstance(result, ff.WorkerDied) else result, flush=True)
print(results[3], results[5], sep="\\n")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts of Linux")
def test_killed_for_want_of_memory(memory_group):
    """A task that the kernel ends because its control group has no memory left is told so, and one
    that somebody else kills is told apart from it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HUNGRY), str(memory_group)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line[0].isdigit()] == [
        *("0 0", "1 1", "2 2", "3 True", "4 4", "5 False", "6 6", "7 7"),
    ]
    assert "(by the kernel, for want of memory)" in lines[-2]
    assert "(by somebody: it was not for want of memory)" in lines[-1]


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="counts of Linux")
def test_nobody_was_killed():
    """As long as the kernel has ended nobody, no death is explained by it."""
    kills = KernelKills()
    assert [kills.explain_one(), kills.explain_one()] == [False, False]
