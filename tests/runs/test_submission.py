"""Runs are submitted to a scheduler once or not at all, and again where something is missing;
whatever becomes of the scheduler, and of the process that submits."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.runs.small import SQUARES, TOTAL, Copy, Site, begun, directory, site_in, work

import fanfold as ff
from fanfold.cli import main
from fanfold.errors import (
    RunBusy,
    SchedulerDown,
    SubmitRefused,
    SubmitUnknown,
    UsageError,
)
from fanfold.runs.arrays import arrays, is_closed, job_of, read_array
from fanfold.runs.begin import preview
from fanfold.runs.cluster import Cluster
from fanfold.runs.prepare import Request
from fanfold.schedulers.pace import Clock
from fanfold.store.lease import holder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A scheduler that begins elements when the tests say so."""
    with site_in(tmp_path, monkeypatch) as site:
        site.set("hold")
        yield site


@pytest.fixture
def chores(site: Site) -> ModuleType:
    import chores

    return chores


def closed() -> list[bool]:
    return [is_closed(directory(), number) for number in directory().arrays()]


# Submission ---------------------------------------------------------------------------------------


def test_submitted(site: Site, chores: ModuleType) -> None:
    """What is submitted is on disk before, found by its name, and asked for with few questions; the
    driver has gone when the call returns."""
    run = begun(chores.square)
    assert site.calls() == ["limits", "submit"]
    (array,) = arrays(directory())
    assert job_of(directory(), 1) == "101"
    assert site.search(array.name) == ["101"]
    assert (site.folder / "101/script").read_text() == (run.path / "arrays/1.sh").read_text()
    assert holder(directory(), 0).alive is False
    status = run.status()
    assert (status.state, status.done, status.missing) == ("running", 0, TOTAL)
    assert [one.state for one in status.elements] == ["waiting", "waiting"]
    assert {one.seen.reason for one in status.elements} == {"Resources"}  # S25


def test_refused(site: Site, capfd: pytest.CaptureFixture) -> None:
    """S20: what the scheduler does not take is told in its own words, with exit status 2; the run
    is there, with nothing at work, and the same command goes on when it is taken."""
    site.set("refuse", 0)
    command = ["run", "chores.py:square", "1", "2", "--on", "slurm", "--name", "r"]
    assert main([*command, "--detach"]) == 2
    said = capfd.readouterr().err
    assert "invalid partition" in said
    assert "name another (--queue)" in said
    assert site.jobs() == []
    assert closed() == [True]
    assert ff.Run.open("r").status().state == "unfinished"
    site.unset("refuse")
    del sys.modules["chores"]  # another process would do this
    assert main([*command, "--detach"]) == 0
    assert site.jobs() == ["101"]
    assert closed() == [True, False]


def test_the_second_of_two_is_refused(site: Site, chores: ModuleType) -> None:
    """S20: nothing is half submitted: the array that was taken is cancelled, and what its elements
    had done until then is kept and told."""
    site.set("limits", "2 1")
    site.set("refuse", 1)
    submit = Site.submit

    def submit_and_work(self: Site, script: Path) -> str:
        job = submit(self, script)
        copy = Copy(directory(), 1, 0)
        copy.do(0, 1)
        copy.end("terminated")
        return job

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Site, "submit", submit_and_work)
        with pytest.raises(SubmitRefused):
            begun(chores.square, elements=4)
    assert site.jobs() == ["101"]
    assert site.cancelled() == ["101.0", "101.1"]
    assert closed() == [True, True]
    status = ff.Run.open("r").status()
    assert (status.state, status.done, status.failed, status.missing) == ("unfinished", 2, 0, 6)
    site.unset("refuse")
    begun(chores.square, elements=4)
    work(3, 4)
    assert ff.Run.open("r").results() == SQUARES


def test_no_scheduler_here(site: Site, chores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the commands of the scheduler are not installed nothing is submitted, and that is what
    is said; a run that is at work can be looked at all the same."""
    run = begun(chores.square)
    work(1, why="")
    (run.path / "arrays/1.job").unlink()
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "/nonexistent")
        with pytest.raises(UsageError, match="there is no command true here"):
            begun(chores.square, name="other")
        status = run.status()
        assert "there is no command true here" in status.trouble
        assert status.done == TOTAL
        assert "8 tasks" in run.report()
    assert ff.Run.open("other").status().state == "unfinished"
    assert [is_closed(directory("other"), 1)] == [True]
    assert site.jobs() == ["101"]


def test_down_at_submission(site: Site, chores: ModuleType) -> None:
    """S03: a scheduler that is down is asked again for ten minutes, then the call says so; the run
    stays as it was, and the same call submits it when the scheduler is there again, once."""
    site.set("down")
    with pytest.raises(SchedulerDown, match="connection refused"):
        begun(chores.square)
    assert 540 < site.later < 700  # and the seconds that it took
    assert site.calls().count("submit") < 40
    assert ff.Run.open("r").status().state == "unfinished"
    site.unset("down")
    run = begun(chores.square)
    assert site.jobs() == ["101"]
    work(2)
    assert run.wait(60).results() == SQUARES


def test_interrupted_while_it_waits(
    site: Site, chores: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S03, S29: Ctrl-C while the scheduler does not answer leaves nothing in the queue, nobody who
    seems to drive the run, and a run that the same call submits."""

    def interrupt(self: Clock, seconds: float) -> None:
        raise KeyboardInterrupt

    site.set("down")
    with monkeypatch.context() as patched:
        patched.setattr(Clock, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            begun(chores.square)
    site.unset("down")
    assert holder(directory(), 0).alive is False
    assert ff.Run.open("r").status().state == "unfinished"
    begun(chores.square)
    assert site.jobs() == ["101"]


def test_the_reply_is_lost(site: Site, chores: ModuleType) -> None:
    """S01: a job that was taken, and of which nobody heard, is found by its name, and submitted no
    second time."""
    site.set("lose")
    run = begun(chores.square)
    assert site.jobs() == ["101"]
    assert job_of(directory(), 1) == "101"
    work(1)
    assert run.wait(60).results() == SQUARES


def test_nobody_knows(site: Site, chores: ModuleType) -> None:
    """S01, S03: the reply is lost, and then the scheduler is down: the call says that the job may
    be there or not. The same call finds it, and submits nothing."""
    site.set("lose", "down")
    with pytest.raises(SubmitUnknown, match="submit it again later"):
        begun(chores.square)
    assert closed() == [False]
    assert ff.Run.open("r").status().trouble  # still down
    site.unset("down")
    run = begun(chores.square)
    assert site.jobs() == ["101"]
    assert job_of(directory(), 1) == "101"
    assert [one.job for one in run.status().elements] == ["101", "101"]
    work(1)
    assert run.wait(60).results() == SQUARES


SWEEP = """
import os, signal, sys
from pathlib import Path
import fanfold as ff
from fanfold.schedulers.registry import SCHEDULERS
import chores
from tests.runs.small import Copy, Site
from fanfold.runs.arrays import read_array
from fanfold.runs.elements import open_arrays
from fanfold.store.directory import RunDirectory

SCHEDULERS["slurm"] = "tests.runs.small:Small"
EVENTS = {"open", "os.link", "os.rename", "os.remove", "subprocess.Popen"}


def begin(name):
    return ff.run(chores.square, range(6), name=name, on="slurm", elements=4, progress=False)


def die_at(moment):
    left = moment

    def hook(event, arguments):
        nonlocal left
        if event in EVENTS and concerns(str(arguments[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def concerns(path):
    return any(part in path for part in ("/arrays/", "/journals/", "/leases/", "/site-", "true"))


def live(directory, site):
    "The jobs of arrays that have a say: the others do nothing."
    found = {}
    for array in open_arrays(directory):
        jobs = site.search(array.name)
        assert len(jobs) <= 1, (array, jobs)
        found |= {job: array for job in jobs}
    return found


moment = 0
while True:
    moment += 1
    name, folder = f"r{moment}", Path(f"site-{moment}").absolute()
    folder.mkdir()
    os.environ["SMALL_SITE"] = str(folder)
    site = Site()
    site.set("hold")
    site.set("limits", "2 1")
    child = os.fork()
    if child == 0:
        die_at(moment)
        begin(name)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    accepted = site.jobs()
    run = begin(name)
    directory = RunDirectory.open(run.path)
    of = live(directory, site)
    tasks = [task for array in of.values() for share in array.shares for part in share
             for task in part]
    assert len(tasks) == len(set(tasks)), "a task is in two jobs that are alive"
    assert set(accepted) <= set(of), "what was accepted was not taken over"
    served = set()
    for _ in range(3):
        for job, array in live(directory, site).items():
            for index in range(len(array.shares) if job not in served else 0):
                copy = Copy(directory, array.number, index)
                copy.do(*copy.shares)
                copy.end("done")
            served.add(job)
        run = begin(name)
    assert run.results() == [n * n for n in range(6)]
    assert run.history().duplicates == 0
    assert len(site.jobs()) == 2, site.jobs()
    print(moment, *accepted, flush=True)
"""


def test_killed_at_any_moment(site: Site, tmp_path: Path, start: Callable) -> None:
    """S02: the driver is killed before each thing that it does to a file or to the scheduler while
    it plans, submits and records two arrays. The same call goes on: what was accepted is taken
    over, what was not is submitted, and no task is in two jobs."""
    (tmp_path / "sweep.py").write_text(SWEEP)
    root = str(Path(__file__).parents[2])
    sweep = start("sweep.py", PYTHONPATH=os.pathsep.join([root, str(tmp_path)]))
    assert sweep.end(200) == 0, sweep.out + sweep.err
    lines = sweep.out.splitlines()
    assert len(lines) > 30
    assert {len(line.split()) for line in lines} == {1, 2, 3}  # none, one and both were accepted


def test_limits(site: Site, chores: ModuleType) -> None:
    """S15: what the site does not take as one array is submitted as several, each from index 0 on;
    the elements of the run are numbered through."""
    site.set("limits", "5 2")
    run = begun(chores.square, elements=8)
    assert [(array.first, len(array.shares)) for array in arrays(directory())] == [
        (1, 3), (4, 3), (7, 2),
    ]  # fmt: skip
    assert site.jobs() == ["101", "102", "103"]
    assert [(one.number, one.job, one.index) for one in run.status().elements][2:5] == [
        (3, "101", 2), (4, "102", 0), (5, "102", 1),
    ]  # fmt: skip
    site.begin("102", 0)
    assert site.wait("102", 0) == 0
    assert [outcome.index for outcome in run.outcomes()] == [3]
    work(1, 2, 3)
    assert run.wait(60).results() == SQUARES


@pytest.mark.parametrize(
    ("limits", "elements"), [("1 0", [1, 1, 1, 1]), ("1000 999 3", [3]), ("2 99 3", [2, 1])]
)
def test_small_limits(site: Site, chores: ModuleType, limits: str, elements: list[int]) -> None:
    """S15, S16: an array of one element is a plain job, without an index; and there are never more
    elements than the site takes jobs."""
    site.set("limits", limits)
    begun(chores.square, elements=4)
    assert [len(array.shares) for array in arrays(directory())] == elements
    for array in arrays(directory()):
        script = directory().array(array.number, "sh").read_text()
        assert ("--array" in script) == (len(array.shares) > 1)
    assert {path.parent.name for path in site.folder.glob("*/job.json")} == {*site.jobs()}


def test_dry_run(site: Site, chores: ModuleType) -> None:
    """What is previewed is what would be submitted; nothing is written, and only the limits of the
    site are asked for."""
    site.set("limits", "3 2")
    cluster = Cluster("slurm", ff.Resources(walltime="1h"), 4)
    options = {"on": "slurm", "workers": None, "cluster": cluster.told()}
    request = Request(chores.square, range(TOTAL), Path("fanfold-runs"), options, "r")
    scripts = preview(request)
    assert site.calls() == ["limits"]
    assert not Path("fanfold-runs").exists()
    begun(chores.square, elements=4, resources=ff.Resources(walltime="1h"))
    made = [directory().array(number, "sh").read_text() for number in (1, 2)]
    assert [_without_tokens(text) for text in scripts] == [_without_tokens(text) for text in made]


def _without_tokens(script: str) -> str:
    return re.sub("(?<=--job-name=r-)[0-9a-f]{12}", "TOKEN", script)


# Again --------------------------------------------------------------------------------------------


def test_retry(site: Site, chores: ModuleType) -> None:
    """S09: `retry` submits what failed and what is missing, and nothing else; the elements of the
    new array are other elements of the run."""
    run = begun(chores.picky)  # 3 fails
    site.begin("101", 0)
    assert site.wait("101", 0) == 1
    site.say("101", 1, "node")
    assert run.wait(60).status().state == "unfinished"
    assert [failure.index for failure in run.failures()] == [3]
    Path("good").touch()
    run.retry()
    second = read_array(directory(), 2)
    assert second.shares == [[range(3, 6)], [range(6, 8)]]
    assert second.elements == range(3, 5)
    assert (run.status().done, run.status().missing) == (3, 5)
    work(2)
    assert run.wait(60).results() == SQUARES
    assert run.retry().status().state == "done"
    assert site.jobs() == ["101", "102"]


def test_retry_with_more(site: Site, chores: ModuleType) -> None:
    """S10: `retry` may ask for other resources than the run was begun with."""
    run = begun(chores.square, resources=ff.Resources(walltime="1m"))
    site.lose("101", "walltime")
    assert {one.state for one in run.wait(60).status().elements} == {"walltime"}
    run.retry(resources=ff.Resources(walltime="2h", cores=2))
    assert read_array(directory(), 2).resources.walltime == 7200
    assert "--time=02:00:00" in (run.path / "arrays/2.sh").read_text()


def test_attach(site: Site, chores: ModuleType) -> None:
    """The same call while the array is at work follows it: nothing is submitted, nobody is
    disturbed, and both see all results."""
    run = begun(chores.square)
    copy = Copy(directory(), 1, 0)
    copy.do(0, 1)
    other = begun(chores.square)
    assert site.jobs() == ["101"]
    assert site.cancelled() == []
    copy.do(2, 3)
    copy.end("done")
    copy = Copy(directory(), 1, 1)
    copy.do(*copy.shares)
    copy.end("done")
    assert run.wait(60).results() == other.wait(60).results() == SQUARES


def here(task: Callable[[int], int]) -> object:
    return begun(task, on="serial")


def all_again(task: Callable[[int], int]) -> object:
    return ff.Run.open("r").retry(all=True)


def other_inputs(task: Callable[[int], int]) -> object:
    return ff.run(task, [7, 8, 9], name="r", on="slurm")


@pytest.mark.parametrize("again", [here, all_again, other_inputs])
def test_busy(site: Site, chores: ModuleType, again: Callable) -> None:
    """R04: while elements are at work nobody else does their tasks: who wants to is refused, is
    told which job it is and what to do, and leaves no trace."""
    begun(chores.square)
    with pytest.raises(RunBusy) as caught:
        again(chores.square)
    said = str(caught.value)
    assert "job 101 on slurm" in said
    assert "fanfold cancel" in said
    assert "kill" not in said
    assert site.jobs() == ["101"]
    assert closed() == [False]
    assert holder(directory(), 0).alive is False
    assert ff.Run.open("r").status().why == "running"
    work(1)
    assert ff.Run.open("r").wait(60).results() == SQUARES


@pytest.mark.parametrize("on", ["slurm", "serial"])
def test_steal(site: Site, chores: ModuleType, on: str) -> None:
    """``steal`` ends what is at work, and what it had done is kept; it goes on even where the
    scheduler cannot be asked, for nothing that is still done counts."""
    begun(chores.square)
    copy = Copy(directory(), 1, 0)
    copy.do(0, 1)
    if on == "serial":
        site.set("down")
    run = begun(chores.square, on=on, steal=True)
    copy.do(2, 3, times=-1)
    copy.end("done")
    assert closed()[0] is True
    if on == "slurm":
        assert site.cancelled() == ["101.0", "101.1"]
        assert site.jobs() == ["101", "102"]
        work(2)
    assert run.wait(60).results() == SQUARES


def test_after(site: Site, chores: ModuleType) -> None:
    """A run that is to begin after another waits for the jobs of it that are at work, and for no
    others: a scheduler may not know them any more."""
    first = begun(chores.square)

    def dependency(name: str) -> list[str]:
        run = begun(chores.square, name=name, after=[first.path])
        text = (run.path / "arrays/1.sh").read_text()
        assert read_array(directory(name), 1).after == [str(first.path)]
        return re.findall("--dependency=(.*)", text)

    assert dependency("second") == ["afterok:101"]
    work(1)
    assert dependency("third") == []
