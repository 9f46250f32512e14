"""What all remote executors share, held to the contract on processes behind pipes."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.engines.pipes import Crew, PipeExecutor

import fanfold as ff
from fanfold.executors.remote import errand
from fanfold.extras import need
from fanfold.tasks import Call, Chunk
from fanfold.testing import ExecutorTests, leaks
from fanfold.testing.faults import Script, exit_now, kill_self, raises_on_load
from fanfold.testing.functions import mark, square
from fanfold.testing.streams import receive_outcomes


@pytest.fixture(scope="module", autouse=True)
def crews():
    """One worker, and two: started once, for they outlive what dies."""
    crews = {1: Crew(1), 2: Crew(2)}
    yield crews
    for crew in crews.values():
        crew.close()


@pytest.fixture(autouse=True)
def nothing_left(crews):
    """What a test leaves behind, but for the workers that have taken the place of dead ones."""
    before = sum(crew.replaced for crew in crews.values())

    def renewed(line):
        replaced = sum(crew.replaced for crew in crews.values()) > before
        return replaced and line.startswith(("process", "file descriptor"))

    with leaks(ignore=renewed) as left:
        yield
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture
def pool(crews):
    with PipeExecutor(crews[2]) as executor:
        yield executor


class TestRemote(ExecutorTests):
    remote = True

    @pytest.fixture(autouse=True)
    def _crews(self, crews):
        self.crews = crews

    def make(self, *, max_workers, **options):
        return PipeExecutor(self.crews[max_workers], **options)


def test_small_tasks_travel_together(pool, gate):
    """10 000 no-op tasks of a map, and 2000 submits that wait, need few errands."""
    assert ff.map(square, range(10_000), on=pool) == [n * n for n in range(10_000)]
    assert pool.site.posted < 1000
    for number in range(2):
        pool.submit(gate.wait, number)
    gate.wait_for(2)
    before = pool.site.posted
    futures = [pool.submit(square, number) for number in range(2000)]
    gate.open()
    assert [future.result(timeout=60) for future in futures] == [n * n for n in range(2000)]
    assert pool.site.posted - before < 400


def test_a_large_function_travels_once(pool):
    """What a function takes along is published, and not sent with each errand; then retracted."""
    table = np.arange(200_000)
    assert ff.map(partial(np.searchsorted, table), range(1000), on=pool) == list(range(1000))
    assert pool.submit(partial(np.take, table), 7).result(timeout=30) == 7
    pool.shutdown()
    assert pool.site.published == {}


def test_changed_functions_are_sent_anew(pool):
    """A submit after a change to what the function refers to runs the changed function."""
    offset = 1

    def add(number):
        return number + offset

    assert pool.submit(add, 1).result() == 2
    offset = 10
    assert pool.submit(add, 1).result() == 11


def test_arguments_are_copied_at_submit(pool, gate):
    """A large array that changes after submit arrives as it was."""
    for _ in range(2):
        pool.submit(gate.wait)
    array = np.zeros(100_000)
    futures = [pool.submit(np.sum, array) for _ in range(4)]
    array[:] = 1
    gate.open()
    assert [future.result(timeout=30) for future in futures] == [0.0] * 4


def test_results_can_be_changed(pool):
    """A large array that comes back belongs to the caller."""
    array = pool.submit(np.zeros, 100_000).result(timeout=30)
    array[0] = 1
    assert array.sum() == 1


@pytest.mark.parametrize("code", [0, 7])
def test_exit_code_is_known(pool, code):
    """A task that leaves by os._exit is told with its code, where the site knows it."""
    [first, error, last] = ff.map(
        Script({1: partial(exit_now, code)}), range(3), on=pool, errors="return"
    )
    assert (first, last) == (0, 4)
    assert isinstance(error, ff.WorkerDied)
    assert error.exitcode == code
    assert f"exited with code {code}" in str(error)
    assert "task 1, input 1" in error.__notes__[0]


def test_two_guilty_tasks_fail_alone(pool):
    """Of many tasks that travel together exactly the two that kill their worker fail."""
    ff.map(square, range(1000), on=pool)
    results = ff.map(
        Script({30: kill_self, 60: kill_self}), range(100), on=pool, errors="return", chunk=50
    )
    failed = {n for n, result in enumerate(results) if isinstance(result, ff.WorkerDied)}
    assert failed == {30, 60}
    assert [result for n, result in enumerate(results) if n not in failed] == [
        n * n for n in range(100) if n not in failed
    ]


def die_once(folder, number):
    """Kill the worker at the first attempt, as a node that breaks does; then be innocent."""
    if number == 3 and not (folder / "died").exists():
        mark(folder, "died")
        kill_self()
    return number


def test_a_broken_node_is_forgiven(pool, tmp_path):
    """A task whose worker dies once is run again elsewhere, and costs no retries."""
    assert ff.map(partial(die_once, tmp_path), range(6), on=pool) == list(range(6))
    assert (tmp_path / "died").exists()


def test_argument_that_cannot_be_loaded(pool):
    """An argument that raises when it is loaded fails its own task; its neighbours run."""
    bad = raises_on_load()
    with pool.open(Call(type)) as stream:
        stream.send(Chunk(0, [1, bad, 3]))
        outcomes = receive_outcomes(stream, range(3))
    assert isinstance(outcomes[1].error, ff.LoadFailed)
    assert outcomes[0].value is outcomes[2].value is int


def test_site_that_is_gone(crews, gate):
    """When the site says that nothing more will come, all that waits fails, and what follows."""
    with PipeExecutor(crews[1]) as pool:
        futures = [pool.submit(gate.wait, number) for number in range(5)]
        gate.wait_for(1)
        pool.site.gone = True
        for future in futures:
            with pytest.raises(ff.EngineLost, match="went home"):
                future.result(timeout=30)
        with pytest.raises(ff.EngineLost):
            pool.submit(square, 2)
        gate.open()


def another_python():
    """A Python of another version than this one, that is installed here."""
    find = Path(__file__).parents[2] / "tools" / "find-python"
    for version in ("3.11", "3.12", "3.13", "3.14"):
        if version != errand.versions()[0]:
            found = subprocess.run([find, version], capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return found.stdout.strip(), version
    pytest.skip("no Python of another version is installed here")


def test_another_python_is_refused():
    """A worker that runs another Python is refused with both versions, before a task runs: even an
    argument that only this Python could load is no reason to fail there."""
    python, version = another_python()
    crew = Crew(1, python)
    here, package = errand.versions()
    said = (
        f"the crew runs Python {version} with fanfold {package}, and here is Python {here} with "
        f"fanfold {package}: functions cannot travel between them."
    )
    try:
        with PipeExecutor(crew) as pool, pytest.raises(ff.StartupFailed) as caught:
            pool.submit(lambda argument: argument, np.zeros(3)).result(timeout=60)
    finally:
        crew.close()
    assert str(caught.value).startswith(said)


def test_another_fanfold_is_refused(crews, monkeypatch):
    """So is a worker with another fanfold."""
    monkeypatch.setattr(errand, "versions", lambda: (sys.version[:4], "7.8.9"))
    with (
        PipeExecutor(crews[1]) as pool,
        pytest.raises(ff.StartupFailed, match=r"Python 3\.\d+ with fanfold .* Python"),
    ):
        pool.submit(square, 2).result(timeout=30)


def test_same_random_numbers_as_elsewhere(pool):
    """Seeds follow the index, wherever a task runs."""
    here = ff.map(lambda _: float(ff.rng().random()), range(50), on="serial", seed=5)
    assert ff.map(lambda _: float(ff.rng().random()), range(50), on=pool, seed=5) == here


def test_folds_like_elsewhere(pool):
    """Floats are summed by the same tree as everywhere: bit for bit the same."""
    assert ff.map_reduce(np.sqrt, range(5000), on=pool) == ff.map_reduce(
        np.sqrt, range(5000), on="threads"
    )


def test_a_task_beyond_its_timeout_is_left_behind(pool, gate):
    """The error says that the task was not stopped, and where it would be."""
    [error] = ff.map(gate.wait, ["late"], on=pool, timeout=0.1, errors="return")
    assert isinstance(error, ff.TaskTimeout)
    assert "left behind" in str(error)
    assert 'on="processes"' in str(error)


def test_a_library_that_is_not_installed():
    """The sentence names the library and the pip line."""
    with pytest.raises(ff.UsageError, match=r'needs no_such: pip install "fanfold\[dask\]"'):
        need("no_such", "dask", 'on="dask"')
