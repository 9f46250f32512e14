"""The scripted faults of the pretend cluster, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import ClassVar

import psutil
import pytest

from fanfold.errors import UsageError
from fanfold.testing.cluster import Cluster
from fanfold.testing.functions import until

JOB_1 = {"pbs": "1.pretend", "slurm": "1"}
RUN_UNTIL_OPEN = "echo $$ >> began; while [ ! -e open ]; do sleep 0.01; done; echo $$ >> ended"


class Lab:
    """A cluster, and a few words for what both dialects do."""

    SUBMIT: ClassVar = {"pbs": ["qsub", "-f"], "slurm": ["sbatch", "--parsable"]}

    def __init__(self, folder, dialect, **limits):
        self.folder = folder
        self.dialect = dialect
        self.cluster = Cluster(folder / "cluster", dialect, **{"grace": 2.0, **limits})

    @property
    def environment(self):
        return {**self.cluster.environment, "HOME": str(self.folder)}  # with no profile in it

    def call(self, *words, timeout=60, **options):
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    def print(self, *words):
        """What a command prints, which is to end well."""
        done = self.call(*words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def write(self, text, *directives):
        script = self.folder / "job.sh"
        mark = {"pbs": "#PBS", "slurm": "#SBATCH"}[self.dialect]
        head = "".join(f"{mark} {line}\n" for line in directives)
        script.write_text(f"#!/bin/sh\n{head}cd {self.folder}\n{text}\n")
        return str(script)

    def submit(self, text, *directives):
        """The id of a job."""
        return self.print(*self.SUBMIT[self.dialect], self.write(text, *directives)).strip()

    def submit_array(self, text, last=2):
        option = {"pbs": f"-J 0-{last}", "slurm": f"--array=0-{last}"}[self.dialect]
        return self.submit(text, option)

    def watch(self, job, *more):
        """What is said of a job: states by id, as the scheduler calls them."""
        if self.dialect == "pbs":
            told = json.loads(self.print("qstat", "-x", "-t", "-f", "-F", "json", job, *more))
            return {name: each["job_state"] for name, each in told["Jobs"].items()}
        told = self.print("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", job, *more)
        return dict(line.split() for line in told.splitlines())

    def run(self, job, count):
        """Wait until the scripts of that many elements run."""
        self.cluster.wait(job, "running")
        self.until("began", count)

    def until(self, name, count):
        """Wait until a file has so many lines."""
        deadline = time.monotonic() + 60
        while len(self.lines(name)) < count:
            assert time.monotonic() < deadline, self.lines(name)
            time.sleep(0.01)

    def lines(self, name):
        path = self.folder / name
        return path.read_text().split() if path.exists() else []


@pytest.fixture(params=["pbs", "slurm"])
def lab(request, tmp_path):
    lab = Lab(tmp_path, request.param)
    with lab.cluster:
        yield lab
        (tmp_path / "open").touch()


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("lost", 1, ("Socket timed out", "End of File")),
        ("garbled", 0, ("%&$",)),
        ("killed", -signal.SIGKILL, ()),
        ("silent", 0, ()),
        ("noisy", 0, ("WARNING",)),
    ],
)
def test_accepted_all_the_same(lab, kind, code, words):
    """S01: a submission is accepted, whatever becomes of its answer; the next one is answered."""
    submit = Lab.SUBMIT[lab.dialect]
    lab.cluster.fault(submit[0], kind)
    done = lab.call(*submit, lab.write("true"))
    assert done.returncode == (183 if kind == "lost" and lab.dialect == "pbs" else code)
    assert not words or any(word in done.stdout + done.stderr for word in words)
    lab.cluster.wait(JOB_1[lab.dialect])
    assert lab.submit("true") == {"pbs": "2.pretend", "slurm": "2"}[lab.dialect]


@pytest.mark.parametrize("kind", ["hangs", "stuck"])
def test_hanging(lab, kind):
    """S01: a command hangs after its job was accepted, or before, until it is killed."""
    submit, *options = Lab.SUBMIT[lab.dialect]
    lab.cluster.fault(submit, kind)
    command = [lab.cluster.bin / submit, *options, lab.write("true")]
    with subprocess.Popen(command, cwd=lab.folder, env=lab.environment) as hanging:
        until(lambda: lab.cluster.calls[submit], "the command to be heard")
        if kind == "hangs":
            lab.cluster.wait(JOB_1[lab.dialect])
        else:
            with pytest.raises(UsageError, match="no job 1"):
                lab.cluster.wait(JOB_1[lab.dialect])
        with pytest.raises(subprocess.TimeoutExpired):
            hanging.wait(0.3)  # a while in which nothing must happen
        hanging.kill()


def test_refused_polls(lab):
    """S04: polls are refused as often as scripted, and counted; jobs go on meanwhile."""
    job = lab.submit("true")
    poll = {"pbs": ["qstat", job], "slurm": ["squeue", "-j", job]}[lab.dialect]
    lab.cluster.fault(poll[0], "refused", times=3)
    refused = [lab.call(*poll).stderr for _ in range(3)]
    assert all("onnect" in said for said in refused)
    lab.cluster.wait(job)
    assert lab.watch(job)
    assert lab.cluster.calls[poll[0]] == 4


def test_faults_of_any_command_and_by_function(lab):
    """S05: a fault may meet any command, and change its answer in any way."""
    job = lab.submit("true")
    lab.cluster.wait(job)
    whole = lab.watch(job)
    lab.cluster.fault("*", lambda reply: reply._replace(out=reply.out.upper(), code=7))
    done = lab.call({"pbs": "qselect", "slurm": "sinfo"}[lab.dialect])
    assert done.returncode == 7
    assert done.stdout == done.stdout.upper()
    lab.cluster.fault("*", "truncated")
    with pytest.raises((ValueError, AssertionError)):
        assert lab.watch(job) == whole
    assert lab.watch(job) == whole
    with pytest.raises(UsageError, match="write one of refused"):
        lab.cluster.fault("*", "tired")


def test_down(lab):
    """S03, S04: while the scheduler is down nothing is accepted, and what runs goes on."""
    job = lab.submit(RUN_UNTIL_OPEN)
    lab.run(job, 1)
    lab.cluster.stop()
    assert lab.call(*Lab.SUBMIT[lab.dialect], lab.write("true")).returncode != 0
    (lab.folder / "open").touch()
    lab.cluster.wait(job)
    lab.cluster.start()
    assert lab.watch(job) == {job: {"pbs": "F", "slurm": "COMPLETED"}[lab.dialect]}
    assert len(lab.cluster.states(job)) == 1


def test_forgotten(lab):
    """S30: a job is accepted, and never exists."""
    submit = Lab.SUBMIT[lab.dialect]
    lab.cluster.fault(submit[0], "forgotten")
    job = lab.submit("touch ran")
    poll = {"pbs": ["qstat", "-x", job], "slurm": ["squeue", "-j", job]}[lab.dialect]
    assert lab.call(*poll).returncode != 0
    lab.cluster.wait(lab.submit("true"))
    assert not (lab.folder / "ran").exists()


def test_vanished(lab):
    """S06: a job that ran is not known any more, nor are its records; its processes go on."""
    job = lab.submit(RUN_UNTIL_OPEN)
    lab.run(job, 1)
    lab.cluster.forget(job)
    poll = {"pbs": ["qstat", "-x", job], "slurm": ["squeue", "-j", job]}[lab.dialect]
    assert lab.call(*poll).returncode != 0
    if lab.dialect == "slurm":
        assert lab.print("sacct", "-n", "-P", "-j", job) == ""
    (lab.folder / "open").touch()
    lab.cluster.wait(job)
    assert len(lab.lines("ended")) == 1


def test_frozen(lab):
    """S14: a job looks as if it ran for ever, though it has ended."""
    job = lab.submit_array(RUN_UNTIL_OPEN, last=1)
    lab.cluster.wait(job, "running")
    lab.cluster.freeze(job)
    before = lab.watch(job)
    (lab.folder / "open").touch()
    lab.cluster.wait(job)
    assert lab.watch(job) == before


ENDS = {
    "walltime": {"pbs": ("-29", "93"), "slurm": "TIMEOUT|0:0"},
    "memory": {"pbs": ("-27", "93"), "slurm": "OUT_OF_MEMORY|0:125"},
    "cancelled": {"pbs": ("271", "91"), "slurm": f"CANCELLED by {os.getuid()}|0:0"},
    "node": {"pbs": ("265", "93"), "slurm": "NODE_FAIL|0:0"},
    "preempted": {"pbs": ("271", "93"), "slurm": "PREEMPTED|0:0"},
}


@pytest.mark.parametrize("state", ENDS)
def test_ends(lab, state):
    """S10, S19: the scheduler ends a job, for any of its reasons, and says so."""
    job = lab.submit(RUN_UNTIL_OPEN)
    lab.run(job, 1)
    lab.cluster.end(job, state)
    lab.cluster.wait(job, state)
    if lab.dialect == "slurm":
        said = lab.print("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode").strip()
    else:
        told = lab.print("qstat", "-x", "-f", job)
        said = tuple(re.findall(r"(?m)^    (?:Exit_status|substate) = (.*)", told)[::-1])
    assert said == ENDS[state][lab.dialect]
    assert lab.lines("ended") == []


def test_walltime(lab):
    """S10: what runs longer than it asked for is ended."""
    job = lab.submit(RUN_UNTIL_OPEN, {"pbs": "-l walltime=1", "slurm": "--time=0:01"}[lab.dialect])
    lab.cluster.wait(job, "walltime")


def test_preempted(lab):
    """S12: an element is ended, and begins again under the same id; the others do not notice."""
    job = lab.submit_array(RUN_UNTIL_OPEN)
    lab.run(job, 3)
    first = lab.cluster.pids(job)
    element = {"pbs": "1[1].pretend", "slurm": "1_1"}[lab.dialect]
    lab.cluster.requeue(element)
    lab.until("began", 4)
    lab.cluster.wait(job, "running")
    second = lab.cluster.pids(job)
    assert [first[index] == second[index] for index in range(3)] == [True, False, True]
    if lab.dialect == "slurm":
        runs = lab.print("sacct", "-D", "-X", "-n", "-P", "-j", "1_1", "-o", "JobID,State")
        assert runs.split() == ["1_1|PREEMPTED", "1_1|RUNNING"]
        assert "Restarts=1" in lab.print("scontrol", "show", "job", "1_1")
    else:
        assert "run_count = 2" in lab.print("qstat", "-f", element)


def test_requeued_by_hand(tmp_path):
    """S12, S19: a user lets a job begin again, and holds it before it does."""
    lab = Lab(tmp_path, "slurm")
    with lab.cluster:
        job = lab.submit(RUN_UNTIL_OPEN)
        lab.run(job, 1)
        lab.print("scontrol", "requeuehold", job)
        lab.cluster.wait(job, "held")
        assert lab.print("squeue", "-h", "-o", "%T %r") == "PENDING job requeued in held state\n"
        (tmp_path / "open").touch()
        lab.print("scontrol", "release", job)
        lab.cluster.wait(job, "done")
        asked = ["sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", "State"]
        assert lab.print(*asked).split() == ["REQUEUED", "COMPLETED"]


def test_lost_node(tmp_path, lab):
    """S13: what ran on a lost node begins again elsewhere; what must not, has failed."""
    again = lab.submit(RUN_UNTIL_OPEN)
    no = {"pbs": "-r n", "slurm": "--no-requeue"}[lab.dialect]
    once = lab.submit(RUN_UNTIL_OPEN, no)
    lab.run(again, 1)
    lab.run(once, 2)
    for node in ("n1", "n2"):
        lab.cluster.lose_node(node)
    lab.cluster.wait(once, "node")
    lab.until("began", 3)
    lab.cluster.wait(again, "running")


@pytest.mark.parametrize("processes", ["stopped", "left"])
def test_both_copies_alive(lab, processes):
    """S13: a node is lost and comes back: both copies of an element are alive for a while, and the
    scheduler knows of the second one only."""
    job = lab.submit(RUN_UNTIL_OPEN)
    lab.run(job, 1)
    (first,) = lab.cluster.pids(job).values()
    lab.cluster.requeue(job, "node", processes)
    lab.until("began", 2)
    (second,) = lab.cluster.pids(job).values()
    assert psutil.pid_exists(first)
    (lab.folder / "open").touch()
    lab.cluster.wait(job, "done")
    if processes == "stopped":
        assert lab.lines("ended") == [str(second)]
    lab.cluster.wake()
    lab.until("ended", 2)
    assert sorted(lab.lines("ended")) == sorted([str(first), str(second)])
    assert lab.cluster.states(job) == {None: "done"}


def test_late_records(tmp_path):
    """S08: accounting comes late: it says nothing of a job for a while, and then all."""
    lab = Lab(tmp_path, "slurm")
    with lab.cluster:
        job = lab.submit("exit 3")
        lab.cluster.wait(job)
        lab.cluster.fault("sacct", "silent", times=2)
        asked = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode"]
        assert [lab.print(*asked) for _ in range(3)] == ["", "", "1|FAILED|3:0\n"]


def test_missing_log_folder(lab):
    """S17: where the folder of its log is missing, a job of Slurm fails before it begins, and one
    of PBS ends as it ends, without a log."""
    job = lab.submit("exit 3", f"-o {lab.folder}/nowhere/log")
    lab.cluster.wait(job)
    if lab.dialect == "slurm":
        asked = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode"]
        assert lab.print(*asked) == "FAILED|0:53\n"
    else:
        told = lab.print("qstat", "-x", "-f", job)
        assert "Exit_status = 3" in told
        assert "Stageout_status = 0" in told


def test_environment(tmp_path, monkeypatch):
    """``-V`` of this PBS passes nothing, without a word; ``-v`` passes what it names."""
    monkeypatch.setenv("SECRET", "1")
    lab = Lab(tmp_path, "pbs")
    with lab.cluster:
        lab.cluster.wait(lab.submit("env > seen", "-V", "-v NAMED=yes"))
    seen = dict(line.partition("=")[::2] for line in lab.lines("seen"))
    assert "SECRET" not in seen
    assert seen["NAMED"] == "yes"


HOSTILE = "$(touch canary) `touch canary` ; touch canary & '\"\\ *?[]"


def test_hostile_text(lab):
    """S21: what is hostile to a shell reaches none on the way to the scheduler and back."""
    script = lab.write("true")
    lab.call(
        *Lab.SUBMIT[lab.dialect],
        "-A",
        HOSTILE,
        "-N" if lab.dialect == "pbs" else "-J",
        HOSTILE,
        script,
    )
    lab.call({"pbs": "qdel", "slurm": "scancel"}[lab.dialect], HOSTILE)
    lab.call(*Lab.SUBMIT[lab.dialect], HOSTILE)
    lab.cluster.wait(lab.submit("true"))
    assert list(lab.folder.rglob("canary")) == []


def test_hanging_ends_with_the_cluster(tmp_path):
    """A command that hangs ends with the cluster, and says so."""
    lab = Lab(tmp_path, "slurm")
    with lab.cluster:
        lab.cluster.fault("squeue", "stuck")
        command = [lab.cluster.bin / "squeue"]
        hanging = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not lab.cluster.calls["squeue"]:
            time.sleep(0.01)
    assert "has ended" in hanging.communicate(timeout=60)[1]


def test_nothing_is_left(tmp_path):
    """With the cluster all that it started ends, and it can be begun again in the same folder."""
    for dialect in ("pbs", "slurm"):
        lab = Lab(tmp_path, dialect, nodes=1, cores=2)
        with lab.cluster:
            job = lab.submit_array("echo $$ >> pids; trap '' TERM; sleep 600 & sleep 600")
            lab.until("pids", 2)
            assert set(lab.cluster.states(job).values()) == {"running", "waiting"}
        assert not any(psutil.pid_exists(int(pid)) for pid in lab.lines("pids"))
        (tmp_path / "pids").unlink()
        assert "has ended" in lab.call(*Lab.SUBMIT[dialect], lab.write("true")).stderr


def test_long_path(tmp_path):
    """The folder may have a path that is too long for a socket."""
    lab = Lab(tmp_path / ("deep" * 30) / ("er" * 60), "slurm")
    lab.folder.mkdir(parents=True)
    with lab.cluster:
        lab.cluster.wait(lab.submit("true"))


def test_wrong_use(tmp_path):
    """What there is not to script is refused, and told."""
    with pytest.raises(UsageError, match="write pbs or slurm"):
        Cluster(tmp_path, "lsf")
    with Cluster(tmp_path / "cluster", "slurm") as cluster:
        with pytest.raises(UsageError, match="no job 7"):
            cluster.end("7")
        with pytest.raises(UsageError, match="12_3"):
            cluster.end("7[].pretend")


def test_at_a_shell(tmp_path):
    """A command is run on a pretend cluster of its own, and its exit status is that of all."""
    module = [sys.executable, "-m", "fanfold.testing.cluster"]
    line = "sbatch --parsable -o ran --wrap true && while [ ! -e ran ]; do sleep 0.01; done; exit 7"
    for words, code in ((["slurm", "sh", "-c", line], 7), (["lsf", "true"], 2), (["pbs"], 2)):
        done = subprocess.run([*module, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert ("usage: " in done.stderr) == (code == 2)
