"""``on=("auto", scheduler)``: work that is worth the wait in a queue goes there, and no other."""

import math
import os
import time
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.executors.auto import choice
from fanfold.executors.auto.choice import Facts, choose
from fanfold.executors.registry import check
from fanfold.testing import Cluster

HOURS = Facts(
    left=1000, pace=30.0, busy=1.0, held=1.0, sending=0.0, function=0.0, done=1, cores=4,
    workers=None, start="cold",
)  # fmt: skip


@pytest.fixture(params=["slurm", "pbs"])
def scheduler(request, tmp_path, monkeypatch):
    """A pretend cluster, the kind of which is the value."""
    monkeypatch.chdir(tmp_path)
    with Cluster(tmp_path / "cluster", request.param) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(tmp_path))
        yield request.param


@pytest.fixture
def no_queue(monkeypatch):
    """Jobs begin at once, and half a second is worth an element: tests have no hours."""
    monkeypatch.setattr(choice, "_QUEUE", 0.0)
    monkeypatch.setattr(choice, "_ELEMENT", 0.5)


def compute(number: int) -> tuple[int, str]:
    """Somewhat unequal tasks; where they ran is known by the variables of the scheduler."""
    until = time.process_time() + 0.02 + number % 3 / 100
    while time.process_time() < until:
        pass
    return number, "job" if {"SLURM_JOB_ID", "PBS_JOBID"} & set(os.environ) else "here"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (HOURS._replace(allowed=("slurm", 100)), ("slurm", 100)),
        (HOURS._replace(allowed=("slurm", None)), ("slurm", 500)),  # a minute each
        (HOURS._replace(left=30, allowed=("pbs", 100)), ("pbs", 30)),
        (HOURS._replace(left=4, allowed=("pbs", 100)), ("processes", 4)),  # half a minute
        (HOURS._replace(pace=0.01, allowed=("pbs", 100)), ("processes", 4)),
        (HOURS._replace(allowed=("slurm", 1)), ("processes", 4)),
        (HOURS._replace(allowed=("slurm", 9), barred=(("slurm", "why"),)), ("processes", 4)),
        (HOURS, ("processes", 4)),
    ],
)
def test_hours_go_to_the_scheduler(facts, expected):
    """A queue is worth its wait where the cores here would take clearly longer."""
    assert choose(facts)[:2] == expected


def test_what_is_short_stays(scheduler):
    """Seconds of work never see the scheduler."""
    assert ff.map(compute, range(10), on=("auto", scheduler)) == [(n, "here") for n in range(10)]
    assert not Path("fanfold-runs").exists()


def test_what_is_long_goes(scheduler, no_queue):
    """The first tasks run here and are kept; the others run in elements, in order, each once."""
    found = ff.map(compute, range(90), on=("auto", scheduler))
    assert [number for number, _ in found] == list(range(90))
    places = [place for _, place in found]
    assert places[0] == "here"
    assert places.count("job") > 40
    assert list(Path("fanfold-runs").iterdir()) == []  # all ended well


def test_an_executor_says_how_many(scheduler, no_queue, monkeypatch):
    """An executor of the scheduler brings its resources and elements, and lives on."""
    # A core that stalls makes a task look as if it waited: threads never pay here.
    monkeypatch.setattr(choice, "_START_THREADS", math.inf)
    with ff.ArrayExecutor(scheduler=scheduler, elements=4) as pool:
        found = ff.map(compute, range(100), on=["auto", pool])
        assert [number for number, _ in found] == list(range(100))
        assert "job" in {place for _, place in found}
        assert pool.submit(compute, 7).result(timeout=60) == (7, "job")


def fail_late(number: int) -> int:
    compute(number)
    if number in (60, 85):
        raise ValueError(number)
    return number


def test_the_first_failure_is_raised(scheduler, no_queue):
    """Of the tasks that fail in jobs the first is raised, as everywhere."""
    with pytest.raises(ValueError, match="60"):
        ff.map(fail_late, range(90), on=("auto", scheduler))
    found = ff.map(fail_late, range(90), on=("auto", scheduler), errors="return")
    assert [str(one) for one in found if isinstance(one, ValueError)] == ["60", "85"]


def test_a_scheduler_that_is_not_there(tmp_path, monkeypatch, no_queue):
    """Where there is no such scheduler the map fails with the sentence of on="slurm"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ff.FanfoldError, match="sbatch"):
        ff.map(compute, range(200), on=("auto", "slurm"))


@pytest.mark.parametrize(
    "places", [(), ("auto",), ("slurm", "auto"), ("auto", "threads"), ("auto", 3), ["processes"]]
)
def test_other_choices_are_refused(places):
    """Only "auto" chooses, and one scheduler may be allowed."""
    with pytest.raises(ff.UsageError, match=r'on=\("auto", "slurm"\)'):
        check(places)
