"""What is said of the next run: enough of everything, not much more, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from benchmarks.cases.advice import AGAIN, Workload, simulated
from tests.runs.small import Site, site_in

import fanfold as ff
from fanfold.errors import RunUnfinished
from fanfold.history import Death, Element, Failure, History, Piece, Session
from fanfold.reports.next_time import NextTime, next_time
from fanfold.schedulers.scripts.lines import parse
from fanfold.schedulers.scripts.reading import read
from fanfold.schedulers.scripts.writing import DIALECTS

GB, MB = 1 << 30, 1 << 20


def element_of(number: int, **given: Any) -> Element:
    """One of many that asked for 4 cores, 8 GB and an hour, and used half of that for 20 min."""
    told = {
        "job": "812", "index": number - 1, "node": "n1", "state": "done", "tasks": 10, "cores": 4,
        "memory": 8 * GB, "walltime": 3600, "began": 1.79e9, "seconds": 1200.0,
        "cpu_time": 4500.0, "peak_memory": 4 * GB,
    }  # fmt: skip
    return Element(number=number, **{**told, **given})


def history_of(*elements: Element, total: int | None = None, **asked: Any) -> History:
    tasks = sum(one.tasks for one in elements) if total is None else total
    history = History("fits", "runs/fits", "model.py:fit", tasks, 4, 1.79e9, done=tasks)
    history.asked = {"on": "slurm", "workers": None, **asked}
    history.elements = list(elements)
    return history


def alone(*pieces: tuple[float, float], on: str = "processes", why: str = "done") -> History:
    """A run on one machine; of each piece the worker, when it began, seconds, all busy."""
    found = [
        Piece(index, 1, "e0-a1", f"worker {worker}", 1, 1.79e9, 600.0, 590.0, peak * MB, True)
        for index, (worker, peak) in enumerate(pieces)
    ]
    history = History("r", "runs/r", "m.py:f", len(found), 2, 1.79e9, done=len(found))
    history.pieces = found
    history.asked = {"on": on, "workers": None}
    history.sessions = [Session("e0-a1", "here", 1, 1.79e9, 1.79e9 + 600, why)]
    return history


def advised(history: History) -> NextTime:
    found = next_time(history)
    assert found is not None
    return found


def killed(worker: str, **given: Any) -> Failure:
    """A task that ended its worker for want of memory."""
    death = Death(1, "SIGKILL", -9, "run", 3 * GB, True)
    return Failure(0, "x", "WorkerDied", "", "", True, 1, "e0-a1", worker, death, **given)


# Enough, and not too much -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load",
    [Workload(200, 1, 4, 1.0), Workload(400, 5, 4, 1.0), Workload(500, 20, 1, 1.0)],
    ids=["one element", "five", "twenty of one worker"],
)
def test_run_again_with_it(load: Workload) -> None:
    """Of 200 runs that are done again as it was advised none is ended for its walltime or its
    memory, and at the median less than 1.5 times of what was used is asked for. The times of the
    tasks are log-normal, so that a few are ten times as long as most; benchmarks/cases/advice.py
    does the same with more workloads, and advice_slurm.py with other tasks, on a real Slurm."""
    runs = list(simulated(load, seed=3))
    assert len(runs) == AGAIN == 200
    assert min(min(one) for one in runs) >= 1
    assert 1 < median(one.walltime for one in runs) <= 1.5
    assert 1 < median(one.memory for one in runs) <= 1.5


def test_numbers() -> None:
    """Cores, memory, walltime, elements and workers, each with how it was made."""
    found = advised(history_of(*map(element_of, range(1, 21))))
    assert found.resources == ff.Resources(cores=4, memory="5GB", walltime="28m")
    assert (found.elements, found.workers) == (20, 4)
    assert [sentence.partition(":")[0] for sentence in found.sentences[:3]] == [
        "Cores", "Memory", "Walltime",
    ]  # fmt: skip
    assert found.text == (
        "For the next run: 4 cores, 5.0 GB of memory, a walltime of 00:28:00, 20 elements"
    )
    assert found.options == "--cores 4 --memory 5120MB --walltime 00:28:00 --elements 20"


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
def test_both_dialects_say_the_same(dialect: str) -> None:
    """The lines for a script ask for what the options ask for, in both dialects, with the nodes and
    the GPUs that were asked for; both are in the text, and in the JSON."""
    history = history_of(*map(element_of, range(1, 21)))
    history.asked["cluster"] = {"resources": {"nodes": 2, "gpus": 1}}
    found = advised(history)
    lines = found.directives(dialect)
    settings = read(
        parse("\n".join(["#!/bin/sh", *lines])).directives(dialect), DIALECTS[dialect]
    ).settings
    layout: Any = settings["layout"].value
    assert (layout.chunks, layout.ncpus, layout.memory, layout.gpus) == (2, 4, 5 * GB, 1)
    assert settings["walltime"].value == 28 * 60
    assert "\n".join(lines) in str(found)
    assert json.loads(json.dumps(found.to_json()))[dialect] == lines


def test_workers_stay_where_cores_go() -> None:
    """Where tasks wait more than they compute, fewer cores do, and as many tasks at a time."""
    found = advised(history_of(*(element_of(n, cpu_time=1100.0) for n in range(1, 21))))
    assert (found.resources.cores, found.workers) == (1, 4)
    assert found.options.endswith("--elements 20 --workers 4")
    assert "4 workers in each" in found.text


def test_short_elements_are_too_many() -> None:
    """Elements of a few seconds are not worth their start: fewer are advised, with the time that
    these take."""
    short = (element_of(n, seconds=6.0, cpu_time=20.0) for n in range(1, 101))
    found = advised(history_of(*short))
    assert found.elements == 10
    assert found.resources.walltime == 360
    assert any("10 instead of 100, which ran 6.00s" in one for one in found.sentences)


def peaks(*megabytes: int, at_once: int = 1, seconds: float = 0.5) -> list[Piece]:
    """Tasks with these peaks, so many of them at a time, in element 1."""
    return [
        Piece(index, 1, "e1-a1", f"element 1, worker {index % at_once}", 1,
              1.79e9 + index // at_once * seconds, seconds, 0.1, peak * MB, True)
        for index, peak in enumerate(megabytes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "seen", "asked"),
    [(0.5, 600, 960), (0.5, 450, 832), (60.0, 600, 768)],
    ids=["short", "hardly seen", "long"],
)
def test_memory_between_two_looks(seconds: float, seen: int, asked: int) -> None:
    """Two short tasks had 400 MB each at the same time, which no look has found: they count
    together. What they share would count twice so, and no more than half again of what was seen
    counts. Long tasks are seen."""
    history = history_of(element_of(1, peak_memory=seen * MB))
    history.pieces = peaks(400, 400, at_once=2, seconds=seconds)
    assert advised(history).resources.memory == asked * MB


@pytest.mark.parametrize(
    ("tasks", "asked"),
    [([300] * 10, 384), ([100, 300] * 5, 512), ([100, 300] * 500, 384)],
    ids=["all the same", "few uneven ones", "many of them"],
)
def test_few_uneven_tasks(tasks: list[int], asked: int) -> None:
    """The fewer tasks there were, and the more uneven their memory, the more may the next have."""
    history = history_of(element_of(1, peak_memory=300 * MB))
    history.pieces = peaks(*tasks)
    found = advised(history)
    assert found.resources.memory == asked * MB
    assert any("higher than it was seen" in one for one in found.sentences) == (asked == 512)


def test_elements_of_a_retry_do_not_count() -> None:
    """The elements that shared out all tasks are counted, not those that did the rest later."""
    first = [element_of(n) for n in range(1, 21)]
    again = [element_of(n, tasks=1) for n in range(21, 24)]
    assert advised(history_of(*first, *again, total=200)).elements == 20


# After a failure ----------------------------------------------------------------------------------


def test_ended_for_its_walltime() -> None:
    """After an element ran out of time, twice that is asked for, and it is said."""
    found = [element_of(n) for n in range(1, 20)]
    late = element_of(20, state="walltime", seconds=3600.0)
    after = advised(history_of(*found, late))
    assert after.resources.walltime == 7200
    assert "Walltime: twice the 1h00m00s that was not enough." in after.sentences
    assert "1 element lost work for running too long: more is asked for now." in after.sentences


def test_killed_for_memory() -> None:
    """After a worker was killed for want of memory, twice that is asked for, also where its element
    went on without it; and it is said."""
    history = history_of(*map(element_of, range(1, 21)))
    before = advised(history)
    history.failures = [killed("element 7, worker 2")]
    after = advised(history)
    assert before.resources.memory == 5 * GB
    assert after.resources.memory == 16 * GB
    assert "Memory: twice the 8.0 GB that was not enough." in after.sentences
    assert "1 element lost work for want of memory: more is asked for now." in after.sentences


# A run on one machine -----------------------------------------------------------------------------


def test_run_on_one_machine() -> None:
    """It is told of as if it had been one element: its workers are the cores, the peaks of all
    workers its memory; where they are threads they share one."""
    found = advised(alone((0, 300), (1, 500)))
    assert found.resources == ff.Resources(cores=2, memory=1280 * MB, walltime="15m")
    assert (found.elements, found.workers) == (1, 2)
    assert found.options == "--cores 2 --memory 1280MB --walltime 00:15:00"
    assert advised(alone((0, 500), (1, 500), on="threads")).resources.memory == 640 * MB


def test_run_that_was_killed_for_memory() -> None:
    """Of a run on one machine, too: twice what it had."""
    history = alone((0, 2000), (1, 2000))
    history.failures = [killed("worker 1")]
    assert advised(history).resources.memory == 8000 * MB + 192 * MB


def test_run_that_was_interrupted() -> None:
    """What was not run to its end tells the least that is needed, and says so."""
    history = alone((0, 300), (1, 500), why="interrupted")
    history.total = 9
    assert advised(history).sentences[0] == (
        "No element came to its end: this is the least that is needed."
    )


def test_nothing_known() -> None:
    """Of a run that has not begun there is no advice."""
    assert next_time(history_of(total=3)) is None
    assert next_time(history_of(element_of(1, state="waiting"))) is None


# As a user gets it --------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site_in(tmp_path, monkeypatch) as site:
        yield site


def test_copied_and_run_again(site: Site) -> None:
    """What is advised after a job array can be asked for as it stands, and that run ends well."""
    import chores

    run = ff.run(chores.square, range(8), name="first", on="slurm", elements=2).wait()
    found = run.advise()
    assert found.elements == 1
    again = ff.run(
        chores.square, range(8), name="again", on="slurm", resources=found.resources,
        elements=found.elements, workers=found.workers,
    )  # fmt: skip
    assert again.wait().results() == [n * n for n in range(8)]
    assert (again.advise().resources.walltime or 0) <= (found.resources.walltime or 0)


@pytest.fixture
def fanfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def fanfold(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fanfold", *arguments],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return fanfold


def test_command(fanfold: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`fanfold advise RUN` prints options and both dialects to standard output; --json the same for
    programs."""
    run = ff.run(abs, [-1, -2], name="r").wait()
    text = fanfold("advise", "r").stdout
    assert text == f"{run.advise()}\n"
    assert {line.split()[0] for line in text.splitlines() if line.startswith("#")} == {
        "#PBS", "#SBATCH",
    }  # fmt: skip
    assert json.loads(fanfold("advise", "r", "--json").stdout) == run.advise().to_json()


def test_command_with_nothing_to_go_by(
    fanfold: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A run without any task that has ended gets a sentence, and exit status 1."""
    ff.run(abs, [], name="empty", on="serial").wait()
    done = fanfold("advise", "empty", code=1)
    assert done.stderr == (
        "fanfold: nothing of empty has ended yet: there is nothing to go by. Wait for it\n"
    )
    with pytest.raises(RunUnfinished):
        ff.Run.open("empty").advise()
