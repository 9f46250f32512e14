"""What the cluster part of the course says beside its sessions: moments, batches, and shells."""

import re
import subprocess
import sys

import pytest
from tests.learn.exercises import ROOT

from fanfold.testing.functions import until

EXAMPLES = ROOT / "examples" / "learn"


@pytest.fixture
def call(folder):
    """Runs a command in the folder of the exercise: (exit status, all that it printed)."""

    def call(environment, *command):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stdout

    return call


# E5 -----------------------------------------------------------------------------------------------


def states(told):
    """The states in the table of qstat."""
    return [line.split()[-2] for line in told[1].splitlines()[2:]]


def test_an_array_while_it_runs(pbs, folder, call):
    """E5: `qstat -t` has a line for each subjob, `qstat -f` the counts by state."""
    script = (EXAMPLES / "e05_array.pbs").read_text()
    patient = script.replace("sleep 1 ", "until [ -e go ]; do sleep 0.05; done ")
    assert patient != script
    (folder / "patient.pbs").write_text(patient)
    assert call(pbs, "qsub", "patient.pbs") == (0, "1[].pretend\n")
    until(lambda: states(call(pbs, "qstat", "-t", "1[]")) == ["B", *["R"] * 10], "all to run")
    _, one = call(pbs, "qstat", "1[4]")
    assert one.splitlines()[2].startswith("1[4].pretend")
    _, told = call(pbs, "qstat", "-f", "1[]")
    assert "array_state_count = Queued:0 Running:10 Exiting:0 Expired:0" in told
    status, told = call(pbs, "fanfold", "jobs", "1[]")
    assert (status, told.splitlines()[0]) == (1, "job 1[]: 10 elements: 10 running")
    (folder / "go").touch()
    status, told = call(pbs, "fanfold", "jobs", "--wait", "1[]")
    assert (status, told.splitlines()[0]) == (0, "job 1[]: 10 elements: 10 done")
    for number in range(1, 11):
        log = folder / f"Demo{number}" / f"job{number}.log"
        assert log.read_text() == f"This is job number {number} in the array\n"


def test_the_same_script_on_slurm(session_slurm, slurm, folder, call):
    """E5, E6: translated and submitted by fanfold, an array of PBS does the same on Slurm."""
    status, told = call(slurm, "fanfold", "submit", "examples/learn/e05_array.pbs", "--on", "slurm")
    job = told.splitlines()[-1]
    assert (status, job.isdigit()) == (0, True)
    status, told = call(slurm, "fanfold", "jobs", "--wait", job)
    assert (status, told.splitlines()[0]) == (0, f"job {job}: 10 elements: 10 done")
    assert re.fullmatch(r"  \[7\] done, exit status 0, on n\d, .*", told.splitlines()[7])
    log = folder / "Demo7" / "job7.log"
    assert log.read_text() == "This is job number 7 in the array\n"


# E7 -----------------------------------------------------------------------------------------------


def test_the_summary_on_slurm(session_slurm, slurm, call):
    """E7: each element ends its log with what it asked for and used, on Slurm as on PBS."""
    asked = "--elements 2 --cores 2 --memory 1GB --walltime 1h --name used --quiet"
    target = "examples/learn/e07_summary.py:work"
    status, told = call(
        slurm, "fanfold", "run", target, "10", "20", "30", "--on", "slurm", *asked.split()
    )
    assert status == 0, told
    for element, tasks in ((1, 2), (2, 1)):
        log = ""

        def summed_up(element=element):  # which it does when its last result is already there
            nonlocal log
            _, log = call(slurm, "fanfold", "logs", "used", "--element", str(element))
            return "Walltime:" in log

        until(summed_up, f"the summary of element {element}")
        rows = dict(line.split(None, 1) for line in log.splitlines())
        assert re.fullmatch(rf"\d+, index {element - 1}: element {element} of used", rows["job"])
        assert rows["ended"] == f"done, exit status 0, {tasks} task{'s' if tasks > 1 else ''}"
        assert re.fullmatch(r".* of 1h00m00s \(<?\d+ %\)", rows["walltime"])
        assert re.fullmatch(r"\d\.\d of 2 \(\d+ %\)", rows["cores"])
        assert re.fullmatch(r".* of 1\.0 GB \(<?\d+ %\)", rows["memory"])
        assert rows["Walltime:"].endswith(
            "of the 1h00m00s asked for: with 6m00s a job starts sooner."
        )


# E9 -----------------------------------------------------------------------------------------------


def test_what_no_node_has_waits_for_ever(session_slurm, slurm, call):
    """E9: twenty cores on one node of four: accepted, and only the reason tells."""
    _, said = call(slurm, "sbatch", "--parsable", "examples/learn/e09_slurm.sbatch")
    job = said.strip()
    until(
        lambda: call(slurm, "fanfold", "jobs", job)[1].endswith("  waiting, PartitionConfig\n"),
        "Slurm to say why",
    )


def test_a_shell_on_a_node(session_slurm, slurm, folder):
    """E8, E9: `fanfold shell` gives a shell within an allocation, on its node; `exit` ends both."""
    at_a_terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])"]
    done = subprocess.run(
        [*at_a_terminal, "fanfold", "shell", "--on", "slurm", "--cores", "2", "--walltime", "5m"],
        input=b'echo "on $SLURMD_NODENAME with $SLURM_CPUS_PER_TASK cores"; exit\n',
        cwd=folder,
        env=slurm | {"SHELL": "/bin/sh"},
        stdout=subprocess.PIPE,
        timeout=100,
    )
    assert re.search(rb"on n\d with 2 cores", done.stdout), done.stdout


# E10 ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mpi")
def test_a_batch_of_ranks(session_slurm, slurm, folder, call):
    """E10: in a batch job there are as many ranks as it has tasks; none is said twice."""
    script = "examples/learn/e10_pi_ranks.sbatch"
    call(slurm, "sbatch", "--ntasks=3", "--wait", script)
    told = (folder / "pi.log").read_text()
    assert [line.split(":")[0] for line in told.splitlines()[:3]] == ["rank 0", "rank 1", "rank 2"]
    assert re.search(r"pi = 3\.14\d+ from 20000000 points", told), told


# E13 ----------------------------------------------------------------------------------------------

COUNT = """
import fanfold as ff
asked = ff.Resources(cores=12, memory="16GB", walltime="10m")
for size in {"jobs": 2}, {"cores": 48}, {"memory": "200 GB"}:
    with ff.dask_cluster("slurm", asked, interface="lo", **size) as cluster:
        print(len(cluster.worker_spec), end=" ")
"""


def test_how_many_jobs(session_slurm, dask, folder):
    """E13: with jobs of 12 cores and 16 GB, 48 cores are 4 jobs, and 200 GB are 13."""
    done = subprocess.run(
        ["python", "-c", COUNT], cwd=folder, env=dask, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "2 4 13 ", done.stderr
