"""``fanfold doctor``: what works here is measured, and what does not is told with its remedy."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fanfold.cli.doctor import doctor_lines
from fanfold.doctor import asking, folder, machine
from fanfold.doctor.asking import Question, ask_all
from fanfold.doctor.examine import examine
from fanfold.doctor.findings import Finding
from fanfold.doctor.places import try_place
from fanfold.errors import UsageError
from fanfold.executors.registry import EXECUTORS
from fanfold.executors.threads import ThreadExecutor
from fanfold.testing import Cluster
from fanfold.testing.functions import until

FOR_EVER = "while true; do sleep 0.05; done"
NOWHERE = {"limit": 30.0, "folder": "runs", "queue": None, "account": None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """In a folder of its own, without the commands of a scheduler that may be installed."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "env", "sleep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}")
    for name in ("LMOD_CMD", "MODULESHOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def doctor(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fanfold", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | environment,
    )


def findings(done):
    return {told["name"]: told for told in json.loads(done.stdout)["findings"]}


# The whole page -----------------------------------------------------------------------------------


def test_every_place_and_everything_of_the_machine_has_a_line():
    """All that is registered, each tried; then what runs depend on. Exit status 0, unless what is
    here is broken."""
    done = doctor("--json")
    found = findings(done)
    assert [name for name, told in found.items() if told["kind"] == "place"] == list(EXECUTORS)
    assert [name for name, told in found.items() if told["kind"] == "machine"] == [
        "Python", "cores", "memory", "start method", "shared memory", "limits", "BLAS threads",
        "GPUs", "MPI launcher", "runs", "file locks", "clock of files",
    ]  # fmt: skip
    for name in ("serial", "threads", "processes"):
        assert (found[name]["state"], found[name]["remedy"]) == ("works", "")
        assert 0 < found[name]["seconds"] < 30
    assert all(told["what"] for told in found.values())
    broken = [told for told in found.values() if told["state"] == "broken"]
    assert done.returncode == (1 if broken else 0)
    assert os.listdir() == []


def test_the_page_fits_a_terminal():
    """No line but a command is wider than the terminal; what is broken is marked, in the closing
    line too; the remedy has a line of its own."""
    words = "a long sentence that goes on for a while " * 4
    lines = doctor_lines(
        [
            Finding("place", "serial", "works", "first results after 1ms", "", 0.001),
            Finding("place", "mpi", "absent", words, 'pip install "fanfold[mpi]"'),
            Finding("place", "slurm", "broken", words),
            Finding("machine", "cores", "fact", words),
            Finding("machine", "limits", "warning", words, "ulimit -n 500"),
        ],
        width=60,
    )
    page = [*map(str, lines)]
    assert max(map(len, page)) <= 60
    assert page[1].split()[:2] == ["serial", "works"]
    assert f'{" " * 20}$ pip install "fanfold[mpi]"' in page
    assert [line.split()[1] for line in page if line.startswith("!")] == ["slurm", "limits"]
    assert " ".join(page[-2:]).endswith(
        "1 of 3 places works here; broken: slurm; worth a look: limits"
    )


def test_one_place_alone():
    """Nothing else is looked at then; and a place that is not registered is a wrong command."""
    done = doctor("--place", "threads", "--place", "serial")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "Places where tasks can run"
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["threads", "serial"]
    assert "This machine" not in done.stdout
    done = doctor("--place", "moon")
    assert done.returncode == 2
    assert "on='moon' is no place that fanfold knows" in done.stderr


# Places -------------------------------------------------------------------------------------------


class Missing(ThreadExecutor):
    def __init__(self, workers):
        raise UsageError(
            'on="odd" needs oddlib, which is not installed: pip install "fanfold[odd]"'
        )


class Broken(ThreadExecutor):
    def __init__(self, workers):
        raise RuntimeError("no connection:\n  refused")


@pytest.mark.parametrize(
    ("kind", "state", "what", "remedy"),
    [
        ("ThreadExecutor", "works", "first results after", ""),
        (
            "Missing",
            "absent",
            'on="odd" needs oddlib, which is not installed',
            'pip install "fanfold[odd]"',
        ),
        ("Broken", "broken", "RuntimeError: no connection: refused", ""),
    ],
)
def test_whatever_is_registered_is_tried(kind, state, what, remedy, monkeypatch):
    """An extra that is not installed is no fault, and the command in the error is the remedy;
    every other error is told as it is."""
    monkeypatch.setitem(sys.modules, "odd_places", sys.modules[__name__])
    monkeypatch.setitem(EXECUTORS, "odd", f"odd_places:{kind}")
    [found] = try_place("odd", **NOWHERE)
    assert (found.name, found.state, found.remedy) == ("odd", state, remedy)
    assert found.what.startswith(what)


class Stuck(ThreadExecutor):
    def open(self, call):
        signal.pause()


def test_a_place_that_gives_no_result_is_broken(monkeypatch):
    """It is interrupted after its time."""
    monkeypatch.setitem(sys.modules, "odd_places", sys.modules[__name__])
    monkeypatch.setitem(EXECUTORS, "odd", "odd_places:Stuck")
    [found] = try_place("odd", **{**NOWHERE, "limit": 0.2})
    assert (found.state, found.what) == ("broken", "no result within 200ms")


def test_a_scheduler_that_is_not_here():
    """Its command is named; to load a module is proposed where there are modules."""
    for environment, remedy in (({}, ""), ({"MODULESHOME": "x"}, "module load pbs")):
        done = doctor("--place", "pbs", "--json", **environment)
        told = findings(done)["pbs"]
        assert (done.returncode, told["state"], told["remedy"]) == (0, "absent", remedy)
        assert told["what"].startswith("there is no command qsub")


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_scheduler_that_works(scheduler, here, tmp_path_factory):
    """A job has run, its limits are told, and nothing of it is left."""
    with Cluster(tmp_path_factory.mktemp("cluster"), scheduler) as cluster:
        environment = cluster.environment | {"HOME": str(here)}
        path = f"{cluster.bin}:{os.environ['PATH']}:/usr/bin:/bin"
        done = doctor("--place", scheduler, "--json", **environment | {"PATH": path})
        told = findings(done)[scheduler]
        assert told["state"] == "works", told
        assert told["seconds"] > 0
    assert os.listdir() == []


def test_a_scheduler_whose_queue_is_long(here, tmp_path_factory):
    """What the scheduler says of the job is told, the job is cancelled, and the remedy waits
    longer."""
    with Cluster(tmp_path_factory.mktemp("cluster"), "slurm", nodes=1, cores=1) as cluster:
        environment = cluster.environment
        environment["PATH"] = f"{cluster.bin}:{os.environ['PATH']}:/usr/bin:/bin"
        sbatch = ["sbatch", "--parsable", "--output=/dev/null", "--wrap", FOR_EVER]
        job = subprocess.check_output(sbatch, env=environment, text=True).strip()
        cluster.wait(job, "running")
        for limit in ("5s", "30s"):  # on a busy machine it takes long to submit a job
            done = doctor("--place", "slurm", "--timeout", limit, "--json", **environment)
            told = findings(done)["slurm"]
            if ": job " in told["what"]:
                break
        assert (done.returncode, told["state"]) == (1, "broken")
        assert re.match(r"no result within (5\.00|30\.0)s: job ", told["what"])
        assert " is waiting" in told["what"]
        assert told["remedy"] == "fanfold doctor --place slurm --timeout 10m00s"
        other = told["what"].split("job ")[1].split()[0]
        cluster.wait(other, "cancelled")
    assert os.listdir() == []


def test_the_time_is_over_while_the_scheduler_is_asked(here, tmp_path_factory):
    """Who was asking it is interrupted all the same, its job cancelled, and nothing of it left."""
    with Cluster(tmp_path_factory.mktemp("cluster"), "slurm", nodes=1, cores=1) as cluster:
        environment = cluster.environment
        for name, first in (
            ("sbatch", "touch submitted"),
            ("squeue", "[ -e submitted ] && mkdir once && sleep 4"),  # the first look at the job
        ):
            wrapper = here / "bin" / name
            wrapper.write_text(
                f'#!/bin/sh\n(cd {here} && {first})\nexec {cluster.bin}/{name} "$@"\n'
            )
            wrapper.chmod(0o755)
        environment["PATH"] = f"{os.environ['PATH']}:{cluster.bin}:/usr/bin:/bin"
        sbatch = [f"{cluster.bin}/sbatch", "--parsable", "--output=/dev/null", "--wrap", FOR_EVER]
        job = subprocess.check_output(sbatch, env=environment, text=True).strip()
        cluster.wait(job, "running")
        done = doctor("--place", "slurm", "--timeout", "2s", "--json", **environment)
        told = findings(done)["slurm"]
        assert (done.returncode, told["state"]) == (1, "broken")
        assert told["what"].startswith("no result within 2.00s")
        if ": job " in told["what"]:  # on a busy machine it takes longer to submit a job
            cluster.wait(told["what"].split("job ")[1].split()[0], "cancelled")
    assert os.listdir() == []


def test_a_scheduler_that_does_not_answer(here):
    """Its commands are here, and its own words are told."""
    for name in ("sbatch", "squeue", "scontrol"):
        (here / "bin" / name).write_text("#!/bin/sh\necho no route to host >&2\nexit 1\n")
        (here / "bin" / name).chmod(0o755)
    done = doctor("--place", "slurm", "--json")
    told = findings(done)["slurm"]
    assert (done.returncode, told["state"]) == (1, "broken")
    assert told["what"].startswith("its commands are here, but it does not answer: ")
    assert "no route to host" in told["what"]


# Questions that hang or crash ---------------------------------------------------------------------

LOOKS = """
import os, signal, subprocess, sys
from fanfold.doctor.findings import fact

def fine(name):
    print("this goes to no one's output")
    yield fact(name, "fine")

def crash():
    print("about to crash")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSEGV)

def leave():
    os._exit(4)

def raises():
    raise OSError("disk on fire")

def hang():
    open(f"hangs-{os.getpid()}", "w").close()
    subprocess.run(["sh", "-c", "while true; do sleep 0.05; done"])
"""


@pytest.fixture
def ask(here, monkeypatch):
    """Asks questions of a module of its own, with little time."""
    (here / "looks.py").write_text(LOOKS)
    monkeypatch.setenv("PYTHONPATH", str(here))
    monkeypatch.setattr(asking, "_GRACE", 0.5)

    def ask(*names, patience=60.0):
        questions = [
            Question("machine", name, f"looks:{name}", {"name": name}, 60.0)
            if name == "fine"
            else Question("machine", name, f"looks:{name}", {}, patience)
            for name in names
        ]
        return ask_all(questions, at_once=2)

    return ask


def test_one_that_crashes_is_told(ask):
    """How its process ended, and the last it said; the answers keep their order."""
    crash, leave, raises, fine = ask("crash", "leave", "raises", "fine")
    assert {crash.state, leave.state, raises.state} == {"broken"}
    assert crash.what == "its process was ended by signal SIGSEGV; the last it said: about to crash"
    assert leave.what == "its process ended with exit status 4"
    assert raises.what.endswith("the last it said: OSError: disk on fire")
    assert (fine.state, fine.what) == ("fact", "fine")


def test_one_that_hangs_is_ended(ask):
    """With all that it has started; the `nothing_left` of every test sees to that."""
    hang, fine = ask("hang", "fine", patience=1.0)
    assert (hang.state, fine.state) == ("broken", "fact")
    assert hang.what == "no answer within 1.50s: it hangs"


def test_ctrl_c_ends_what_is_asked(ask):
    """All of it, at once."""

    def interrupt():
        until(lambda: len(list(Path().glob("hangs-*"))) == 2, "two that hang")
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        ask("hang", "hang", "hang")
    interrupter.join()


# The machine --------------------------------------------------------------------------------------


def test_few_open_files_are_warned_of():
    """With the command that raises the limit, where it can be raised."""
    code = (
        "import json; from fanfold.doctor.machine import here; "
        "print(json.dumps([one for one in here() if one.name == 'limits']))"
    )
    for limit, remedy in (("-Sn", "ulimit -n "), ("-n", "")):
        script = f'ulimit {limit} 100; exec {sys.executable} -c "{code}"'
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
        [[_, _, state, what, command, _]] = json.loads(done.stdout)
        assert state == "warning"
        assert what.startswith("100 open files")
        assert command.startswith(remedy)
        assert bool(command) == bool(remedy)


def test_no_shared_memory_is_warned_of(monkeypatch, here):
    """It says where large arrays go then."""
    monkeypatch.setattr(machine, "_SHARED", str(here / "none"))
    [found] = [one for one in machine.here() if one.name == "shared memory"]
    assert found.state == "warning"
    assert "large arrays go through files in TMPDIR" in found.what


def test_launchers_are_asked_what_they_are(here, monkeypatch):
    """One that fails says so, in its own words."""
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(here / "bin"))
    monkeypatch.setenv("PATH", str(here / "bin"))
    assert [one.what for one in machine.launchers()] == ["none: there is neither mpiexec nor srun"]
    for name, script in (
        ("mpiexec", "echo 'mpiexec (OpenRTE) 4.1.4'"),
        ("srun", "echo no; exit 1"),
    ):
        (here / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (here / "bin" / name).chmod(0o755)
    [found] = machine.launchers()
    assert found.what == (f"{here}/bin/mpiexec (Open MPI 4.1.4), {here}/bin/srun (which fails: no)")


def test_the_folder_of_the_runs(here):
    """Where it is not there yet, the one that it would be made in; nothing is left in it."""
    before = os.listdir()
    runs, locks, clock = folder.look_at("a/b/runs")
    assert [runs.name, locks.name, clock.name] == ["runs", "file locks", "clock of files"]
    assert runs.what.startswith(f"{here}/here/a/b/runs would be on ")
    assert locks.what == "fcntl locks hold between processes of this machine"
    assert clock.state == "fact"
    assert os.listdir() == before


def test_a_folder_that_cannot_be_written_is_broken():
    """No run could be kept there."""
    [found] = folder.look_at("/proc/fanfold-runs")
    assert (found.state, found.remedy) == ("broken", "fanfold doctor --dir FOLDER")
    assert found.what.startswith("/proc cannot be written")


def test_locks_that_do_not_hold_are_warned_of(monkeypatch):
    """Another process that gets the lock, too, is how one sees it."""
    monkeypatch.setattr(folder, "_TRY_LOCK", "pass")
    _, locks, _ = folder.look_at("runs")
    assert locks.state == "warning"
    assert locks.what.startswith("they do not hold")


@pytest.mark.parametrize(
    ("skew", "coarse", "state", "what"),
    [
        (0.0, False, "fact", "as the clock of this machine, within 10.0ms"),
        (0.4, False, "fact", "as the clock of this machine, within 400ms"),
        (75.0, False, "warning", "it is 1m15s ahead of the clock of this machine"),
        (-2.0, True, "warning", "it is 2.00s behind the clock of this machine"),
        (0.0, True, "warning", "whole seconds only"),
    ],
)
def test_a_clock_is_judged(skew, coarse, state, what):
    """A second of difference is warned of, and a clock that tells whole seconds."""
    found = folder.clock_finding(skew, coarse)
    assert found.state == state
    assert found.what.startswith(what)


def test_only_registered_places_are_examined():
    """Any other is the caller's mistake."""
    with pytest.raises(UsageError, match="is no place that fanfold knows"):
        examine(["nowhere"], folder="runs")
