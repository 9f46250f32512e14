"""The backend "fanfold" of joblib: the same results as joblib's own, wherever it runs."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import sqrt
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed, parallel_config

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.runs import batch
from fanfold.testing import Cluster, Gate, kill_self
from fanfold.testing.functions import fail, same, square, until

SQUARES = [n * n for n in range(40)]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """joblib knows the backend; what it left in cycles is collected, and its workers end."""
    ff.register_joblib()
    yield
    gc.collect()


def squares(count: int = 40) -> Iterator[object]:
    return (delayed(square)(n) for n in range(count))


# Results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["processes", "threads", "serial"])
def test_results(on: str) -> None:
    """Results are in order, whatever the place; arguments may be named."""
    with parallel_config("fanfold", n_jobs=2, on=on):
        assert Parallel()(squares()) == SQUARES
        assert Parallel()(delayed(divmod)(n, 3) for n in range(3)) == [(0, 0), (0, 1), (0, 2)]
        assert Parallel()([delayed(int)("12", base=3)] * 2) == [5, 5]
        assert Parallel()([]) == []


def test_by_name() -> None:
    """`Parallel(backend="fanfold")` works without a block; its workers live as long as it does."""
    parallel = Parallel(n_jobs=2, backend="fanfold")
    assert parallel(squares()) == SQUARES
    assert parallel(squares(3)) == [0, 1, 4]
    with parallel as managed:
        assert managed(squares()) == managed(squares()) == SQUARES


def test_workers_are_kept() -> None:
    """Within a block all calls have the same workers."""
    with parallel_config("fanfold", n_jobs=1 + 1):
        first = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
        later = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
    assert os.getpid() not in first
    assert len(first | later) <= 2


def test_on_an_executor() -> None:
    """An executor may be given; it stays open, and has its own number of workers."""
    with ff.ProcessExecutor(2) as pool:
        with parallel_config("fanfold", on=pool):
            assert joblib.effective_n_jobs(-1) == 2
            assert Parallel()(squares()) == SQUARES
            with pytest.raises(ValueError, match="as asked"):
                Parallel()(delayed(_fail_slowly)(n) for n in range(40))
        assert pool.submit(square, 3).result() == 9


def _fail_slowly(number: int) -> int:
    if number == 7:
        raise ValueError("as asked")
    return number


@pytest.mark.parametrize(("n_jobs", "workers"), [(3, 3), (1, 1), (-1, 4), (-2, 3), (-9, 2)])
def test_n_jobs(n_jobs: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """n_jobs counts as joblib counts: -1 is every core that may be used, -2 all but one."""
    monkeypatch.setattr("fanfold.adapters.joblib_backend.cores", lambda: 4)
    monkeypatch.setattr("fanfold.executors.threads.cores", lambda: 4)
    with parallel_config("fanfold", on="threads", n_jobs=n_jobs):
        assert joblib.effective_n_jobs(n_jobs) == workers


def test_one_job_runs_here() -> None:
    """With n_jobs=1 there is no worker, as with every backend."""
    with parallel_config("fanfold", n_jobs=1):
        assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    with parallel_config("fanfold", n_jobs=0), pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel()(squares())


def test_functions_of_any_kind() -> None:
    """Lambdas and closures travel."""
    factor = 3
    with parallel_config("fanfold", n_jobs=2):
        assert Parallel()(delayed(lambda n: factor * n)(n) for n in range(3)) == [0, 3, 6]


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(return_as: str) -> None:
    """Results may come one by one, and endless inputs are drawn as they are needed."""
    with parallel_config("fanfold", n_jobs=2):
        results = Parallel(return_as=return_as)(squares())
        assert sorted(results) == SQUARES
        endless = Parallel(return_as=return_as)(delayed(square)(n) for n in itertools.count())
        assert len(list(itertools.islice(endless, 20))) == 20
        with pytest.warns(UserWarning, match="not used"):
            endless.close()


def test_calls_within_a_generator() -> None:
    """A call may be made while the results of another are taken: they do not meet."""
    with parallel_config("fanfold", n_jobs=2):
        outer = Parallel(return_as="generator", batch_size=1)(squares())
        seen = [next(outer), next(outer)]
        assert Parallel()(squares(3)) == [0, 1, 4]
        with pytest.raises(ValueError, match="as asked"):
            Parallel()(delayed(_fail_slowly)(n) for n in (6, 7, 8))
        assert [*seen, *outer] == SQUARES


def test_small_tasks_travel_together() -> None:
    """With batch_size="auto" many tiny tasks are few batches."""
    with parallel_config("fanfold", n_jobs=2):
        parallel = Parallel()
        assert parallel(squares(3000)) == [n * n for n in range(3000)]
        assert parallel.n_dispatched_batches < 1000


def test_nested_calls() -> None:
    """A task may call `Parallel` itself: that runs on threads of its worker, as with loky."""
    with parallel_config("fanfold", n_jobs=2):
        found = Parallel()(delayed(_nested)(n) for n in range(4))
    assert [values for values, _, _ in found] == [[0, n, 2 * n] for n in range(4)]
    for _, pids, here in found:
        assert pids == {here}


def _nested(number: int) -> tuple[list[int], set[int], int]:
    found = Parallel(n_jobs=2)(delayed(_times)(number, factor) for factor in range(3))
    return [value for value, _ in found], {pid for _, pid in found}, os.getpid()


def _times(number: int, factor: int) -> tuple[int, int]:
    return number * factor, os.getpid()


# Arrays -------------------------------------------------------------------------------------------


def test_a_large_array_is_there_once() -> None:
    """A large array lies in shared memory once for all tasks of a call, read-only."""
    array = np.arange(500_000.0)
    with parallel_config("fanfold", n_jobs=2):
        parallel = Parallel(batch_size=1)
        found = parallel(delayed(_look)(array, n) for n in range(8))
    assert {total for total, _, _ in found} == {float(array.sum())}
    assert {writable for _, writable, _ in found} == {False}
    assert len({name for _, _, name in found}) == 1


def _look(array: np.ndarray, index: int) -> tuple[float, bool, str]:
    """The sum, whether it may be changed, and the file that it is mapped from."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return float(array.sum()), array.flags.writeable, line.split(maxsplit=5)[-1]
    raise LookupError(f"nothing is mapped at {address:x}")


def test_maps_of_files_are_mapped_again(tmp_path: Path) -> None:
    """A `numpy.memmap`, or a part of one, is not copied: workers map the same file."""
    path = tmp_path / "data"
    data = np.memmap(path, float, "w+", shape=(4, 1000))
    data[:] = np.arange(4)[:, None]
    with parallel_config("fanfold", n_jobs=2):
        found = Parallel()(delayed(_look)(row, 0) for row in (data, data[1:], data[2:3], data[3]))
    assert [total for total, _, _ in found] == [6000, 6000, 2000, 3000]
    assert {name for _, _, name in found} == {str(path)}


def test_results_written_to_a_map(tmp_path: Path) -> None:
    """Tasks may write their results into a writable map, as joblib's manual shows."""
    output = np.memmap(tmp_path / "sums", float, "w+", shape=6)
    with parallel_config("fanfold", n_jobs=2):
        Parallel()(delayed(_write)(output, index) for index in range(6))
    assert output.tolist() == [0, 1, 4, 9, 16, 25]


def _write(output: np.ndarray, index: int) -> None:
    output[index] = index**2


@pytest.mark.parametrize("mode", ["c", "strided", "gone", "objects"])
def test_arrays_that_cannot_be_mapped_again(mode: str, tmp_path: Path) -> None:
    """A private map, every other element, a file that is gone, objects: these are copied."""
    path = tmp_path / "data"
    np.arange(10.0).tofile(path)
    array: np.ndarray = np.memmap(path, float, "c" if mode == "c" else "r+")
    if mode == "c":
        array[0] = 100  # the file does not know
    elif mode == "strided":
        array = array[::2]
    elif mode == "gone":
        path.unlink()
    else:
        array = array.astype(object)
    with parallel_config("fanfold", n_jobs=2):
        [back, _] = Parallel()([delayed(same)(array), delayed(same)(1)])
    assert back.tolist() == array.tolist()


# Failures -----------------------------------------------------------------------------------------


def test_a_failure_ends_the_call(gate: Gate) -> None:
    """The exception comes back, with the traceback of the worker; what else runs is stopped, and
    the workers are ready for the next call."""
    with parallel_config("fanfold", n_jobs=2):
        with pytest.raises(ZeroDivisionError) as caught:
            Parallel(batch_size=1)(_one_fails(gate))
        [note] = caught.value.__notes__
        assert note.startswith("fanfold: task 1, input 1 x _fail_when_there(...), attempt 1")
        assert "divmod" in str(caught.value.__cause__)
        until(lambda: not any(map(_lives, gate.came())), "those at the gate to be ended")
        assert Parallel()(squares()) == SQUARES


def _one_fails(gate: Gate) -> Iterator[object]:
    for func in (_stay, _fail_when_there, _stay):
        yield delayed(func)(gate)


def _stay(gate: Gate) -> None:
    """Stand at the gate, which nobody opens, under the id of the process."""
    gate.wait(os.getpid())


def _lives(pid: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    return False


def _fail_when_there(gate: Gate) -> None:
    gate.wait_for(1)
    divmod(1, 0)


def test_a_call_that_takes_too_long(gate: Gate) -> None:
    """L48: `Parallel(timeout=...)` raises TimeoutError, and what ran is ended."""
    with parallel_config("fanfold", n_jobs=2):
        with pytest.raises(multiprocessing.TimeoutError):
            Parallel(timeout=0.2)(delayed(gate.wait)(n) for n in range(10))
        assert Parallel()(squares()) == SQUARES


def test_a_worker_that_dies() -> None:
    """L01: the error names the signal; unlike loky's, the workers go on with the next call."""
    with parallel_config("fanfold", n_jobs=2):
        with pytest.raises(ff.WorkerDied, match="SIGKILL"):
            Parallel()([delayed(kill_self)(signal.SIGKILL), delayed(square)(2)])
        assert Parallel()(squares()) == SQUARES


def test_inputs_that_raise() -> None:
    """L24: an exception of the generator of tasks is raised by the call."""

    def inputs() -> Iterator[object]:
        yield delayed(square)(1)
        fail("out of inputs")

    with parallel_config("fanfold", n_jobs=2):
        with pytest.raises(Exception, match="out of inputs"):
            Parallel()(inputs())
        assert Parallel()(squares()) == SQUARES


def test_what_cannot_be_sent() -> None:
    """An argument that cannot be pickled is an error that says so, and no hang."""
    with parallel_config("fanfold", n_jobs=2), pytest.raises(ff.NotSerializable, match="generator"):
        Parallel()([delayed(same)(n for n in range(3)), delayed(same)(1)])


def test_workers_that_do_not_start() -> None:
    """An initializer that raises is an error of the call, and no hang."""
    with (
        parallel_config("fanfold", n_jobs=2, initializer=fail),
        pytest.raises(ff.StartupFailed, match="as asked"),
    ):
        Parallel()(squares())


def test_wrong_options() -> None:
    """They are told at once, with what would be right."""
    with pytest.raises(UsageError, match="did you mean 'processes'"):
        parallel_config("fanfold", on="procesess")
    with pytest.raises(UsageError, match="counted by n_jobs="):
        parallel_config("fanfold", workers=2)


def test_without_joblib() -> None:
    """Where joblib is not installed, one sentence says what to do."""
    script = "import sys; sys.modules['joblib'] = None; import fanfold; fanfold.register_joblib()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (
        b'UsageError: the backend for joblib needs joblib: pip install "fanfold[joblib]"'
        in (ended.stderr.splitlines()[-1])
    )


# Job arrays ---------------------------------------------------------------------------------------


def test_on_a_job_array(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is one job array, whatever `pre_dispatch` says; a large array lies in one file, which
    is removed."""
    monkeypatch.setattr(batch, "_QUIET", 3.0)  # joblib may take long from one task to the next
    array = np.asfortranarray(np.arange(200_000.0).reshape(-1, 2))
    with parallel_config("fanfold", on="slurm", elements=2):
        assert Parallel()(delayed(sqrt)(n**2) for n in range(20)) == list(range(20))
        found = Parallel()(delayed(_look)(array, n) for n in range(4))
    assert {total for total, _, _ in found} == {float(array.sum())}
    [name] = {name for _, _, name in found}
    assert name.startswith(f"{Path.cwd()}/fanfold-joblib-")
    assert list(Path().glob("fanfold-joblib-*")) == []
    assert list(Path("fanfold-runs").iterdir()) == []
    assert slurm.calls["sbatch"] == 2


def test_a_failure_on_a_job_array(slurm: Cluster, tmp_path: Path) -> None:
    """The exception comes back, and the rest of the array is cancelled."""
    gate = Gate(tmp_path / "gate")
    gate.folder.mkdir()
    with (
        parallel_config("fanfold", on="slurm", elements=2, n_jobs=2),
        pytest.raises(ZeroDivisionError),
    ):
        Parallel()([delayed(gate.wait)("first"), delayed(_fail_when_there)(gate)])
    slurm.wait("1")
    assert "cancelled" in slurm.states("1").values()
