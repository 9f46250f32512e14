"""An element of a job array on its node: what it does, and what is left however it ends."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.runs.small import Site, site_in

import fanfold as ff
from fanfold.errors import RunError, UsageError, WorkerDied
from fanfold.runs.arrays import Array, close_array
from fanfold.runs.asked import Asked
from fanfold.runs.cluster import _job_name
from fanfold.runs.elements import Watched
from fanfold.runs.jobscript import job_script
from fanfold.runs.recorder import Recorder, Tally
from fanfold.runs.sealed import seal
from fanfold.schedulers.base import Job
from fanfold.schedulers.slurm import Slurm
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease
from fanfold.tasks import Activity, Report
from fanfold.testing.functions import until

QUICK_FIRST = [0, 2, 4, 1, 3, 5]  # of `half`: two workers stand at the gate with odd ones
TWO_CORES = ff.Resources(cores=2)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A scheduler that begins elements when the tests say so."""
    with site_in(tmp_path, monkeypatch) as site:
        site.set("hold")
        yield site


def submitted(task: str, inputs: list[int], **options: object) -> ff.Run:
    import chores

    options = {"elements": 1, **options}
    return ff.run(getattr(chores, task), inputs, name="r", on="slurm", **options)


def element(run: ff.Run, number: int = 1) -> Watched:
    return run.status().elements[number - 1]


def at_the_gate(run: ff.Run, done: int) -> set[int]:
    """The two tasks that its two workers stand at the gate with, by its heartbeat, when the first
    ``done`` are: a heartbeat may be older, and tell of one of those."""
    there: set[int] = set()

    def holds() -> bool:
        one = element(run)
        tasks = [worker.task for worker in one.workers]
        there.clear()
        there.update(task for task in tasks if task is not None and task >= done)
        return one.done == done and len(there) == 2

    until(holds, "two tasks to stand at the gate")
    return there


def python_of(run: ff.Run, number: int = 1, attempt: int = 1) -> int:
    """The process that drives the element."""
    lease = RunDirectory.open(run.path).lease(number, attempt)
    return int(json.loads(lease.read_text())["pid"])


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody has asked how
    except psutil.NoSuchProcess:
        return True


def begun() -> Counter[int]:
    """How often each task was begun."""
    return Counter(int(path.name.split("-")[1]) for path in Path().glob("began-*"))


def log_of(run: ff.Run, index: int = 0) -> str:
    return (run.path / "logs" / f"array-1.{index}").read_text()


# Its work -----------------------------------------------------------------------------------------


def test_a_share(site: Site) -> None:
    """An element does its share and no other, in the folder where the run was begun; what its tasks
    print is kept apart from what it says itself, and it tells what it asked for and used."""
    run = submitted("square", list(range(6)), elements=2, resources=TWO_CORES)
    site.begin("101", 1)
    assert site.wait("101", 1) == 0
    told = log_of(run, 1)
    assert (
        "  job       101, index 1: element 2 of r\n  project   not said\n  ended     done" in told
    )
    assert told.endswith("\nfanfold: element 2 is done\n")
    assert [(outcome.index, outcome.value) for outcome in run.outcomes()] == [
        (3, 9), (4, 16), (5, 25),
    ]  # fmt: skip
    one = element(run, 2)
    assert (one.state, one.done, one.tasks, one.attempt) == ("done", 3, 3, 1)
    assert one.usage["cores"] == 2
    assert one.usage["cpu"] > 0
    printed = "".join(path.read_text() for path in run.path.glob("logs/e2-a1-w*.out"))
    assert sorted(printed.splitlines()) == ["squaring 3", "squaring 4", "squaring 5"]


def test_no_environment(site: Site, tmp_path: Path) -> None:
    """S28: the script needs nothing of the environment: no PATH, no HOME, no USER, and a shell that
    ends at anything that is not set."""
    run = submitted("square", [3])
    script = run.path / "arrays/1.sh"
    done = subprocess.run(["env", "-i", "/bin/sh", "-u", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "fanfold: element 1 is done")
    assert run.results() == [9]


def test_no_secrets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """X09: of the environment nothing but the path of Python's modules goes into the script."""
    monkeypatch.setenv("SERVICE_TOKEN", "canary-1")
    monkeypatch.setenv("PYTHONPATH", "/a b:/c")
    run = submitted("square", [3])
    text = (run.path / "arrays/1.sh").read_text()
    assert "canary-1" not in text
    assert "PYTHONPATH='/a b:/c'; export PYTHONPATH\n" in text
    told = [path.read_bytes() for path in run.path.rglob("*") if path.is_file()]
    assert not [data for data in told if b"canary-1" in data]


# Ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whom",
    ["all its processes", "itself", "its workers, then itself", "its launcher and workers, then"],
)
def test_terminated(site: Site, whom: str) -> None:
    """S10, S19: ended by the scheduler, an element says so, and which tasks it was at. What is done
    is kept, no task is blamed, and the next copy does what is left and nothing else."""
    run = submitted("half", QUICK_FIRST, resources=TWO_CORES, retries=0)
    site.begin("101", 0)
    tasks = at_the_gate(run, 3)
    driver = psutil.Process(python_of(run))
    if whom == "all its processes":
        os.killpg(site.pid("101", 0), signal.SIGTERM)
    elif whom == "itself":
        driver.terminate()
    else:
        (launcher,) = driver.children()
        workers = launcher.children()
        if "launcher" in whom:
            launcher.kill()  # so that nobody knows how the workers ended
        driver.suspend()  # so that it hears of all at once, however long it takes here
        for worker in workers:
            worker.kill()
        until(lambda: all(map(_has_ended, workers)), "the workers to end")
        driver.terminate()
        driver.resume()
    assert site.wait("101", 0) == 143
    one = element(run)
    assert (one.why, one.done, one.failed) == ("terminated", 3, 0)
    if "workers" not in whom:  # else new ones may have begun what was left
        assert set(one.running) == tasks
    assert "ended (terminated): what is done is kept" in log_of(run)
    assert "Traceback" not in log_of(run)
    assert run.failures() == []

    Path("open").touch()
    site.begin("101", 0)
    assert site.wait("101", 0) == 0
    assert run.results() == [n * n for n in QUICK_FIRST]
    again = {QUICK_FIRST[task]: 1 + (task in tasks) for task in (3, 4, 5)}
    assert begun() == again or "workers" in whom
    assert run.failures() == []


def test_what_runs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """S10: a task whose end was recorded is not told as one that ran when the element was ended,
    though it ran at the last heartbeat."""
    run = submitted("square", [0, 1])
    directory = RunDirectory.open(run.path)
    lease = Lease.take(directory, 1)
    about = {"run": Asked.read(directory).id, "inputs": 1, "code": {}, "anew": False,
             "session": 1, "array": 1}  # fmt: skip
    workers = [Activity("worker 0", 0, 0.1), Activity("worker 1", 1, 0.1)]
    recorder = Recorder(
        directory, lease, about, Tally(0, 0), shown=str, workers=lambda: workers, meter=dict
    )
    until(lambda: len(element(run).workers) == 2, "a heartbeat")
    monkeypatch.setattr("fanfold.runs.recorder._BEAT", 60.0)  # it was the last
    recorder(Report(0, [0], 0.1, worker="worker 0"))
    recorder.close("terminated")
    lease.release()
    assert (element(run).done, element(run).running) == (1, (1,))


def test_walltime(site: Site) -> None:
    """S10, S11: no signal comes, or too late: an element ends itself before its walltime is over,
    counted from the begin of the job; what is done is kept, what runs is told and not blamed."""
    run = submitted(
        "half", QUICK_FIRST, resources=ff.Resources(cores=2, walltime="10m"), retries=0
    )  # fmt: skip
    argv = [sys.executable, "-P", "-m", "fanfold.runs.element", str(run.path), "1"]
    for left in (13.0, 20.0, 60.0):  # a busy machine may need long until two tasks run
        over = time.time() + left  # what came before Python took the rest
        environment = {**os.environ, "FANFOLD_BEGAN": f"{over - 600}"}
        done = subprocess.run(argv, env=environment, stderr=subprocess.PIPE, text=True, timeout=90)
        assert time.time() < over  # it had ten seconds to end
        assert done.returncode == 143
        assert "ended (walltime)" in done.stderr
        if (element(run).done, len(element(run).running)) == (3, 2):
            break
    assert "  ended     out of time, exit status 143, 6 tasks\n" in done.stderr
    assert "ended for running too long: what it used is the least that it needed" in done.stderr
    one = element(run)
    assert (one.state, one.done, one.failed, len(one.running)) == ("walltime", 3, 0, 2)
    assert {*one.running} < {3, 4, 5}
    assert run.failures() == []


def test_killed(site: Site) -> None:
    """S10: an element that is killed says nothing. What it had recorded counts; the scheduler tells
    how it ended; `retry` does what is missing, and that alone."""
    run = submitted("half", QUICK_FIRST, resources=TWO_CORES)
    site.begin("101", 0)
    tasks = at_the_gate(run, 3)
    workers = psutil.Process(python_of(run)).children(recursive=True)
    os.kill(python_of(run), signal.SIGKILL)
    assert site.wait("101", 0) == 137
    assert psutil.wait_procs(workers, 60)[1] == []  # they do not outlive it
    one = element(run)
    assert (one.why, one.done, one.failed, one.state) == ("", 3, 0, "failed")
    assert run.status().state == "unfinished"
    Path("open").touch()
    site.unset("hold")
    assert run.retry().wait(60).results() == [n * n for n in QUICK_FIRST]
    assert begun() == {QUICK_FIRST[task]: 1 + (task in tasks) for task in (3, 4, 5)}


def test_a_worker_is_killed(site: Site) -> None:
    """L01: the death of a worker is its task's: the others are done, the element ends as one that
    has a failure, and says which."""
    run = submitted("fatal", [0, 1, 2, 3])
    site.begin("101", 0)
    assert site.wait("101", 0) == 1
    one = element(run)
    assert (one.state, one.done, one.failed) == ("failed", 3, 1)
    results = run.results(errors="return")
    assert isinstance(results[1], WorkerDied)
    assert [results[0], *results[2:]] == [0, 4, 9]
    (failure,) = run.failures()
    assert (failure.index, failure.death.signal) == (1, "SIGKILL")


@pytest.mark.parametrize("seed", range(3))
def test_terminated_at_any_moment(site: Site, seed: int) -> None:
    """S10: whenever an element is ended, while it begins, works or ends: no task is blamed, no
    result is lost that was told, and the next copy ends the work."""
    run = submitted("square", list(range(40)), resources=TWO_CORES)
    site.begin("101", 0)
    time.sleep(random.Random(seed).uniform(0.1, 0.9))  # the moment: no synchronisation
    site.cancel("101", [0])
    site.wait("101", 0)
    assert "Traceback" not in log_of(run)
    told = {outcome.index for outcome in run.outcomes() if outcome.ok}
    assert run.failures() == []
    site.begin("101", 0)
    assert site.wait("101", 0) == 0
    assert run.results() == [n * n for n in range(40)]
    assert run.history().duplicates == 0
    assert len(told) <= 40


# Two copies ---------------------------------------------------------------------------------------


def test_begun_again(site: Site) -> None:
    """S12: a job that is begun again while its first copy lives goes on where that one stands, with
    files of its own. The first finds out, stops, and writes nothing more; no log is overwritten."""
    run = submitted("half", QUICK_FIRST, resources=TWO_CORES)
    site.begin("101", 0)
    tasks = at_the_gate(run, 3)
    first = psutil.Process(python_of(run))
    site.begin("101", 0)
    until(lambda: _has_ended(first), "the first to stop")
    Path("open").touch()
    until(lambda: "is done" in log_of(run), "the second to end")
    said = log_of(run)
    assert "another driver has taken over this run" in said
    assert "element 1 is done" in said
    assert "Traceback" not in said
    assert run.results() == [n * n for n in QUICK_FIRST]
    assert begun() == {QUICK_FIRST[task]: 1 + (task in tasks) for task in (3, 4, 5)}
    assert (element(run).attempt, element(run).done) == (2, 6)
    names = {path.name for path in (run.path / "logs").iterdir()}
    assert {"e1-a1-w0.out", "e1-a2-w0.out"} <= names
    journal = (run.path / "journals/e1-a1.journal").read_text()
    assert '"is":"end"' not in journal


def test_a_stale_copy(site: Site) -> None:
    """S13: a node that was lost comes back, with tasks that end there: others have done them by
    then. The stale copy stops, its word is "superseded", and the results are those of the others.
    """
    run = submitted("signed", [1, 2, 3], resources=TWO_CORES)
    site.begin("101", 0)
    at_the_gate(run, 0)
    driver = psutil.Process(python_of(run))
    stopped = [driver, *driver.children(recursive=True)]
    for process in stopped:
        process.suspend()
    site.say("101", 0, "node")
    site.unset("hold")
    Path("open").touch()
    assert run.retry().wait(60).results() == ["102"] * 3
    for process in reversed(stopped):
        process.resume()
    assert site.wait("101", 0) == 2
    assert "another driver has taken over this run" in log_of(run)
    assert "Traceback" not in log_of(run)
    assert run.results() == ["102"] * 3
    assert run.history().duplicates == 0
    assert run.status().done == 3


def test_at_once(site: Site) -> None:
    """S12: of two copies that begin at the same moment one does the work, whichever; the other
    takes nothing away from it."""
    run = submitted("square", list(range(8)))
    argv = [sys.executable, "-P", "-m", "fanfold.runs.element", str(run.path), "1"]
    copies = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [copy.communicate(timeout=60)[1] for copy in copies]
    assert 0 in [copy.returncode for copy in copies], said
    assert "Traceback" not in "".join(said)
    assert run.results() == [n * n for n in range(8)]
    assert run.history().duplicates == 0


def test_closed_before_it_begins(site: Site) -> None:
    """S13: an element that begins when others have taken over its work does none, and says so."""
    run = submitted("square", [1, 2])
    close_array(RunDirectory.open(run.path), 1)
    site.begin("101", 0)
    assert site.wait("101", 0) == 2
    assert "others do the work of array 1 now" in log_of(run)
    assert list(run.path.glob("journals/e1-*")) == []


# It cannot begin ----------------------------------------------------------------------------------


def change_plan(run: ff.Run, **told: object) -> None:
    path = run.path / "arrays/1.json"
    plan = {**json.loads(path.read_text()), **told}
    del plan["check"]
    path.write_text(json.dumps(seal(plan)))


def wrong_python(run: ff.Run) -> None:
    change_plan(run, python="3.9.18")


def changed_function(run: ff.Run) -> None:
    chores = Path("chores.py")
    # of another length: by time and length Python knows that its byte code is old
    chores.write_text(chores.read_text().replace("return n * n", "return n * n * n"))


def damaged_function(run: ff.Run) -> None:
    (run.path / "function.pickle").write_bytes(b"nothing")


def module_gone(run: ff.Run) -> None:
    Path("chores.py").unlink()


def earlier_run_gone(run: ff.Run) -> None:
    change_plan(run, after=[str(run.path.parent / "nosuch")])


def earlier_run_not_done(run: ff.Run) -> None:
    ff.run(lambda n: 1 // n, [1, 0], name="earlier", on="serial").wait()
    change_plan(run, after=[str(run.path.parent / "earlier")])


CANNOT: dict[Callable[[ff.Run], object], str] = {
    wrong_python: r"this node runs Python 3\.\d+\.\d+ .*, and the run was made with 3\.9\.18: name "
    "the right one with --python",
    changed_function: "the run r was begun with something else: the function chores.square has",
    damaged_function: "function.pickle is damaged",
    module_gone: "the function of r cannot be loaded here .*No module named 'chores'",
    earlier_run_gone: "there is no run in .*nosuch",
    earlier_run_not_done: "to begin after earlier, of which 1 of 2 tasks are done: nothing was run",
}


@pytest.mark.parametrize("wrong", CANNOT, ids=lambda wrong: wrong.__name__)
def test_cannot_begin(site: Site, wrong: Callable[[ff.Run], object]) -> None:
    """S18, S26: an element that cannot begin says why, in its log, in the status and to who waits;
    no task is blamed, and nothing has run."""
    run = submitted("square", [1, 2])
    wrong(run)
    site.begin("101", 0)
    assert site.wait("101", 0) == 2
    said = " ".join(log_of(run).split())
    assert re.search(CANNOT[wrong], said), said
    assert "Traceback" not in said
    one = element(run)
    assert (one.state, one.why, one.attempt) == ("failed", "error", 1)
    assert re.search(CANNOT[wrong], " ".join(one.message.split()))
    assert (run.status().failed, run.status().missing) == (0, 2)
    with pytest.raises(RunError) as caught:
        run.wait(60)
    assert re.search(CANNOT[wrong], " ".join(str(caught.value).split()))


@pytest.mark.parametrize(
    ("arguments", "index", "words"),
    [
        (["nosuch", "1"], "0", "there is no run in"),
        (["r", "9"], "0", "9.json is missing"),
        (["r", "1"], "7", "SLURM_ARRAY_TASK_ID is 7, and array 1 has fewer elements"),
    ],
)
def test_wrong_arguments(site: Site, arguments: list[str], index: str, words: str) -> None:
    """An element that there is not says so in a sentence, with exit status 2."""
    run = submitted("square", [1, 2])
    folder, number = arguments
    argv = [sys.executable, "-P", "-m", "fanfold.runs.element", run.path.parent / folder, number]
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": index}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# Hostile names ------------------------------------------------------------------------------------

HOSTILE = [
    "a b", "it's", 'say "no"', "$(touch CANARY)", "`touch CANARY`", "; touch CANARY;",
    "&& touch CANARY", "| touch CANARY", "> CANARY", "$HOME", "%j %a", "*", "?[a-z]", "~", "-rf",
    "--", "#SBATCH --wrap=x", "é", "\\", "\\n", "a\nb", "a\n#SBATCH --comment=x\ntouch CANARY\n",
    "'; touch CANARY; '", "!!",
]  # fmt: skip
SAYS = """#!/bin/sh
for word in "$PWD" "$PYTHONPATH" "$@"; do printf '%s\\0' "$word"; done > "${0%/*}/said"
"""


class AnyPath(Slurm):
    """A scheduler that has a file for the output wherever it is asked for."""

    def header(self, job: Job) -> list[str]:
        return []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """S21, X10: whatever the folder of the run, that of the tasks, the path of Python's modules and
    Python itself are called: a shell that runs the script reads nothing else into them; or the
    scheduler cannot have such a name, and that is said before anything is submitted."""
    monkeypatch.chdir(tmp_path)
    there = tmp_path / text.replace("/", "_")
    there.mkdir()
    (there / "python").write_text(SAYS)
    (there / "python").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(there))
    directory = RunDirectory.create(there / "runs", "r")
    directory.write_text("run.json", "{}")
    array = Array(
        1, 1, "slurm", _job_name(text), 1, [[range(2)]], 1, {}, {}, ff.Resources(), "3.11.7"
    )
    say = partial(job_script, directory, array, folder=str(there), python=str(there / "python"))
    if "\n" in text:  # Slurm has no file for the output there; others may
        with pytest.raises(UsageError, match="has a line end in it"):
            say(Slurm())
        script = say(AnyPath())
    else:
        script = say(Slurm())
    (tmp_path / "script").write_text(script)
    done = subprocess.run(["/bin/sh", "script"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    said = (there / "said").read_text().split("\0")[:-1]
    assert said == [
        str(there), str(there), "-P", "-m", "fanfold.runs.element", str(directory.path), "1",
    ]  # fmt: skip
    assert not [path for path in (tmp_path / "CANARY", there / "CANARY") if path.exists()]


@pytest.mark.parametrize("text", [*HOSTILE, "", "ü" * 99, "x" * 999])
def test_job_names(text: str) -> None:
    """S21: the name of a job is one that any scheduler takes, and no other job has."""
    names = {_job_name(text), _job_name(text)}
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name) for name in names)


def test_setup_lines(site: Site) -> None:
    """The lines of ``--setup`` are the user's own shell, and come before Python is looked for; the
    Python is the one that was asked for."""
    run = submitted("square", [4], setup=["PATH=$PWD/bin:$PATH", "export GREETING='a b'"],
                    python="mypython")  # fmt: skip
    Path("bin").mkdir()
    Path("bin/mypython").write_text(
        f'#!/bin/sh\necho "$GREETING"\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    Path("bin/mypython").chmod(0o755)
    site.begin("101", 0)
    assert site.wait("101", 0) == 0
    assert log_of(run).splitlines()[0] == "a b"
    assert run.results() == [16]
