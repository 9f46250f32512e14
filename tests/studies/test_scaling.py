"""`scaling` on real workers: what is measured, and the faults of functions and inputs."""

from __future__ import annotations

import importlib
import os
import sys
import time

import pytest

import fanfold as ff
from fanfold.testing import Cluster


def nap(seconds):
    time.sleep(seconds)
    return seconds


def total(*, first, second):
    return first + second


def warming(seconds):
    """Slow the first time in each process, as what loads a model is."""
    if "WARM" not in os.environ:
        os.environ["WARM"] = "yes"
        time.sleep(2)
    time.sleep(seconds)


def picky(number):
    if number == 3:
        raise ValueError("unlucky")


def test_sleeping_tasks_scale():
    """Tasks that only wait are as much faster as there are workers, beyond the cores too."""
    study = ff.scaling(nap, [0.1] * 8, workers=[4, 1, 1], repeats=2, on="threads")
    assert isinstance(study, ff.ScalingStudy)
    assert study.workers == [1, 4]
    assert {n: len(times) for n, times in study.measured.times.items()} == {1: 2, 4: 2}
    assert study.best == 4
    assert study.seconds[1] >= 8 * 0.1
    assert study.seconds[4] >= 2 * 0.1
    profile = study.measured.profiles[4]
    assert profile.tasks == 8
    assert profile.work >= 8 * 0.1
    assert profile.longest >= 0.1


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_one_element_for_each_number(scheduler, tmp_path, tmp_path_factory, monkeypatch):
    """On a scheduler the study is one job array, with an element for each number of workers; what
    each measured is in the study as if it had been measured here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "naps.py").write_text("import time\n\ndef nap(seconds):\n    time.sleep(seconds)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "naps", raising=False)
    task = importlib.import_module("naps").nap
    with Cluster(tmp_path_factory.mktemp("cluster"), scheduler) as cluster:
        monkeypatch.setenv("PATH", cluster.environment["PATH"])
        monkeypatch.setenv("HOME", str(tmp_path))  # whose profile a job of PBS reads
        study = ff.scaling(task, [0.05] * 4, workers=[1, 2, 4], repeats=2, on=scheduler)
        (run,) = (tmp_path / "fanfold-runs").iterdir()
        elements = ff.Run.open(run).history().elements
    assert len({element.job for element in elements}) == 1
    assert [element.tasks for element in elements] == [1, 1, 1]
    assert (study.workers, study.measured.place) == ([1, 2, 4], scheduler)
    assert {n: len(times) for n, times in study.measured.times.items()} == {1: 2, 2: 2, 4: 2}
    for row in study.to_json()["workers"]:
        n = row["workers"]
        assert row["efficiency"] == pytest.approx(row["speedup"] / n)
        assert row["cost"] == pytest.approx(n * row["seconds"] / 4)


def test_weak_study_grows():
    """In a weak study each number of workers gets as many times the inputs."""
    study = ff.scaling(nap, [0.02, 0.01], workers=[1, 3], repeats=1, mode="weak", on="threads")
    assert [study.measured.profiles[n].tasks for n in (1, 3)] == [2, 6]
    assert study.measured.profiles[3].work >= 3 * 0.03


def test_slow_first_time_is_apart():
    """What a function does once in each worker is told, and neither in the times nor the losses."""
    study = ff.scaling(warming, [0.05] * 4, workers=[2], repeats=2)
    assert study.measured.profiles[2].first >= 2
    assert study.measured.profiles[2].work < 2
    assert any(one.startswith("The first run takes") for one in study.sentences())


def test_one_input():
    """One input is measured, and it is said that other workers have nothing to do."""
    study = ff.scaling(nap, [0.06], workers=[1, 2], repeats=3, on="threads")
    assert "1 task keeps 1 worker busy: of 2 workers 1 have nothing to do." in study.sentences()
    assert study.shares(2)["imbalance"] > 0.1


def test_failing_function():
    """What a task raises is raised, with the task and its input, and no worker is left."""
    with pytest.raises(ValueError, match="unlucky") as caught:
        ff.scaling(picky, [1, 2, 3], workers=[1, 2], repeats=1)
    assert "input 3" in "".join(caught.value.__notes__)


def test_styles_of_inputs():
    """Dictionaries can be keyword arguments."""
    inputs = [{"first": 1, "second": 2}]
    study = ff.scaling(total, inputs, workers=[1], repeats=1, on="threads", style="keywords")
    assert study.measured.target.endswith("total")


def test_order_is_shuffled():
    """Runs with different numbers of workers take turns at random, the same for the same seed."""
    orders = []
    for _ in range(2):
        told = []
        ff.scaling(abs, [1], workers=[1, 2], repeats=4, on="threads", tell=told.append)
        orders.append([one.rpartition(": ")[2] for one in told if one.startswith("run")])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == ["1 worker"] * 4 + ["2 workers"] * 4
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"inputs": []}, "there is no input"),
        ({"workers": []}, "workers is empty"),
        ({"workers": [0, 2]}, "whole numbers from 1, not 0"),
        ({"workers": [1.5]}, "whole numbers from 1, not 1.5"),
        ({"workers": 4}, "the numbers to try, as [1, 2, 4], not 4"),
        ({"workers": ["two", 1]}, "whole numbers from 1, not 'two'"),
        ({"inputs": 5}, "what the tasks get, as [1, 2, 3], not 5"),
        ({"repeats": 0}, "repeats must be a whole number from 1, not 0"),
        ({"mode": "strange"}, "'strong' or 'weak', not 'strange'"),
        ({"on": "moon"}, "not 'moon'"),
        ({"func": 3}, "callable"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_wrong_use(given, words):
    """What is wrong is refused before any work, with what would be right."""
    call = {"func": abs, "inputs": [1], "workers": [1], "repeats": 1, **given}
    with pytest.raises(ff.UsageError) as caught:
        ff.scaling(call.pop("func"), call.pop("inputs"), **call)
    assert words in str(caught.value)


def test_all_that_is_wrong_is_told():
    """One error names every mistake."""
    with pytest.raises(ff.UsageError) as caught:
        ff.scaling(abs, [], workers=[-1], repeats=0)
    assert len(str(caught.value).splitlines()) == 3
