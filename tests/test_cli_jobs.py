"""`fanfold jobs JOB`: what became of the elements of any job, whoever submitted it."""

import json
import subprocess
import sys

import pytest

from fanfold.testing.cluster import Cluster

SCRIPTS = {
    "pbs": "#!/bin/sh\n#PBS -N some\n#PBS -J 4-25:3\n#PBS -e /dev/null\n#PBS -o /dev/null\n"
    "exit $((PBS_ARRAY_INDEX == 7 ? 3 : 0))\n",
    "slurm": "#!/bin/sh\n#SBATCH --array=4-25:3 --output=/dev/null\n"
    "exit $((SLURM_ARRAY_TASK_ID == 7 ? 3 : 0))\n",
}
SUBMIT = {"pbs": ["qsub"], "slurm": ["sbatch", "--parsable"]}


class Site:
    """A pretend cluster, and commands there."""

    def __init__(self, cluster, dialect, folder):
        self.cluster = cluster
        self.dialect = dialect
        self.folder = folder

    def run(self, *words):
        return subprocess.run(
            words,
            cwd=self.folder,
            env={**self.cluster.environment, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def jobs(self, *words):
        return self.run(sys.executable, "-m", "fanfold", "jobs", "--on", self.dialect, *words)

    def submit(self, *options):
        (self.folder / "script").write_text(SCRIPTS[self.dialect])
        return self.run(*SUBMIT[self.dialect], *options, "script").stdout.strip()


@pytest.fixture(params=["pbs", "slurm"])
def site(request, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    with Cluster(tmp_path / "cluster", request.param, nodes=["n1"], cores=16) as cluster:
        yield Site(cluster, request.param, folder)


def test_every_element_and_its_exit_status(site):
    """One command: the counts by state, and how each element ended; 1 unless all are done."""
    done = site.jobs("--wait", site.submit())
    head, *lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert head.endswith("8 elements: 7 done, 1 failed")
    assert [line.split(",")[0].split() for line in lines][:3] == [
        ["[4]", "done"],
        ["[7]", "failed"],
        ["[10]", "done"],
    ]
    assert "failed, exit status 3, on n1" in lines[1]
    assert len(lines) == 8


def test_one_element(site):
    """An element is asked for by its own id."""
    job = site.submit()
    site.cluster.wait(job)
    one = job.replace("[]", "[10]") if site.dialect == "pbs" else f"{job}_10"
    done = site.jobs(one)
    assert [line.split(",")[0] for line in done.stdout.splitlines()[1:]] == ["  [10] done"]
    assert done.returncode == 0


def test_json(site):
    """For programs, a record of each element."""
    done = site.jobs("--json", "--wait", site.submit())
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["index"] for record in records] == list(range(4, 26, 3))
    assert [record["exit_status"] for record in records] == [0, 3, 0, 0, 0, 0, 0, 0]


def test_many_elements(site):
    """Of more than forty only those are listed that have not simply done their work."""
    option = "-J1-100" if site.dialect == "pbs" else "--array=1-100"
    head, *lines = site.jobs("--wait", site.submit(option)).stdout.splitlines()
    assert head.endswith("100 elements: 99 done, 1 failed")
    assert [line.split(",")[0] for line in lines] == [
        "  [7] failed",
        "  ... and 99 more; --json lists all",
    ]


def test_unknown(site):
    """A job that neither the queue nor the records know is an error, not an empty table."""
    done = site.jobs("99")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{site.dialect} knows no job 99, or not any more" in done.stderr


def test_wait_for_what():
    """What is about one job needs one."""
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", "jobs", "--wait"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "name it, as in fanfold jobs 1234" in done.stderr


@pytest.mark.parametrize(
    ("place", "begin"),
    [("pbs", "qsub -I -l select=1:ncpus=4"), ("slurm", "salloc --nodes=1")],
)
def test_what_a_shell_would_ask_for(place, begin):
    """`fanfold shell --dry-run` prints the command that gives a shell on a node."""
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", "shell", "--on", place, "--cores=4", "--dry-run"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(begin)
