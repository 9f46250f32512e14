"""Durable runs as job arrays on a real Slurm: nothing is lost, whatever happens to the elements."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.slurm.cluster import PrivateSlurm

import fanfold as ff
from fanfold.testing import Cluster
from fanfold.testing.functions import until

EXAMPLES = Path(__file__).parents[2] / "examples"

TASKS = """
import pathlib
import time


def square(n):
    print("squaring", n)
    return n * n


def gated(n):
    pathlib.Path(f"began-{n}-{time.time_ns()}").touch()
    while not pathlib.Path("open").exists():
        time.sleep(0.01)
    return n * n


def draw(_):
    import fanfold as ff

    return float(ff.rng().random())


def picky(n):
    if n == 13:
        raise ValueError("unlucky")
    return gated(n)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run, with a module of tasks."""
    (tmp_path / "work.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "work", raising=False)
    return tmp_path


def fanfold(*arguments: str, code: int = 0) -> str:
    """The standard output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", *arguments], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def status(run: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", "status", run, "--json"], capture_output=True, text=True
    )
    return json.loads(done.stdout)


def begun(folder: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in folder.glob("began-*")}


def squares(count: int) -> str:
    return "index\tinput\tresult\n" + "".join(f"{n}\t{n}\t{n * n}\n" for n in range(count))


def test_thousand_tasks(folder, any_slurm):
    """1 000 tasks in 20 elements: the results are exact, each task's output is found, and every
    element tells what it used, with Slurm's records or without them."""
    printed = fanfold(
        "run", "work.py:square", "--range", "0-999", "--on", "slurm", "--elements", "20",
        "--name", "k", "--memory", "100MB", "--walltime", "10m",
    )  # fmt: skip
    assert printed == squares(1000)
    assert fanfold("logs", "k", "777").startswith("squaring ")
    told = status("k")
    assert (told["state"], told["done"], len(told["elements"])) == ("done", 1000, 20)
    assert {one["state"] for one in told["elements"]} == {"done"}
    assert all(one["usage"]["cpu"] > 0 < one["usage"]["peak"] for one in told["elements"])
    report = fanfold("report", "k")
    assert "elements 20 of 20 ended: 20 done" in report
    assert "For the next run" in report
    assert (folder / "fanfold-runs" / "k" / "logs" / "_usage.txt").stat().st_size > 100


def test_same_output_anywhere(folder, slurm, tmp_path_factory):
    """The place is an argument: the output of a run is the same here, on Slurm and on PBS."""
    for month in range(1, 13):
        rows = [f"2013,{month},{day},{day * month % 97},JFK" for day in range(1, 29)]
        text = "\n".join(["year,month,day,dep_delay,origin", *rows, ""])
        Path(f"2013-{month:02}.csv").write_text(text)
    months = sorted(path.name for path in folder.glob("*.csv"))
    command = ["run", f"{EXAMPLES / 'flights.py'}:longest_delay", *months]
    here = fanfold(*command, "--on", "local", "--name", "here")
    assert len(here.splitlines()) == 13
    assert fanfold(*command, "--on", "slurm", "--name", "there") == here
    with Cluster(tmp_path_factory.mktemp("pbs"), "pbs") as pbs, pytest.MonkeyPatch.context() as now:
        now.setenv("PATH", pbs.environment["PATH"])
        now.setenv("HOME", str(folder))  # whose profile a job of PBS reads
        assert fanfold(*command, "--on", "pbs", "--name", "elsewhere") == here


def load(name: str):
    """A function of the module of tasks."""
    return getattr(importlib.import_module("work"), name)


class Held:
    """A run of gated tasks, an element each, all of them at work."""

    def __init__(self, slurm: PrivateSlurm, folder: Path, count: int, **options: object) -> None:
        self.slurm = slurm
        self.folder = folder
        self.run = ff.run(load("picky"), range(10, 10 + count), name="held", on="slurm",
                          elements=count, **options)  # fmt: skip
        until(lambda: begun(folder) >= set(range(10, 10 + count)) - {13}, "the tasks to begin", 100)

    def element(self, number: int):
        return next(one for one in self.run.status().elements if one.number == number)

    def job(self, number: int) -> str:
        one = self.element(number)
        return f"{one.job}_{one.index}"

    def pid(self, number: int) -> int:
        lease = self.folder / "fanfold-runs" / "held" / "leases" / f"e{number}-a1.json"
        return json.loads(lease.read_text())["pid"]


def test_survives(folder, slurm):
    """S09, S10, S12, S19: of one run an element is killed, one begun again by Slurm, one cancelled
    by hand, one ended for its walltime, and a task fails. What is done is kept; no task is blamed
    but the one that failed; `retry` runs what is missing, and that alone."""
    held = Held(slurm, folder, 7, resources=ff.Resources(walltime="10m"))
    os.kill(held.pid(1), signal.SIGKILL)
    slurm.ask("scancel", held.job(2))
    slurm.expire(held.job(3))
    slurm.ask("scontrol", "requeue", held.job(5))
    until(lambda: held.element(5).state == "waiting", "the element to be put back", 100)
    slurm.ask("scontrol", "update", f"jobid={held.job(5)}", "starttime=now")
    until(lambda: held.element(5).attempt == 2, "the element to begin again", 100)
    until(lambda: held.element(3).state == "walltime", "its time to be over", 100)
    (folder / "open").touch()
    run = held.run.wait(100)
    states = {one.number: one.state for one in run.status().elements}
    assert states == {
        1: "failed", 2: "cancelled", 3: "walltime", 4: "failed", 5: "done", 6: "done", 7: "done"
    }  # fmt: skip
    assert [failure.index for failure in run.failures()] == [3]
    before = {path.name for path in folder.glob("began-*")}
    run.retry().wait(100)
    again = {path.name for path in folder.glob("began-*")} - before
    assert sorted(int(name.split("-")[1]) for name in again) == [10, 11, 12]
    results = run.results(errors="return")
    assert results[:3] == [100, 121, 144]
    assert isinstance(results[3], ValueError)
    assert results[4:] == [14 * 14, 15 * 15, 16 * 16]


def test_controller_away(folder, slurm):
    """S04: while slurmctld is down nothing is declared dead, the elements work on, and what they
    have done is collected; when it is back the run ends as if nothing had been."""
    held = Held(slurm, folder, 2)
    slurm.stop_controller()
    told = held.run.status()
    assert told.trouble
    assert {one.state for one in told.elements} <= {"running", "unknown"}
    (folder / "open").touch()
    until(lambda: held.run.status().done == 2, "the elements to end", 100)
    slurm.start_controller()
    assert held.run.wait(100).results() == [100, 121]


def test_submit_while_the_controller_is_away(folder, slurm):
    """S03: nothing is submitted twice; the run waits until Slurm takes it."""
    slurm.stop_controller()
    with subprocess.Popen(
        [sys.executable, "-m", "fanfold", "run", "work.py:square", "--range", "0-3", "--on",
         "slurm", "--name", "late"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        until((folder / "fanfold-runs" / "late" / "arrays" / "1.sh").exists, "the plan", 60)
        slurm.start_controller()
        out, err = driver.communicate(timeout=110)
    assert out == squares(4), err
    assert len(os.listdir(folder / "fanfold-runs" / "late" / "arrays")) >= 3
    jobs = slurm.ask("squeue", "-t", "all", "-h", "-o", "%F", "-n", name_of("late", folder)).stdout
    assert len(set(jobs.split())) == 1


def name_of(run: str, folder: Path) -> str:
    return json.loads((folder / "fanfold-runs" / run / "arrays" / "1.json").read_text())["name"]


def test_refused(folder, slurm):
    """S20: what Slurm does not take is told in its own words, with exit status 2, and nothing of it
    is left in the queue; the same command with a right value goes on."""
    command = ["run", "work.py:square", "1", "2", "--on", "slurm", "--name", "r"]
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", *command, "--queue", "nosuch"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid partition" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert slurm.ask("squeue", "-h").stdout == ""
    assert fanfold(*command, "--queue", "work").splitlines()[1:] == ["0\t1\t1", "1\t2\t4"]


def test_cancel_and_attach(folder, slurm):
    """Another shell sees the run, ends an element of it, and then all; the same command goes on."""
    held = Held(slurm, folder, 3)
    other = ff.Run.open(folder / "fanfold-runs" / "held")
    assert {one.state for one in other.status().elements} == {"running"}
    assert fanfold("jobs").split()[:2] == ["held", "slurm"]
    fanfold("cancel", "held", "--element", "2")
    assert held.element(2).state == "cancelled"
    assert held.element(1).state == "running"
    other.cancel()
    assert {one.state for one in other.status().elements} == {"cancelled"}
    (folder / "open").touch()
    assert other.retry().wait(100).results() == [100, 121, 144]


def test_ctrl_c_leaves_the_array_at_work(folder, slurm):
    """S29: Ctrl-C ends the waiting, not the work; the same command waits again, and submits
    nothing."""
    command = [sys.executable, "-m", "fanfold", "run", "work.py:gated", "1", "2", "--on", "slurm"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        until(lambda: begun(folder) == {1, 2}, "the tasks to begin", 100)
        driver.send_signal(signal.SIGINT)
        _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "the job goes on" in err
    (folder / "open").touch()
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert again.stdout.splitlines()[1:] == ["0\t1\t1", "1\t2\t4"]
    assert len(list(folder.glob("began-*"))) == 2


def test_after(folder, slurm):
    """A run that is to begin after another waits for all of it."""
    first = Held(slurm, folder, 2).run
    (folder / "first.txt").write_text("not yet")
    second = ff.run(load("square"), [1, 2], name="second", on="slurm", after=[first.path])
    assert {one.state for one in second.status().elements} == {"waiting"}
    (folder / "open").touch()
    assert second.wait(100).results() == [1, 4]
    assert first.status().state == "done"


def test_map_and_futures(folder, slurm):
    """`map` and `submit` on Slurm give what they give anywhere: order, seeds, errors."""
    assert ff.map(load("square"), range(50), on="slurm") == [n * n for n in range(50)]
    seeded = ff.map(load("draw"), range(4), seed=7, on="slurm")
    assert seeded == ff.map(load("draw"), range(4), seed=7, on="serial")
    with ff.ArrayExecutor(scheduler="slurm") as pool:
        futures = [pool.submit(divmod, n, 3) for n in range(4)]
        failing = pool.submit(divmod, 1, 0)
        assert [future.result(100) for future in futures] == [divmod(n, 3) for n in range(4)]
        assert isinstance(failing.exception(100), ZeroDivisionError)
