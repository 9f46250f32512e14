"""Other people's tools on the executors of fanfold: each test runs the real library."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from typing import Any

import dask
import emcee
import joblib
import numpy as np
import pytest
import schwimmbad
from scipy import integrate, optimize
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC

import fanfold as ff
from fanfold.runs import batch
from fanfold.testing import Cluster, Gate
from fanfold.testing.functions import divide, square


@pytest.fixture(scope="module")
def workers() -> Iterator[ff.ProcessExecutor]:
    """Workers that have imported what these tests need; all of them share them."""
    with ff.ProcessExecutor(2) as executor:
        list(executor.map(divmod, range(8), [1] * 8))
        yield executor


@pytest.fixture(params=["executor", "pool"])
def pool(request: pytest.FixtureRequest, workers: ff.ProcessExecutor) -> Any:
    """What has a ``map``: an executor, and a pool over it."""
    return workers if request.param == "executor" else ff.Pool(on=workers)


# scikit-learn -------------------------------------------------------------------------------------


def _searched() -> tuple[dict[str, Any], list[float], np.ndarray]:
    data, target = load_iris(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "kernel": ["linear", "rbf"]}, cv=3)
    search.fit(data, target)
    return search.best_params_, search.cv_results_["mean_test_score"].tolist(), search.predict(data)


def _forest() -> list[float]:
    data, target = load_iris(return_X_y=True)
    forest = RandomForestClassifier(8, random_state=3)
    return cross_val_score(forest, data, target, cv=4).tolist()


def test_grid_search(workers: ff.ProcessExecutor) -> None:
    """A grid search, and a forest in cross-validation, find the same as without workers."""
    ff.register_joblib()
    alone = _searched(), _forest()
    with joblib.parallel_config("fanfold", on=workers):
        together = _searched(), _forest()
    np.testing.assert_equal(together, alone)
    gc.collect()


def test_grid_search_on_a_job_array(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same search on a scheduler is one job array with the same results."""
    monkeypatch.setattr(batch, "_QUIET", 3.0)  # joblib may take long from one task to the next
    ff.register_joblib()
    with joblib.parallel_config("fanfold", on="slurm", elements=1, n_jobs=2):
        there = _searched()
    np.testing.assert_equal(there, _searched())
    assert slurm.calls["sbatch"] == 1
    gc.collect()


# SciPy --------------------------------------------------------------------------------------------


def _valley(point: np.ndarray, floor: float = 0.0) -> float:
    return float(100 * (point[1] - point[0] ** 2) ** 2 + (1 - point[0]) ** 2 + floor)


def _peaks(x: float) -> np.ndarray:
    return np.array([np.sin(3 * x), np.exp(-x)])


def test_scipy_minimizes(pool: Any) -> None:
    """``workers=pool.map`` of differential_evolution and brute: what they find alone."""
    options: dict[str, Any] = {"seed": 1, "maxiter": 3, "popsize": 4, "updating": "deferred"}
    bounds = [(-2, 2), (-2, 2)]
    found = optimize.differential_evolution(_valley, bounds, (0.5,), workers=pool.map, **options)
    alone = optimize.differential_evolution(_valley, bounds, (0.5,), **options)
    np.testing.assert_equal((found.x, found.fun), (alone.x, alone.fun))
    places = (slice(-2, 2, 1), slice(-2, 2, 1))
    lowest = optimize.brute(_valley, places, finish=None, workers=pool.map)
    np.testing.assert_equal(lowest, optimize.brute(_valley, places, finish=None))


def test_scipy_integrates(pool: Any) -> None:
    """``workers=pool.map`` of quad_vec gives the same digits."""
    found, _ = integrate.quad_vec(_peaks, 0, 2, workers=pool.map)
    np.testing.assert_equal(found, integrate.quad_vec(_peaks, 0, 2)[0])


# Samplers -----------------------------------------------------------------------------------------


def _log_probability(position: np.ndarray, width: float) -> float:
    return float(-0.5 * np.sum((position / width) ** 2))


def _chain(pool: Any) -> np.ndarray:
    sampler = emcee.EnsembleSampler(8, 2, _log_probability, args=[0.5], pool=pool)
    state = np.random.RandomState(42)
    begin = emcee.State(state.standard_normal((8, 2)), random_state=state.get_state())
    sampler.run_mcmc(begin, 5)
    return sampler.get_chain()


def test_emcee(pool: Any) -> None:
    """``pool=`` of a sampler: the chain is the one that it walks alone."""
    np.testing.assert_equal(_chain(pool), _chain(None))


def _with_any_pool(pool: Any) -> list[int]:
    """A script as those that are written for schwimmbad: it gets whatever pool was chosen."""
    with pool:
        return list(pool.map(square, range(10)))


def test_in_the_place_of_schwimmbad(workers: ff.ProcessExecutor) -> None:
    """A script for the pools of schwimmbad takes `ff.Pool`, and schwimmbad's own pool of joblib
    runs on the backend."""
    ours = ff.Pool(on=workers)
    assert _with_any_pool(ours) == _with_any_pool(schwimmbad.SerialPool())
    assert ours.size == 2
    ours.join()
    ff.register_joblib()
    through_joblib = schwimmbad.JoblibPool(2, backend="fanfold")
    assert _with_any_pool(through_joblib) == [n * n for n in range(10)]
    del through_joblib
    gc.collect()


# Dask ---------------------------------------------------------------------------------------------


def test_dask_computes(workers: ff.ProcessExecutor) -> None:
    """``scheduler=executor`` runs a graph of Dask in its workers."""
    here = dask.delayed(os.getpid, pure=False)
    parts = [dask.delayed(divide)(number, 2) for number in range(10)]
    total, *ids = dask.compute(dask.delayed(sum)(parts), here(), here(), scheduler=workers)
    assert total == 22.5
    assert os.getpid() not in ids
    failing = dask.delayed(divide)(1, 0)
    with pytest.raises(ZeroDivisionError):
        dask.compute(failing, scheduler=workers)


# asyncio ------------------------------------------------------------------------------------------


def test_asyncio(workers: ff.ProcessExecutor) -> None:
    """`run_in_executor` and `wrap_future` await calls; failures are raised where one awaits."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(workers, square, n) for n in range(5)]
        wrapped = asyncio.wrap_future(workers.submit(square, 5))
        failing = loop.run_in_executor(workers, divide, 1, 0)
        return await asyncio.gather(*calls, wrapped, failing, return_exceptions=True)

    *found, error = asyncio.run(main())
    assert found == [0, 1, 4, 9, 16, 25]
    assert isinstance(error, ZeroDivisionError)


def test_asyncio_cancels(workers: ff.ProcessExecutor, gate: Gate) -> None:
    """A call that waits for a worker is cancelled with the awaitable that stands for it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(workers, gate.wait, n) for n in range(2)]
        await asyncio.to_thread(gate.wait_for, 2)
        waiting = [loop.run_in_executor(workers, gate.wait, f"late-{n}") for n in range(20)]
        for future in waiting:
            future.cancel()
        gate.open()
        assert sorted(await asyncio.gather(*busy)) == [0, 1]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in ended} == {asyncio.CancelledError}

    asyncio.run(main())
    assert workers.submit(square, 3).result() == 9
    assert len(gate.came()) < 20
