"""Dask as an executor, with real clusters of a real distributed."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fanfold as ff
from fanfold.executors.dask.executor import DaskExecutor
from fanfold.executors.remote.errand import end_helpers
from fanfold.testing import ExecutorTests, leaks
from fanfold.testing.faults import Script, exit_now, kill_self
from fanfold.testing.functions import mark, square, until

distributed = pytest.importorskip("distributed", reason="distributed is not installed here")
dask = pytest.importorskip("dask", reason="distributed is not installed here")


@pytest.fixture(scope="module")
def clusters():
    """Dask's own clusters of one worker and of two, with nannies, and its usual patience with
    tasks. With workers it has more: on a busy machine they take long to come back."""
    made = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
        for count in (1, 2):
            cluster = distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            made[count] = distributed.Client(cluster, set_as_default=False)
            stack.enter_context(made[count])
            with DaskExecutor(client=made[count]) as pool:  # Dask keeps threads for what is large
                pool.submit(np.sum, np.ones(2_000_000)).result()
        yield made


@pytest.fixture(autouse=True)
def nothing_left():
    """What a test leaves behind, but for the connections, workers and threads that a cluster which
    lives on has renewed."""
    renewed = ("file descriptor", "process", "thread Dask", "thread AsyncProcess", "thread Queue")
    with leaks(ignore=lambda line: line.startswith(renewed)) as left:
        yield
    assert not left, f"left behind: {', '.join(left)}"


def complete(client):
    """The client, when all of its workers are there again."""
    client.wait_for_workers(len(client.cluster.worker_spec), timeout=100)
    return client


@pytest.fixture
def client(clusters):
    return complete(clusters[2])


class TestDask(ExecutorTests):
    """On clusters that are joined, for it takes seconds to start one."""

    remote = True

    @pytest.fixture(autouse=True)
    def _clusters(self, clusters):
        self.clusters = clusters

    def make(self, *, max_workers, **options):
        return DaskExecutor(client=complete(self.clusters[max_workers]), **options)

    def test_nothing_is_left_behind(self, gate):
        """Nothing is left of a cluster that was started here: no process, no connection."""
        self.make = DaskExecutor
        super().test_nothing_is_left_behind(gate)


# Which workers ------------------------------------------------------------------------------------


def where(_=None):
    time.sleep(0.02)
    return os.getpid()


def meet(folder, count, number):
    """Wait until so many workers are here; which one this is."""
    mark(folder, os.getpid())
    until(lambda: len(list(folder.iterdir())) >= count, f"{count} workers to be here")
    return os.getpid()


def pids(client):
    return set(client.run(os.getpid, on_error="ignore").values())


@pytest.mark.parametrize("place", ["client", "cluster", "address"])
def test_a_cluster_is_a_place(client, place, tmp_path):
    """on= takes a client, a cluster or an address; all workers are used, and left as they are."""
    on = {
        "client": client,
        "cluster": client.cluster,
        "address": client.scheduler.address,
    }[place]
    before = pids(client)
    assert set(ff.map(partial(meet, tmp_path, len(before)), range(40), on=on, chunk=1)) == before
    assert client.status == "running"
    assert pids(client) == before


def test_workers_limits_them(client):
    """workers=1 uses one worker of a cluster that has more."""
    assert len(set(ff.map(where, range(20), on=client, workers=1))) == 1


def test_the_client_is_there_for_dask_itself():
    """executor.client runs dask's own collections on the workers that were started here."""
    da = pytest.importorskip("dask.array", reason="dask.array is not installed here")
    with ff.executor("dask", workers=1) as pool:
        ones = da.ones((500, 500), chunks=250)
        assert float(ones.sum().compute(scheduler=pool.client)) == 250_000
        assert pids(pool.client) == {pool.submit(os.getpid).result()}


def test_a_task_knows_its_dask_worker(client):
    """distributed.get_worker works inside a task."""
    names = ff.map(lambda _: distributed.get_worker().address, range(8), on=client)
    assert set(names) <= set(client.nthreads())


def test_arguments_are_copied_at_submit(client, gate):
    """A large array that changes while its task waits for a worker arrives as it was."""
    with DaskExecutor(client=client) as pool:
        for number in range(2):
            pool.submit(gate.wait, number)
        gate.wait_for(2)
        array = np.zeros(100_000)
        futures = [pool.submit(np.sum, array) for _ in range(8)]
        array[:] = 1
        gate.open()
        assert [future.result(timeout=60) for future in futures] == [0.0] * 8


# Deaths -------------------------------------------------------------------------------------------


def test_exit_status_comes_from_the_nanny(client):
    """How a worker ended is told by its nanny's log: an exit status, as well as a signal."""
    script = Script({1: partial(exit_now, 7)})
    first, error, last = ff.map(script, range(3), on=client, errors="return")
    assert (first, last) == (0, 4)
    assert isinstance(error, ff.WorkerDied)
    assert error.exitcode == 7


def test_neighbours_are_not_punished(client):
    """Where Dask would give up all tasks that were at a worker four times, one fails here."""
    results = ff.map(Script({17: kill_self}), range(100), on=client, chunk=50, errors="return")
    assert isinstance(results.pop(17), ff.WorkerDied)
    assert results == [n * n for n in range(100) if n != 17]


def note_and_die(folder, number):
    mark(folder, f"{number}-{os.getpid()}")
    if number == 3:
        kill_self()
    return number


def test_a_poisonous_task_kills_two_workers(client, tmp_path):
    """A task is run again once after its worker died, and not as often as Dask would."""
    ff.map(partial(note_and_die, tmp_path), range(6), on=client, chunk=1, errors="return")
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_workers_that_dask_gave_up_are_begun_again():
    """Dask ends the nanny of a worker that is not back in time; with none left we ask again."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        given_up = cluster.workers[0]
        results = ff.map(Script({1: kill_self}), range(3), on=client, errors="return")
        assert isinstance(results.pop(1), ff.WorkerDied)
        assert results == [0, 4]
        assert cluster.workers.get(0) is not given_up


def test_workers_of_this_machine_are_replaced():
    """A worker that is killed from outside is replaced, and its task runs again."""
    with DaskExecutor(2) as pool:
        before = pids(pool.client)
        assert pool.submit(square, 2).result() == 4
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert ff.map(square, range(10), on=pool) == [n * n for n in range(10)]
        until(lambda: len(pids(pool.client)) == 2, "new workers", 100)
        assert not pids(pool.client) & before


def test_a_cluster_that_shrinks_loses_nothing():
    """Tasks of a worker that is retired run elsewhere, and nobody is blamed."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=False
    ) as cluster:
        client = distributed.Client(cluster, set_as_default=False)
        with contextlib.closing(client), DaskExecutor(client=client) as pool:
            futures = [pool.submit(where) for _ in range(20)]
            client.retire_workers(list(client.nthreads())[:1])
            assert len([future.result(timeout=60) for future in futures]) == 20
    end_helpers()  # the workers were threads of this process


# What is gone, or wrong ---------------------------------------------------------------------------

SCHEDULER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    print(cluster.scheduler_address, flush=True)
    time.sleep(100)
"""


def test_scheduler_that_dies(tmp_path, gate):
    """When the scheduler is killed, what waits fails with EngineLost within seconds."""
    script = tmp_path / "scheduler.py"
    script.write_text(SCHEDULER)
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        pool = DaskExecutor(client=process.stdout.readline().strip())
        future = pool.submit(gate.wait)
        gate.wait_for(1)
        process.kill()
        with pytest.raises(ff.EngineLost, match="does not answer any more"):
            future.result(timeout=60)
        with pytest.raises(ff.EngineLost):
            pool.submit(square, 2)
        pool.shutdown()
        gate.open()


def test_no_scheduler():
    """An address where nobody listens is an EngineLost that names it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ff.EngineLost, match=f"127.0.0.1:{port}"):
        ff.map(square, [1, 2], on=f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("status", ["closed", "asynchronous"])
def test_clients_that_cannot_be_used(clusters, status):
    """A client that is closed, or that does not wait, is refused with the remedy."""
    client = distributed.Client(clusters[1].scheduler.address, set_as_default=False)
    client.close()
    expected = (ff.EngineLost, "make a new one")
    if status == "asynchronous":
        client._asynchronous = True
        expected = (ff.UsageError, "without asynchronous=True")
    with pytest.raises(expected[0], match=expected[1]):
        ff.map(square, [1, 2], on=client)


def test_other_versions_are_refused(client, monkeypatch):
    """A cluster of other versions is refused before anything runs, and both are named."""
    monkeypatch.setattr(ff, "__version__", "7.8.9")  # here, where the scheduler is, too
    with pytest.raises(ff.StartupFailed, match=r"worker .* has Python .*, and here is .* 7.8.9"):
        ff.map(square, [1, 2], on=client)


def test_without_the_extra():
    """Without distributed the message is one sentence with the pip line."""
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "import fanfold as ff\n"
        "try: ff.map(abs, [1], on='dask')\n"
        "except ff.UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'on="dask" needs distributed: pip install "fanfold[dask]"\n'


def test_wrong_places():
    """What is of Dask but no place is refused, and an address must be one of Dask's."""
    with pytest.raises(ff.UsageError, match="address of a scheduler"):
        ff.map(square, [1, 2], on="http://127.0.0.1:8786")
    with pytest.raises(ff.UsageError, match="no place that fanfold knows: did you mean 'dask'"):
        ff.map(square, [1, 2], on="dusk")


def test_taken_port_does_not_matter():
    """Dask's usual dashboard port may be in use: nobody is told, as nobody asked for it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it
            stack.enter_context(socket.create_server(("127.0.0.1", 8787)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        assert ff.map(square, range(4), on="dask", workers=1) == [0, 1, 4, 9]


PROGRAM = """
import fanfold as ff

pool = ff.DaskExecutor(1)
print(pool.submit(pow, 2, 5).result())
future = pool.submit(pow, 2, 6)
future.add_done_callback(lambda done: print(done.result()))
"""


def test_a_script_without_a_guard_ends_quietly(tmp_path):
    """A script needs no guard and no shutdown: what it submitted is done, and Dask is silent."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("32\n64\n", "", 0)


def test_workers_end_with_a_killed_driver(tmp_path):
    """When the driver is killed, its Dask workers end, even those that run a task."""
    code = (
        "import fanfold as ff, os, sys, time\n"
        "pool = ff.DaskExecutor(1)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "pool.submit(time.sleep, 100).result()\n"
    )
    with (
        leaks(grace=60) as left,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver,
    ):
        assert int(driver.stdout.readline())
        driver.kill()
    assert not left


def test_the_example_runs():
    """examples/dask_array.py finds pi both ways."""
    script = Path(__file__).parents[2] / "examples" / "dask_array.py"
    command = [sys.executable, script, "--workers", "1", "--handfuls", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[:5] for line in done.stdout.splitlines()] == [
        [name, "pi", "is", "about", value]
        for name, value in (("ff.map", "3.143,"), ("dask.array", "3.143,"))
    ]
    assert done.stderr == ""
