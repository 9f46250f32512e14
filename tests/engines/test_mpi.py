"""MPI ranks as an executor, with real ranks, started by whatever launcher is here."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.executors.registry import make
from fanfold.tasks import Call, Chunk
from fanfold.testing import ExecutorTests, descendants, leaks
from fanfold.testing.faults import Script, kill_self
from fanfold.testing.functions import square, until
from fanfold.testing.streams import receive_outcomes, values

pytest.importorskip("mpi4py", reason="mpi4py is not installed here")


class Lender:
    """Two workers for all tests that leave them as they were, or dead: they come again."""

    pool: ff.MPIExecutor | None = None

    def lend(self) -> ff.MPIExecutor:
        try:
            assert self.pool is not None
            self.pool.submit(int).result()
        except (AssertionError, ff.PoolClosed):
            self.pool = ff.MPIExecutor(2)
            self.pool.submit(int).result()
        return self.pool


@pytest.fixture(scope="module")
def lender() -> Iterator[Lender]:
    lender = Lender()
    yield lender
    if lender.pool is not None:
        lender.pool.shutdown()


@pytest.fixture
def ranks(lender) -> ff.MPIExecutor:
    return lender.lend()


@pytest.fixture(autouse=True)
def nothing_left(ranks) -> Iterator[None]:
    """As everywhere; but a process that took the place of a dead one stays."""
    with leaks(ignore=lambda line: "fanfold.executors.pool.launcher" in line) as left:
        yield
    assert not left, f"left behind: {', '.join(left)}"


class TestRanks(ExecutorTests):
    remote = True

    def make(self, **options):
        return ff.MPIExecutor(**options)

    @pytest.fixture
    def executor(self, ranks):
        return ranks


def rank_ids() -> list[int]:
    """The process ids of our ranks."""
    found = []
    for process in descendants():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if any(part.endswith("mpi/__main__.py") for part in command) and "python" in command[0]:
            found.append(process.pid)
    return found


def test_it_is_known_by_name(ranks):
    """on="mpi" makes one, of so many workers as are asked for."""
    with make("mpi", 1) as pool:
        assert isinstance(pool, ff.MPIExecutor)
        assert pool.workers == 1
        assert ff.map(square, range(5), on=pool) == [0, 1, 4, 9, 16]


def test_a_task_that_crashes_costs_no_rank(ranks):
    """L01: a task that is killed is named alone, and the ranks are those that they were: the tasks
    of other ranks lose nothing, not even time."""
    before = rank_ids()
    results = ff.map(Script({7: kill_self}), range(20), on=ranks, errors="return")
    error = results.pop(7)
    assert isinstance(error, ff.WorkerDied)
    assert (error.index, error.signal) == (7, signal.SIGKILL)
    assert results == [n * n for n in range(20) if n != 7]
    assert rank_ids() == before


@pytest.fixture
def crew(ranks):
    """An executor of one's own, and the process ids of its ranks."""
    others = set(rank_ids())
    with ff.MPIExecutor(2) as pool:
        yield pool, sorted(set(rank_ids()) - others)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_rank_that_is_killed_comes_again(crew, gate, victim):
    """MPI ends all ranks when one dies: new ones are started, and every task has its result."""
    pool, pids = crew
    with pool.open(Call(Script({0: gate.wait, 1: gate.wait}))) as stream:
        stream.send(Chunk(0, list(range(6))))
        gate.wait_for(1)
        os.kill(pids[victim], signal.SIGKILL)
        gate.open()
        found = values(receive_outcomes(stream, range(6)))
    assert found == {0: "task", 1: "task", 2: 4, 3: 9, 4: 16, 5: 25}


def test_no_ranks_any_more_is_an_error_in_seconds(crew, monkeypatch, gate):
    """When ranks die and no launcher starts new ones, what waits fails with EngineLost."""
    pool, pids = crew
    future = pool.submit(gate.wait)
    gate.wait_for(1)
    monkeypatch.setenv("FANFOLD_MPIEXEC", "/nowhere/mpiexec")
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(ff.EngineLost, match="no new ones start"):
        future.result(timeout=60)
    with pytest.raises(ff.EngineLost):
        pool.submit(square, 2).result(timeout=60)


KILLED = """
import os, signal, fanfold as ff

def program(comm):
    comm.Barrier()
    print(any(name.startswith("mpich") for name in os.listdir("/dev/shm")), flush=True)
    comm.Barrier()
    os.kill(os.getpid(), signal.SIGKILL)

try:
    ff.spmd(program, 2)
except ff.WorkerDied:
    print([name for name in os.listdir("/dev/shm") if name.startswith("mpich")])
"""


@mounts
def test_killed_ranks_leave_no_shared_memory(ranks):
    """MPI leaves its named memory behind when ranks are killed; it is removed."""
    command = [*with_mounts(("/dev/shm", "256M")), sys.executable, "-c", KILLED]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert set(told.stdout.splitlines()) - {""} == {"[0] True", "[1] True", "[]"}, told.stderr


def test_a_task_may_use_mpi_for_itself(ranks):
    """A task is no rank: mpi4py in it is a world of its own, and hurts no rank."""

    def world():
        from mpi4py import MPI

        size = MPI.COMM_WORLD.size
        MPI.Finalize()
        return size

    before = rank_ids()
    assert ranks.submit(world).result(timeout=60) == 1
    assert rank_ids() == before


def test_large_functions_reach_every_rank_once(ranks):
    """A function that holds 20 MB is sent to each rank once, and all its tasks use it."""
    table = np.arange(2_500_000.0)
    assert ff.map(lambda n: float(table[n]), range(100), on=ranks) == [float(n) for n in range(100)]


def test_what_runs_is_ended_when_nobody_wants_it(ranks, gate):
    """Closing a call ends its running tasks: the next one need not wait behind them."""
    with ranks.open(Call(gate.wait)) as stream:
        stream.send(Chunk(0, [1, 2]))
        gate.wait_for(1)
    assert list(ranks.map(square, range(4))) == [0, 1, 4, 9]


def test_nothing_outlives_a_driver_that_is_killed(tmp_path):
    """L30: ranks, their workers and the launcher end when the driver is killed by SIGKILL."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import os, pathlib, sys, time, fanfold as ff\n"
        "def work(folder):\n"
        "    (pathlib.Path(folder) / f'task{os.getpid()}').touch()\n"
        "    time.sleep(1000)\n"
        "ff.map(work, [sys.argv[1]] * 2, on='mpi', workers=2)\n"
    )
    driver = subprocess.Popen([sys.executable, script, tmp_path])
    until(lambda: len(list(tmp_path.glob("task*"))) == 2, "the tasks to begin", 100)
    children = psutil.Process(driver.pid).children(recursive=True)
    assert len(children) > 4
    driver.kill()
    driver.wait()
    until(lambda: not any(map(lives, children)), "everything to end")


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
