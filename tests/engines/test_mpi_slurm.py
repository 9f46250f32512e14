"""MPI in a real Slurm allocation of two nodes, by srun and by mpiexec."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.slurm.cluster import PrivateSlurm, missing_packages

pytest.importorskip("mpi4py", reason="mpi4py is not installed here")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if missing := missing_packages():
        pytest.skip(f"Debian's packages {', '.join(missing)} are not installed here")
    with PrivateSlurm(tmp_path_factory.mktemp("slurm"), nodes=2) as slurm:
        yield slurm


@pytest.fixture(params=["srun", "mpiexec"])
def allocated(slurm, tmp_path, request):
    """Runs Python in an allocation of two nodes and five tasks; what it puts into ``told``."""

    def run(text):
        script = tmp_path / "script.py"
        script.write_text(f"import fanfold as ff, json, os\n{text}\nprint(json.dumps(told))\n")
        beside = Path(sys.executable).with_name("mpiexec")
        chosen = {"FANFOLD_MPIEXEC": str(beside)} if request.param == "mpiexec" else {}
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            ["salloc", "-Q", "-N2", "-n5", sys.executable, script],
            env={**os.environ, **slurm.environment, **cache, **chosen},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_ranks_stand_on_both_nodes(allocated):
    """A program of five ranks is one program over two nodes; the launcher is one that works."""
    told = allocated(
        "def program(comm):\n"
        "    return comm.allreduce(comm.rank), os.environ['SLURMD_NODENAME']\n"
        "told = ff.spmd(program, 5)"
    )
    assert [total for total, _ in told] == [10] * 5
    assert {node for _, node in told} == {"n1", "n2"}


def test_the_executor_spans_the_allocation(allocated, tmp_path):
    """By default there are as many workers as tasks were asked for, on both nodes; a task that
    kills its worker is named, and hurts no other."""
    (tmp_path / "here").mkdir()
    told = allocated(
        "def task(n):\n"
        "    import time\n"
        f"    open(f'{tmp_path}/here/{{os.getpid()}}', 'w').close()\n"
        f"    while len(os.listdir('{tmp_path}/here')) < 5: time.sleep(0.01)\n"
        "    if n == 13: os._exit(7)\n"
        "    return os.environ['SLURMD_NODENAME']\n"
        "with ff.MPIExecutor() as pool:\n"
        "    found = ff.map(task, range(40), on=pool, errors='return', chunk=1)\n"
        "    error = found.pop(13)\n"
        "    told = pool.workers, sorted(set(found)), error.index, error.exitcode"
    )
    assert told == [5, ["n1", "n2"], 13, 7]


def test_a_rank_that_is_killed_is_an_error_there_too(allocated):
    """A rank that dies on another node is an error in seconds, by its number."""
    told = allocated(
        "def program(comm):\n"
        "    if comm.rank == 4: os.kill(os.getpid(), 9)\n"
        "    comm.Barrier()\n"
        "try: ff.spmd(program, 5)\n"
        "except ff.WorkerDied as error: told = str(error), error.exitcode"
    )
    assert "rank 4 of 5" in told[0]
    assert told[1] in (-9, None)  # mpiexec does not tell what happened on another node
